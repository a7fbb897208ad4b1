# SPDX-License-Identifier: GPL-2.0
#
# Everything is done by the lab: `python3 -m lab COMMAND`. Kbuild describes the modules.

PYTHON ?= python3

# What the command line may set; the lab reads it from the environment.
export KDIR KSRC OUT LLVM RELEASE KERNEL STACK TESTS PYTEST_ARGS PROFILE BENCH_ARGS ACCEL LAB_CACHE LINUX_SOURCE DEBIAN_MIRROR DURATION INPUT

TARGETS := modules stock-modules deb intree patches demo bench bench-balloon bench-ring bench-rng bench-mmio bench-pci test test-long test-intree test-debug test-arm64 test-deb fuzz lint rustfmt rustdoc doctor shell update clean distclean

.PHONY: help $(TARGETS)

help: ## this list
	@sed -n -e 's/^##@ \(.*\)/\n\1/p' -e 's/^\([a-z0-9-]\+\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

##@ See it work
demo:		## hibernate a guest with an inflated balloon, beside one with the C driver: [KERNEL=full] [STACK=all: all modules ours]

##@ Install
deb:		## make the Debian package that has DKMS install the balloon's module, for Debian's newest kernels
stock-modules:	## build the modules for Debian's own kernel: the newest, or RELEASE=<uname -r>
modules:	## build the modules for the lab's kernel, or: KDIR=<prepared kernel build> [OUT=<folder>] [LLVM=1]
intree:		## put the sources into a kernel tree, to be built as a part of it: KSRC=<source of Linux 7.3>

##@ Test
test:		## run the tests on both kernels: [TESTS=<files>] [PYTEST_ARGS=<options>] [ACCEL=tcg]
test-long:	## run the tests and the long ones, those of the kernel with everything built in as well
test-intree:	## run the tests of a kernel with everything built in, and of a Debian system on it: [KERNEL=rust-debug]
test-debug:	## run the tests under KASAN, lockdep and kmemleak, with allocations that fail
test-deb:	## try the Debian package in a Debian system: install, hibernate, upgrade, remove
test-arm64:	## run those of transports, rings and balloon on arm64, under emulation
fuzz:		## feed drivers devices that lie: [DURATION=<seconds>] [INPUT=<file>: only this one] [KERNEL=full]

##@ Measure: [PROFILE=1: by function] [BENCH_ARGS="--only PART"]
bench:		## measure all of the following, and a kernel with all of virtio from Rust beside one from C's files
bench-balloon:	## measure the balloon driver beside the C driver: [KERNEL=stock]
bench-ring:	## measure virtio_ring beside the C module
bench-rng:	## measure the sample driver beside the C driver: [KERNEL=stock]
bench-mmio:	## measure virtio_mmio beside the C module
bench-pci:	## measure virtio_pci, and all modules together, beside the C modules

##@ Contribute
lint:		## check the style: rustfmt, checkpatch, clippy
rustfmt:	## format the Rust files
rustdoc:	## make pages of the documentation in the source: build/rustdoc
patches:	## write the sources as a series of patches to build/patches: [KSRC=<git tree, which gets a branch>]

##@ Keep house
doctor:		## say what is there, what is missing and how much disk is left
shell:		## open a shell in the build root
update:		## make the build root anew from today's archive
clean:		## remove build/
distclean:	## remove build/ and the cache

$(TARGETS):
	@$(PYTHON) -m lab $@
