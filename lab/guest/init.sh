#!/bin/sh
# PID 1 of every guest: mounts what is needed, loads modules, resumes from an image if there is one, then serves the harness.
#
# Read from the kernel command line:
#   lab.agent=TTY     the second serial port
#   lab.load=a,b      modules to load before the attempt to resume (the swap disk's driver and the like)
#   lab.swap=DEVICE   swap partition to resume from and to use
#   lab.late=a,b      modules to load after it
# A script at /lab/pre-resume, when there is one, runs between lab.load and the attempt to resume.
#
# The last thing it does is to become the agent (agent.sh). When that ends, the kernel's panic tells the harness.

export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t debugfs debugfs /sys/kernel/debug
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
: >/etc/fstab
echo -1000 >/proc/self/oom_score_adj
echo 1 >/proc/sys/kernel/sysrq
echo 60 >/proc/sys/kernel/hung_task_timeout_secs 2>/dev/null

# option NAME: the value of lab.NAME on the kernel command line, commas turned into blanks.
option() {
    tr ' ' '\n' </proc/cmdline | sed -n "s/^lab\.$1=//p" | tr ',' ' '
}

for module in $(option load); do
    modprobe "$module"
done

swap=$(option swap)
if [ -n "$swap" ]; then
    tries=0
    while [ ! -b "$swap" ] && [ $tries -lt 100 ]; do
        usleep 50000
        tries=$((tries + 1))
    done
fi
[ -e /lab/pre-resume ] && sh /lab/pre-resume
if [ -n "$swap" ]; then
    # Does not return when there is an image and it can be restored.
    echo "$swap" >/sys/power/resume
    swapon "$swap"
fi

for module in $(option late); do
    modprobe "$module"
done

echo 7 >/proc/sys/kernel/printk
exec sh /lab/agent
