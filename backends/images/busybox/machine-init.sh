#!/bin/sh
# Inside the guest: PID 1 of a busybox VM, which lives in its initramfs. Its output is the serial console.

. /lib/reconciler/common.sh

trap 'leave poweroff' PWR USR1 USR2
trap 'leave reboot' INT TERM
trap '' HUP

unmount() { umount -a -r 2>/dev/null; }

# plug PATTERN: the drivers of all devices whose alias matches.
plug() {
    seen=
    while aliases=$(cat /sys/bus/*/devices/*/modalias 2>/dev/null | awk "$1" | sort -u) && [ "$aliases" != "$seen" ]; do
        seen=$aliases
        modprobe -q -a $aliases 2>/dev/null
    done
}

# label DISK BLOCK SKIP COUNT: text in its header, in lower case.
label() { dd if="$1" bs="$2" skip="$3" count="$4" 2>/dev/null | tr -d ' \0' | tr A-Z a-z; }

# nocloud: the seed, on whatever disk has the label that NoCloud wants: an ISO, or FAT in either of its layouts.
nocloud() {
    for disk in /sys/class/block/*; do
        disk="/dev/${disk##*/}"
        if [ "$(label "$disk" 8 4101 4)" = cidata ]; then kind=iso9660
        elif [ "$(label "$disk" 1 43 11)" = cidata ] || [ "$(label "$disk" 1 71 11)" = cidata ]; then kind=vfat
        else continue; fi
        mkdir -p /run/seed && mount -o ro -t "$kind" "$disk" /run/seed && seed /run/seed
        return 0
    done
    return 1
}

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mount -t devtmpfs -o mode=0755,nosuid dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=0620,ptmxmode=0666 pts /dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm
ln -s /proc/self/fd /dev/fd
echo online >/sys/devices/system/memory/auto_online_blocks 2>/dev/null
hostname -F /etc/hostname

# What is on the buses, until loading it brings nothing new: a virtio device hides behind its PCI device.
# Virtio first: it answers at once, while a SATA controller looks at each of its ports for a while.
plug '/^virtio:|^pci:v00001AF4|^acpi:(PNP0C0C|LNXPWRBN|QEMU)|^dmi:/'
modprobe -q -a button evdev 2>/dev/null

acpid -f </dev/null >/dev/null 2>&1 &
listen
agent
network
if nocloud; then
    plug // &
else
    (
        plug //
        for try in 1 2 3 4 5; do
            if nocloud; then break; fi
            usleep 300000
        done
    ) &
fi
say ready
read -r terminals </sys/class/tty/console/active
attend "/dev/${terminals##* }"
