#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Unpacks packages of another Debian architecture: what programs for guests of that architecture are linked with.
# Nothing of it runs here, and the build root and its package lists stay as they are.
#
# usage: sysroot.sh DESTINATION ARCHITECTURE PACKAGE=VERSION...

set -eu
dest=$1 arch=$2
shift 2

mkdir -p /tmp/apt/archives/partial /tmp/apt/lists/partial
apt() {
	apt-get -q -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::State::Lists=/tmp/apt/lists \
		-o Dir::Cache=/tmp/apt -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}
cd /tmp
apt update
apt download "$@"
for package in *.deb; do
	dpkg-deb -x "$package" "$dest"
done
