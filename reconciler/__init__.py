"""Reconciler: declared VMs, containers, folders and devices, made so on QEMU/KVM and LXD. Knows no backend."""
