// SPDX-License-Identifier: GPL-2.0

//! Single registers of a device that are kept mapped.
//!
//! C header: `include/asm-generic/iomap.h`.

use kernel::prelude::*;

/// A register of a device.
///
/// # Safety
///
/// As long as the value exists, wherever it is moved to, `iowrite8()` and the like can write
/// [`Self::length`] bytes at [`Self::address`], in one access.
pub unsafe trait IoAddress: Send + Sync {
    /// Where the register is.
    fn address(&self) -> *mut c_void;

    /// How many bytes can be written.
    fn length(&self) -> usize;
}
