#!/bin/sh
# Inside the guest: keeps the QEMU guest agent running as long as its port is there.

while [ -e "$1" ]; do
    qemu-ga -m virtio-serial -p "$1" -t /run
    usleep 500000
done
