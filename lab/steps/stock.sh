#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Fetches Debian's binary kernel and prepares a build folder for modules of it: the shipped configuration and
# symbols, with the Rust metadata that Debian does not ship rebuilt from the same source by the same compilers.
#
# usage: stock.sh DESTINATION SOURCE RELEASE VERSION

set -eu
dest=$1 source=$2 release=$3 version=$4

cd /tmp
sh /src/lab/steps/download.sh "linux-headers-$release=$version" "linux-binary-$release=$version" \
	"linux-modules-$release=$version"
for package in *.deb; do
	dpkg-deb -x "$package" /tmp/unpacked
done
mkdir -p "$dest/modules" "$dest/build"
cd /tmp/unpacked
mv usr/lib/modules/"$release"/kernel "$dest/modules/kernel"
find . -name 'vmlinuz*' -type f -exec cp {} "$dest/bzImage" \;
test -f "$dest/bzImage"
cp usr/src/linux-headers-"$release"/.config usr/src/linux-headers-"$release"/Module.symvers "$dest/build/"

# The rest of the release must come from LOCALVERSION, or the modules' vermagic is not the kernel's.
base=$(make -s -C "$source" kernelversion)
case $release in
"$base"*) suffix=${release#"$base"} ;;
*)
	echo "lab: the source is $base and does not fit $release" >&2
	exit 1
	;;
esac
compiler=$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\) .*/\1/p' "$dest/build/.config")
echo "CC=$compiler LOCALVERSION=$suffix" >"$dest/make-variables"

# Optimising the procedural macros takes a minute and saves none.
build() {
	make -C "$source" O="$dest/build" CC="$compiler" LOCALVERSION="$suffix" HOSTRUSTFLAGS=-Copt-level=0 "$@"
}
build olddefconfig
if ! grep -q '^CONFIG_RUST=y' "$dest/build/.config"; then
	echo "lab: with the tools of the build root the kernel's configuration loses CONFIG_RUST" >&2
	diff "$dest/build/.config.old" "$dest/build/.config" >&2 || true
	exit 1
fi
build -j"$(nproc)" modules_prepare

# Every Rust symbol a module can link to must be one that the shipped kernel has.
sed -n 's/^EXPORT_SYMBOL_RUST_GPL(\(.*\));$/\1/p' "$dest"/build/rust/exports_*_generated.h | sort >/tmp/ours
cut -f2 "$dest/build/Module.symvers" | sort >/tmp/theirs
comm -23 /tmp/ours /tmp/theirs >/tmp/missing
if ! [ -s /tmp/ours ] || [ -s /tmp/missing ]; then
	echo "lab: $(wc -l </tmp/missing) Rust symbols are not those of the shipped kernel, the first:" >&2
	head -3 /tmp/missing >&2
	exit 1
fi
echo "lab: all $(wc -l </tmp/ours) Rust symbols are the shipped kernel's"
