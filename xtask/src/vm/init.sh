#!/bin/busybox sh
# The first process of the guest: makes it look like a machine, runs /command, tells its status, powers off.
export PATH=/usr/local/bin:/bin:/busybox HOME=/root TERM=linux
/bin/busybox mkdir -p /busybox /proc /sys /dev /run /tmp /root /var/run
/bin/busybox --install -s /busybox
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
# No tracefs: dropwatch must not need it.
hostname guest
ip link set lo up
# Emulated processors are slow enough to look locked up by the ordinary measure.
echo 60 >/proc/sys/kernel/watchdog_thresh
booted=$(dmesg | wc -l)
echo "guest: start @TOKEN@ $(uname -r)"
# The host's shell: that of busybox prefers its own `ip` and `tc` to the real ones.
/bin/sh /command
status=$?
# What the kernel said of its boot explains nothing, but hides what failed.
if [ "$status" -ne 0 ] && [ "$(dmesg | wc -l)" -gt "$booted" ]; then
    echo "guest: the last kernel messages:"
    dmesg | tail -n "+$((booted + 1))" | tail -n 40
fi
echo "guest: exit $status @TOKEN@"
poweroff -f
