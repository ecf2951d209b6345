"""APPLY, recipes ``debian`` and ``lxd-host``: what each is made of, beside what is asked for."""

from __future__ import annotations

CONTAINER = (
    *("systemd-sysv", "dbus", "libpam-systemd", "dbus-user-session", "ifupdown", "isc-dhcp-client", "iproute2"),
    *("sudo", "passwd", "locales-all", "tzdata"),
)
"""A container that people log in to: an init, a network, users, languages."""
MACHINE = (
    *("systemd-sysv", "dbus", "iproute2", "sudo", "passwd", "kmod", "udev", "qemu-guest-agent", "linux-image-amd64"),
    *("e2fsprogs", "fdisk", "cloud-guest-utils"),
)
"""A plain VM."""
LXD_HOST = (
    *("lxd", "lxd-client", "lxcfs", "qemu-guest-agent", "busybox-static", "kmod", "iproute2", "iptables", "nftables"),
    *("dnsmasq-base", "ca-certificates", "e2fsprogs", "squashfs-tools", "xz-utils", "zstd", "attr", "acl", "rsync"),
    *("uidmap", "fuse3"),
)
"""A VM whose only job is to run LXD: no init system of its own, our script is enough."""
ALL = (CONTAINER, MACHINE, LXD_HOST)
