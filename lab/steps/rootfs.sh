#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes of a Debian tree the system that guests boot: the harness's agent as a service, an empty password, swap, and a
# package repository in a folder as the only one.
#
# usage: rootfs.sh ROOT AGENT PACKAGE

set -eu
root=$1 agent=$2 package=$3

mkdir -p "$root/srv/repository"
# As root, which a user namespace has for nobody else.
chroot "$root" sh -c 'cd /srv/repository && apt-get -q -o APT::Sandbox::User=root download "$1"' sh "$package"
chroot "$root" sh -c '
	cd /srv/repository
	for file in *.deb; do
		dpkg-deb -f "$file"
		echo "Filename: ./$file"
		echo "Size: $(stat -c %s "$file")"
		echo "SHA256: $(sha256sum "$file" | cut -d " " -f 1)"
		echo
	done >Packages'
rm -rf "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/* \
	"$root"/etc/apt/preferences.d/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
echo 'deb [trusted=yes] file:/srv/repository ./' >"$root/etc/apt/sources.list"

install -D -m 755 "$agent" "$root/usr/local/sbin/lab-agent"
cat >"$root/etc/systemd/system/lab-agent.service" <<END
[Unit]
Description=Runs the scripts of the test harness

[Service]
ExecStart=/usr/local/sbin/lab-agent
Environment=HOME=/root
OOMScoreAdjust=-1000
TasksMax=infinity
KillMode=process

[Install]
WantedBy=multi-user.target
END
ln -s ../lab-agent.service "$root/etc/systemd/system/multi-user.target.wants/lab-agent.service"
# A login on virtio_console, beside that on the console.
mkdir -p "$root/etc/systemd/system/getty.target.wants"
ln -s /usr/lib/systemd/system/serial-getty@.service "$root/etc/systemd/system/getty.target.wants/serial-getty@hvc0.service"

echo debian >"$root/etc/hostname"
: >"$root/etc/fstab"
sed -i 's/^root:[^:]*:/root::/' "$root/etc/passwd" "$root/etc/shadow"
