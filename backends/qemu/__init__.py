"""QEMU: virtual machines of this host, each a process of its own that is driven over QMP."""
