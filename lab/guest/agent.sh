#!/bin/sh
# Runs the harness's shell scripts, which come over the serial port that lab.agent= on the kernel
# command line names:
#   request  "ID SIZE\n" and SIZE bytes of shell script
#   answer   "answer ID STATUS SIZE\n" and SIZE bytes of what it printed
#   a fresh boot says "ready BOOT_ID\n" first; a resumed image goes on where it was, with the answer that was due.

tty=/dev/$(tr ' ' '\n' </proc/cmdline | sed -n 's/^lab\.agent=//p')
exec <"$tty" >"$tty"
stty raw -echo
echo "ready $(cat /proc/sys/kernel/random/boot_id)"
while read -r id size; do
    head -c "$size" >/run/script
    (echo 0 >/proc/self/oom_score_adj; exec sh /run/script) </dev/null >/run/output 2>&1
    status=$?
    echo "answer $id $status $(stat -c %s /run/output)"
    cat /run/output
done
