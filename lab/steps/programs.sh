#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Builds every Rust program of a folder that is newer than its result, without shared libraries, for the guests.
#
# usage: programs.sh FOLDER OUT [RUSTC-OPTION]...

set -eu
folder=$1 out=$2
shift 2
mkdir -p "$out"
for source in "$folder"/*.rs; do
	program=$out/$(basename "$source" .rs)
	if [ ! -e "$program" ] || [ "$source" -nt "$program" ]; then
		rustc --edition 2021 -O -C target-feature=+crt-static -C strip=symbols "$@" -o "$program.new" "$source"
		mv "$program.new" "$program"
	fi
done
