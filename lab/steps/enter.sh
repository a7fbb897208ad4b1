#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs a command in the build root. Process 1 of new mount and process namespaces: when it ends, all in them ends.
#
# usage: enter.sh ROOT ro|rw CWD [SOURCE TARGET]... -- ENV-ASSIGNMENT-OR-COMMAND...

set -eu
root=$1 mode=$2 cwd=$3
shift 3

mount --bind "$root" "$root"
cd "$root" # a path from here on leads into the new mount
if [ "$mode" = ro ]; then
	mount -o remount,bind,ro "$root"
fi
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
for node in null zero full random urandom tty kvm net/tun; do
	if [ -e "/dev/$node" ]; then
		: >"$root/dev/$node"
		mount --bind "/dev/$node" "$root/dev/$node"
	fi
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
	mount --bind "$1" "$root$2"
	shift 2
done
shift

# The host's shell stays process 1 and collects what the command leaves behind.
status=0
chroot "$root" /usr/bin/env -i -C "$cwd" "$@" || status=$?
exit "$status"
