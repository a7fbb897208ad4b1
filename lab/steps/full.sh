#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Configures and builds the lab's own kernel from a fragment over tinyconfig, with LLVM, and installs its C modules.
#
# usage: full.sh DESTINATION SOURCE FRAGMENT LLVM

set -eu
dest=$1 source=$2 fragment=$3 llvm=$4
mkdir -p "$dest/build"
cd "$dest/build"

# Optimising the procedural macros takes a minute and saves none.
build() {
	make -C "$source" O="$dest/build" LLVM="$llvm" HOSTRUSTFLAGS=-Copt-level=0 "$@"
}
build tinyconfig
"$source/scripts/kconfig/merge_config.sh" -m -O "$dest/build" .config "$fragment"
build olddefconfig

# An option whose dependencies are not met vanishes without a word.
grep -E '^CONFIG_|^# CONFIG_.* is not set$' "$fragment" | while read -r line; do
	case $line in
	'#'*)
		option=${line#\# }
		option=${option%% *}
		if grep -q "^$option=" .config; then echo "$line"; fi
		;;
	*)
		if ! grep -q -x "$line" .config; then echo "$line"; fi
		;;
	esac
done >not-taken
if [ -s not-taken ]; then
	echo "lab: these lines of $fragment were not taken by the kernel's configuration:" >&2
	cat not-taken >&2
	exit 1
fi

build -j"$(nproc)" bzImage modules
build INSTALL_MOD_PATH="$dest/install" INSTALL_MOD_STRIP=1 DEPMOD=true modules_install
mv "$dest"/install/lib/modules/*/kernel "$dest/modules"
rm -r "$dest/install"
cp arch/x86/boot/bzImage "$dest/bzImage"
build -s kernelrelease | tail -n 1 >"$dest/release"

# What building modules does not need.
find . -name scripts -prune -o -name tools -prune -o -name rust -prune -o \
	\( -name '*.o' -o -name '*.a' -o -name '.*.cmd' -o -name '*.ko' -o -name '*.mod*' \) -type f -exec rm {} +
rm -f vmlinux.unstripped arch/x86/boot/compressed/vmlinux.bin* arch/x86/boot/vmlinux.bin .tmp_vmlinux*
