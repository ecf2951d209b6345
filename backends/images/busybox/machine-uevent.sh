#!/bin/sh
# Inside the guest: run for every kernel event; what was plugged in gets its driver, its address, its agent.

. /lib/reconciler/common.sh

if [ "$ACTION" = add ] && [ -n "$MODALIAS" ]; then modprobe -q "$MODALIAS" 2>/dev/null; fi
case "$SUBSYSTEM:$ACTION:$INTERFACE" in
    net:add:eth* | net:move:eth*) dhcp "$INTERFACE" ;;
    net:remove:eth*) dhcp_stop "$INTERFACE" ;;
    virtio-ports:add:) agent ;;
    cpu:add:) echo 1 >"/sys$DEVPATH/online" ;;
esac
