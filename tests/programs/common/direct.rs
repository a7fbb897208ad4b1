// SPDX-License-Identifier: GPL-2.0

//! The flag `O_DIRECT` of open(2), which is another one on each architecture.

/// `arch/arm64/include/uapi/asm/fcntl.h`.
#[cfg(target_arch = "aarch64")]
pub const O_DIRECT: i32 = 0o200000;

/// `include/uapi/asm-generic/fcntl.h`.
#[cfg(target_arch = "x86_64")]
pub const O_DIRECT: i32 = 0o40000;
