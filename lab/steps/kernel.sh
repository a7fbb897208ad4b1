#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Configures and builds a kernel of the lab's own from fragments over tinyconfig and installs its C modules. A later
# fragment overrides an earlier one. IMAGE is the file to boot, below the build folder. VARIABLES are those of the
# kernel's Makefile, in one word: 'CC=gcc-14', 'ARCH=arm64 LLVM=-19'.
#
# usage: kernel.sh DESTINATION SOURCE IMAGE VARIABLES FRAGMENT...

set -eu
dest=$1 source=$2 image=$3 variables=$4
shift 4
mkdir -p "$dest/build"
cd "$dest/build"

# Optimising the procedural macros takes a minute and saves none.
build() {
	# shellcheck disable=SC2086 # Several words are several variables.
	make -C "$source" O="$dest/build" $variables HOSTRUSTFLAGS=-Copt-level=0 "$@"
}
build tinyconfig
cat "$@" >>.config
build olddefconfig

# An option whose dependencies are not met vanishes without a word.
awk '
/^CONFIG_/ { split($0, field, "="); wanted[field[1]] = $0 }
/^# CONFIG_.* is not set$/ { wanted[$2] = $0 }
END { for (option in wanted) print option, wanted[option] }
' "$@" | while read -r option line; do
	case $line in
	'#'*) if grep -q "^$option=" .config; then echo "$line"; fi ;;
	*) if ! grep -q -x "$line" .config; then echo "$line"; fi ;;
	esac
done >not-taken
if [ -s not-taken ]; then
	echo "lab: these lines of the fragments $* were not taken by the kernel's configuration:" >&2
	cat not-taken >&2
	exit 1
fi

build -j"$(nproc)" "${image##*/}" modules
build INSTALL_MOD_PATH="$dest/install" INSTALL_MOD_STRIP=1 DEPMOD=true modules_install
mv "$dest"/install/lib/modules/*/kernel "$dest/modules"
rm -r "$dest/install"
cp "$image" "$dest"
build -s kernelrelease | tail -n 1 >"$dest/release"

# What building modules does not need.
find . -name scripts -prune -o -name tools -prune -o -name rust -prune -o \
	\( -name '*.o' -o -name '*.a' -o -name '.*.cmd' -o -name '*.ko' -o -name '*.mod*' \) -type f -exec rm {} +
rm -f vmlinux.unstripped arch/*/boot/compressed/vmlinux.bin* arch/*/boot/vmlinux.bin .tmp_vmlinux*
