// SPDX-License-Identifier: GPL-2.0

//! How much memory the kernel can spare.
//!
//! C header: `include/linux/mm.h`.

use kernel::bindings;

/// Estimates the number of kernel pages that can be allocated without swapping, the reserves of the
/// zones left out (`MemAvailable` of `/proc/meminfo`).
///
/// # Context
///
/// Any.
pub fn available_pages() -> usize {
    // SAFETY: No requirements.
    usize::try_from(unsafe { bindings::si_mem_available() }).unwrap_or(0)
}
