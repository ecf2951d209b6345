#!/bin/sh
# Inside the guest: the initramfs of an LXD host. Sets up the verified root, lays memory over it, and hands over to it.

. /lib/reconciler/common.sh

fail() {
    say "$*: not booting"
    sync
    exec poweroff -f
}

# disk SERIAL: the device of that serial number, waited for.
disk() {
    for try in $(seq 1 200); do
        for found in /sys/block/vd*; do
            if [ "$(cat "$found/serial" 2>/dev/null)" = "$1" ]; then
                echo "/dev/${found##*/}"
                return 0
            fi
        done
        usleep 50000
    done
    return 1
}

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mount -t devtmpfs -o mode=0755,nosuid dev /dev
for word in $(cat /proc/cmdline); do
    case "$word" in reconciler.verity=*) verity=${word#*=} ;; esac
done
modprobe -q -a virtio_pci virtio_blk dm_verity squashfs overlay
root=$(disk _boot) || fail "there is no root disk"
blocks=${verity%%:*}
# Hashes follow the data on the same device. A block that is not what it was stops the machine, whoever reads it.
table="0 $((blocks * 8)) verity 1 $root $root 4096 4096 $blocks $blocks sha256 ${verity#*:} - 1 panic_on_corruption"
dmsetup create verified --readonly --noudevsync --table "$table" || fail "the root disk cannot be verified"
dmsetup mknodes
mkdir -p /below /above /new
mount -t squashfs -o ro /dev/mapper/verified /below || fail "the root disk holds no file system of ours"
mount -t tmpfs -o mode=0755 above /above
mkdir /above/files /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/files,workdir=/above/work root /new || fail "no root"
for place in proc sys dev; do mount --move "/$place" "/new/$place"; done
exec switch_root /new /sbin/init
