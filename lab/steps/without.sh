#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes a folder that is like the build folder of a kernel but for some options that are off, to compile modules with. They cannot be
# loaded into any kernel: the kernel's own objects are those of the build.
#
# usage: without.sh BUILD SHADOW OPTION...

set -eu
build=$1 shadow=$2
made="$*"
shift 2
if [ "$(cat "$shadow/.made" 2>/dev/null)" = "$made" ]; then
	exit
fi
rm -rf "$shadow"
mkdir -p "$shadow"
for path in "$build"/* "$build"/.config; do
	ln -s "$path" "$shadow"
done
rm "$shadow/include"
cp -r "$build/include" "$shadow"
for option; do
	grep -q "^$option=" "$shadow/include/config/auto.conf" # it was on
	sed -i "/^$option=/d" "$shadow/include/config/auto.conf"
	sed -i "/^#define $option\(_MODULE\)\? /d" "$shadow/include/generated/autoconf.h"
	sed -i "/^--cfg=$option\(=.*\)\?\$/d" "$shadow/include/generated/rustc_cfg"
done
echo "$made" >"$shadow/.made"
