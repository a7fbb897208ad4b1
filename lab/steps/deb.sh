#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes the Debian package, in the root that has debhelper.
#
# usage: deb.sh OUT VERSION MAINTAINER RELEASE:VERSION:MODULE...

set -eu
out=$1 version=$2 maintainer=$3
shift 3
tree=/tmp/virtio-rust
mkdir -p "$tree/module" "$out"
cp -r /src/packaging/debian "$tree/"
cd /src
cp -r --parents Kbuild Kconfig COPYING *.rs kernel_ext samples virtio virtio_*/ "$tree/module/"
install -m 755 /src/packaging/dkms-module "$tree/module/"
for kernel in "$@"; do
	release=${kernel%%:*} rest=${kernel#*:}
	module=${rest##*:}
	install -D -m 644 "$module" "$tree/module/prebuilt/$release/${rest%:*}/virtio_balloon.ko"
	# What a debugger wants is most of it.
	strip --strip-debug "$tree/module/prebuilt/$release/${rest%:*}/virtio_balloon.ko"
done
cd "$tree"
sed -i "s|@MAINTAINER@|$maintainer|" debian/control
cat >debian/changelog <<END
virtio-rust ($version) unstable; urgency=medium

  * See CHANGELOG.md.

 -- $maintainer  $(date -R -d "@$SOURCE_DATE_EPOCH")
END
# No compiler is used, so build-essential is not there.
dpkg-buildpackage -d -b -us -uc
lintian --fail-on error ../virtio-rust_*.changes
cp ../virtio-rust-dkms_*.deb "$out/"
