#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Unpacks a kernel source tree, without what no kernel of the lab, for x86-64 or arm64, needs to configure or build.
#
# usage: source.sh DESTINATION archive PACKAGE VERSION
#        source.sh DESTINATION tarball FILE

set -eu
dest=$1 kind=$2
mkdir -p "$dest"

# Kconfig files and Makefiles stay everywhere, so that any configuration can be read.
leave_out=$(mktemp)
{
	echo '*/Documentation/*.*'
	echo '*/tools/perf/*'
	echo '*/tools/testing/*'
	for folder in arch/alpha 'arch/ar[cm]' 'arch/[b-wyz]*' arch/xtensa drivers/accel drivers/gpu drivers/iio \
		drivers/infiniband drivers/media drivers/net/ethernet drivers/net/wireless drivers/staging sound; do
		echo "*/$folder/*.[chS]"
	done
	echo '*/arch/[a-wyz]*/*.dts*'
	echo '*/arch/[a-wyz]*/*defconfig'
} >"$leave_out"

unpack() {
	tar -x -f - -C "$dest" --strip-components=1 --no-same-owner --anchored --exclude-from="$leave_out"
}

case $kind in
archive)
	cd /tmp
	sh /src/lab/steps/download.sh "$3=$4"
	dpkg-deb --fsys-tarfile "$3"_*.deb >/tmp/package.tar
	inner=$(tar -t -f /tmp/package.tar | grep '\.tar\.xz$')
	tar -x -O -f /tmp/package.tar "$inner" | xz -d -c -T0 | unpack
	;;
tarball)
	case $3 in
	*.xz) xz -d -c -T0 "$3" ;;
	*.gz | *.tgz) gzip -d -c "$3" ;;
	*.zst) zstd -d -c "$3" ;;
	*) cat "$3" ;;
	esac | unpack
	;;
esac
test -f "$dest/Makefile" && test -f "$dest/rust/Makefile"
