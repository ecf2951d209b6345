#!/bin/sh
# Inside the guest: PID 1 of an LXD host. Mounts, network, guest agent, then LXD, which is started again when it ends.

. /lib/reconciler/common.sh

trap 'down poweroff' PWR USR1 USR2
trap 'down reboot' INT TERM
trap '' HUP

unmount() { umount -a -r 2>/dev/null; }

# down WHAT: the containers first, as their owners would have it.
down() {
    : >/run/leaving
    lxd shutdown --timeout 30 2>/dev/null
    leave "$1"
}

# data: LXD's own files are on the disk of that name, which is made ready when it is blank; else they are lost at the end.
data() {
    for found in /sys/block/vd*; do
        if [ "$(cat "$found/serial")" = data ]; then disk="/dev/${found##*/}"; fi
    done
    if [ -z "${disk:-}" ]; then
        say "there is no disk called data: containers live in memory"
        return 0
    fi
    if [ -z "$(/usr/sbin/blkid -p "$disk")" ] && [ -z "$(head -c 1048576 "$disk" | tr -d '\0' | head -c 1)" ]; then
        say "formatting $disk"
        /usr/sbin/mke2fs -q -t ext4 -L data -E lazy_itable_init=1,lazy_journal_init=1 "$disk"
    fi
    mkdir -p /mnt/data
    if /usr/sbin/e2fsck -p "$disk" >/dev/null 2>&1 || [ $? -lt 4 ]; then mount -t ext4 "$disk" /mnt/data; fi
    if ! grep -q ' /mnt/data ' /proc/mounts; then
        say "the disk called data cannot be mounted: LXD is not started"
        : >/run/leaving
        return 0
    fi
    /usr/sbin/resize2fs "$disk" >/dev/null 2>&1
    mkdir -p /mnt/data/lxd
    mount --bind /mnt/data/lxd /var/lib/lxd
}

# serve COMMAND…: run it, and again whenever it ends.
serve() {
    until [ -e /run/leaving ]; do
        "$@" >>"/run/${1##*/}.log" 2>&1 </dev/null
        usleep 300000
    done
}

# preseed: on stdin. By the daemon's own program, which is in memory already, where lxc is not.
preseed() { lxd init --preseed >>/run/lxd.log 2>&1; }

# first_time: what a new LXD is to begin with. It listens last of all: whoever reaches it finds everything there.
first_time() {
    until [ -S /var/lib/lxd/unix.socket ]; do usleep 100000; done # who asks earlier only takes time away from it
    lxd waitready --timeout 120 >/dev/null 2>&1
    if [ ! -e /var/lib/lxd/.begun ]; then
        preseed </etc/reconciler/lxd.yaml &&
            echo 'config: {core.https_address: "[::]:8443"}' | preseed && : >/var/lib/lxd/.begun
    fi
    say ready
}

# drivers: for whatever else is plugged in; LXD, which is awaited, goes first. What comes later: see uevent.
drivers() { nice -n 19 modprobe -q -a $(cat /sys/bus/*/devices/*/modalias | sort -u) 2>/dev/null; }

mount -t tmpfs -o mode=0755,nosuid,nodev run /run
mkdir -p /run/lock /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=0620,ptmxmode=0666 pts /dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm
mount -t tmpfs -o mode=1777,nosuid,nodev tmp /tmp
mount -t cgroup2 -o nosuid,nodev,noexec cgroup /sys/fs/cgroup
mount --make-rshared /
ln -s /proc/self/fd /dev/fd
echo online >/sys/devices/system/memory/auto_online_blocks 2>/dev/null
echo 1048576 >/proc/sys/fs/inotify/max_user_instances
hostname -F /etc/hostname
modprobe -q -a virtio_net virtio_console virtio_balloon virtio_mem virtiofs button evdev fuse
acpid -f </dev/null >/dev/null 2>&1 &
listen
agent
network
data
drivers &
mkdir -p /var/lib/lxcfs
serve lxcfs /var/lib/lxcfs &
export LXD_LXC_TEMPLATE_CONFIG=/usr/share/lxc/config
serve lxd --group root --logfile /run/lxd-daemon.log &
first_time &
read -r terminals </sys/class/tty/console/active
attend "/dev/${terminals##* }"
