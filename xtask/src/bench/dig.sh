#!/bin/sh
# What `dropwatch dig` costs packets, as root: pings on the loopback with nothing attached, past the gate (they call functions that are
# followed, but no root), and in it. On a machine, or in a guest:
#     cargo xtask vm --kernel 7 -- sh -c "$(cat xtask/src/bench/dig.sh)"
set -eu
rounds=10 pings=500
messages=$(mktemp)
trap 'rm -f "$messages"' EXIT

uptime() { cut -d ' ' -f 1 /proc/uptime; }

# The sum of a figure of the kernel's BPF statistics over the programs that follow functions (kprobes).
statistic() {
    for info in /proc/"$1"/fdinfo/*; do
        [ -e "$info" ] || continue
        awk -v name="$2:" '/^prog_type:/ { kind = $2 } $1 == name { sum = $2 } END { if (kind == 2) print sum }' "$info"
    done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# The round in which pings took least, and the one in which a run of a program did.
measure() {
    for _ in $(seq $rounds); do
        before="$(uptime) $(statistic "$1" run_cnt) $(statistic "$1" run_time_ns)"
        busybox ping -A -q -c $pings 127.0.0.1 >/dev/null
        echo "$before $(uptime) $(statistic "$1" run_cnt) $(statistic "$1" run_time_ns)"
    done | awk -v pings=$pings '
        { took = ($4 - $1) / pings * 1e6; if (!best || took < best) best = took }
        { runs = $5 - $2; each = runs ? ($6 - $3) / runs : 0; if (!least || each < least) least = each }
        END { printf "%.0f us a ping; %.0f runs of a program, %.0f ns each\n", best, runs / pings, least }'
}

# While functions are followed: a datagram to a closed port says where.
followed() {
    dropwatch dig -v 'reason NO_SOCKET and udp' "$@" 2>"$messages" >/dev/null &
    wait_for 'Waiting for a drop'
    busybox traceroute -n -q 1 -m 1 127.0.0.1 >/dev/null
    wait_for 'functions attached'
    measure $!
    kill $!
    wait $! || true
    sed -n 's/.* \([0-9]* functions attached in [^;]*\);.*/  \1/p' "$messages"
}

wait_for() {
    for _ in $(seq 300); do
        if grep -q "$1" "$messages"; then return; fi
        sleep 0.1
    done
    cat "$messages"
    exit 1
}

statistics=$(cat /proc/sys/kernel/bpf_stats_enabled)
echo 1 >/proc/sys/kernel/bpf_stats_enabled
uname -r
echo "nothing attached: $(measure none)"
echo "past the gate: $(followed --root udp_sendmsg)"
echo "in the gate: $(followed)"
echo "$statistics" >/proc/sys/kernel/bpf_stats_enabled
