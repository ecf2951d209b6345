#!/bin/sh
# Inside the guest: run for every kernel event; a network card that came or went.

. /lib/reconciler/common.sh

case "$SUBSYSTEM:$ACTION:$INTERFACE" in
    net:add:eth* | net:move:eth*) dhcp "$INTERFACE" ;;
    net:remove:eth*) dhcp_stop "$INTERFACE" ;;
esac
