#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Builds a kernel with virtio built in, in an object tree that stays, so that a change of our sources costs the link of the
# kernel and no more. What guests need is copied to OUT. TOOLCHAIN is a variable of the kernel's Makefile.
#
# usage: intree-kernel.sh BUILD SOURCE TOOLCHAIN FRAGMENT OUT

set -eu
build=$1 source=$2 toolchain=$3 fragment=$4 out=$5
mkdir -p "$build" "$out/modules"
cd "$build"

# Optimising the procedural macros takes a minute and saves none.
build() {
	make -C "$source" O="$build" "$toolchain" HOSTRUSTFLAGS=-Copt-level=0 "$@"
}
if ! [ -e .config ]; then
	build tinyconfig
	cat "$fragment" >>.config
fi
build olddefconfig

# An option whose dependencies are not met vanishes without a word.
grep '^CONFIG_' "$fragment" | grep -v -x -F -f .config >not-taken || true
sed -n 's/^# \(CONFIG_.*\) is not set$/^\1=/p' "$fragment" | grep -f - .config >>not-taken || true
if [ -s not-taken ]; then
	echo "lab: the kernel's configuration did not take these lines of $fragment, or has them in spite of it:" >&2
	cat not-taken >&2
	exit 1
fi

build -j"$(nproc)" bzImage
cp arch/x86/boot/bzImage System.map "$out"
cp modules.builtin "$out/modules"
build -s kernelrelease | tail -n 1 >"$out/release"
