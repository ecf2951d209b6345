#!/bin/sh
# Inside the guest: called by udhcpc when a lease begins, changes or ends.

case "$1" in
    deconfig)
        ip -4 addr flush dev "$interface"
        ip link set "$interface" up
        ;;
    bound | renew)
        ip -4 addr flush dev "$interface"
        ip addr add "$ip/${mask:-24}" dev "$interface"
        for gateway in $router; do
            ip route add default via "$gateway" dev "$interface" 2>/dev/null
        done
        {
            if [ -n "$domain" ]; then echo "search $domain"; fi
            for server in $dns; do echo "nameserver $server"; done
        } >/etc/resolv.conf.new
        mv /etc/resolv.conf.new /etc/resolv.conf # never empty for who looks now
        ;;
esac
