# Inside the guest, read by both inits and the uevent handler: what a container and a VM do alike.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-vt100}"

say() { echo "reconciler-guest: $*"; }

# dhcp INTERFACE: an address, and the lease renewed from then on; once an interface, whoever asks at the same time.
dhcp() {
    pid="/run/udhcpc.$1.pid"
    tries=0
    until mkdir "$pid.lock" 2>/dev/null || [ "$tries" -ge 500 ]; do
        tries=$((tries + 1))
        usleep 10000
    done
    if ! { [ -f "$pid" ] && kill -0 "$(cat "$pid")" 2>/dev/null; }; then
        ip link set "$1" up
        udhcpc -f -R -i "$1" -p "$pid" -t 5 -T 1 -A 5 -x "hostname:$(hostname)" -s /usr/share/udhcpc/default.script \
            </dev/null >/dev/null 2>&1 &
        echo $! >"$pid" # as it will itself, in its own time
    fi
    rmdir "$pid.lock" 2>/dev/null
}

# dhcp_stop INTERFACE: it was taken away. Who ends removes the file with its number, which by then must be no other's.
dhcp_stop() {
    pid="/run/udhcpc.$1.pid"
    client=$(cat "$pid" 2>/dev/null)
    kill "$client" 2>/dev/null
    tries=0
    while kill -0 "$client" 2>/dev/null && [ "$tries" -lt 300 ]; do
        tries=$((tries + 1))
        usleep 10000
    done
    rm -f "$pid"
}

# listen: whatever is plugged in from here on is attended to. What is there already has to be looked for afterwards:
# so nothing is missed, and what comes just then is seen twice.
listen() {
    uevent /lib/reconciler/uevent </dev/null >/dev/null 2>&1 &
    tries=0
    until listens $! || ! kill -0 $! 2>/dev/null || [ "$tries" -ge 6000 ]; do
        tries=$((tries + 1))
        usleep 5000
    done
}

# listens PID: the kernel tells it of its events, which is netlink's protocol 15.
listens() {
    while read -r socket protocol port rest; do
        if [ "$protocol:$port" = "15:$1" ]; then return 0; fi
    done </proc/net/netlink
    return 1
}

network() {
    ip link set lo up
    for interface in /sys/class/net/eth*; do
        if [ -e "$interface" ]; then dhcp "${interface##*/}"; fi
    done
}

# value KEY FILE: of "KEY: value", without quotes.
value() { sed -n "s/^$1:[[:space:]]*[\"']\{0,1\}\([^\"']*\)[\"']\{0,1\}[[:space:]]*$/\1/p" "$2" | head -n 1; }

# seed FOLDER: the little of cloud-init's NoCloud that we do: the host's name, and user-data that is a script,
# run once an instance. What else user-data may be is left alone, and said so.
seed() {
    if [ -f "$1/meta-data" ]; then
        name=$(value local-hostname "$1/meta-data")
        if [ -n "$name" ] && hostname "$name" && [ "$name" != "$(cat /etc/hostname)" ]; then
            echo "$name" >/etc/hostname.new && mv /etc/hostname.new /etc/hostname # never empty for who looks now
        fi
        instance=$(value instance-id "$1/meta-data")
    fi
    done=/var/lib/cloud/instances/$(echo "${instance:-none}" | tr -c 'A-Za-z0-9._\n-' _)
    if [ -s "$1/user-data" ] && [ ! -e "$done/boot-finished" ]; then user_data "$1/user-data" "$done"; fi
    mkdir -p "$done" && : >"$done/boot-finished" && ln -sfn "$done" /var/lib/cloud/instance
}

user_data() {
    if [ "$(head -c 2 "$1")" != '#!' ]; then
        say "user-data is not a script: left alone"
        return 0
    fi
    mkdir -p "$2" && cp "$1" "$2/user-data.sh" && chmod 0700 "$2/user-data.sh"
    "$2/user-data.sh" </dev/null &
    wait $!
    say "user-data ended with $?"
}

# agent: udev's names for the virtio ports, and the guest agent on its own; once.
agent() {
    mkdir -p /dev/virtio-ports
    for port in /sys/class/virtio-ports/*/name; do
        if [ -s "$port" ]; then
            number=${port%/name}
            ln -sfn "../${number##*/}" "/dev/virtio-ports/$(cat "$port")"
        fi
    done
    port=/dev/virtio-ports/org.qemu.guest_agent.0
    if [ -e "$port" ] && command -v qemu-ga >/dev/null && mkdir /run/agent 2>/dev/null; then
        /lib/reconciler/agent "$port" </dev/null >/dev/null 2>&1 &
    fi
}

# attend TERMINAL: a shell there, and a new one whenever it ends. "wait" also reaps what nobody else waits for.
attend() {
    while :; do
        setsid /lib/reconciler/console "$1" &
        shell=$!
        while kill -0 "$shell" 2>/dev/null; do wait "$shell"; done
        usleep 100000
    done
}

# alone: nothing runs any more but ourselves (and the kernel's own threads, which have no command line).
alone() {
    for process in /proc/[0-9]*; do
        words=
        { read -r words <"$process/cmdline"; } 2>/dev/null
        if [ "$process" != /proc/1 ] && [ -n "$words" ]; then return 1; fi
    done
}

# leave poweroff|reboot: everybody is asked, then told, then made to go. Interactive shells only listen to HUP.
leave() {
    trap '' PWR USR1 USR2 INT TERM HUP
    say "$1"
    kill -TERM -1
    if [ -n "${shell:-}" ]; then kill -HUP "$shell"; fi
    tries=0
    until alone || [ "$tries" -ge 100 ]; do
        if [ "$tries" -eq 15 ]; then kill -HUP -1; fi
        tries=$((tries + 1))
        usleep 20000
    done
    kill -KILL -1
    sync
    unmount
    exec /bin/busybox "$1" -f
}
