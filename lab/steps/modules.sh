#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Builds the external modules of one folder for one kernel; everything that is made goes to OUT.
#
# usage: modules.sh FOLDER OUT SOURCE BUILD [MAKE-VARIABLE]...

set -eu
folder=$1 out=$2 source=$3 build=$4
shift 4
mkdir -p "$out"
# What was made for another kernel is no use and would only confuse make.
kernel="$build $*"
if [ "$(cat "$out/.kernel" 2>/dev/null)" != "$kernel" ]; then
	rm -rf "$out"
	mkdir -p "$out"
	echo "$kernel" >"$out/.kernel"
fi
exec make -C "$source" O="$build" "$@" -j"$(nproc)" M="$folder" MO="$out" modules
