// SPDX-License-Identifier: GPL-2.0

//! How much memory the kernel can spare, and what it leaves in free pages.
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

/// Number of kernel pages for which there is room in the swap areas.
///
/// # Context
///
/// Any.
pub fn free_swap_pages() -> usize {
    #[cfg(CONFIG_SWAP)]
    // SAFETY: The counter is static.
    let free = unsafe { bindings::atomic64_read(&raw const bindings::nr_swap_pages) };
    #[cfg(not(CONFIG_SWAP))]
    let free = 0;

    usize::try_from(free).unwrap_or(0)
}

/// What the kernel fills pages with when it frees them, if it does: each byte of the value.
///
/// Zeroes with `init_on_free=1`, the poison pattern with `page_poison=1` on the command line.
///
/// # Context
///
/// Any; the answer never changes.
pub fn fill_of_free_pages() -> Option<u8> {
    // SAFETY: The key is static.
    if unsafe { is_enabled((&raw const bindings::init_on_free).cast()) } {
        return Some(0);
    }
    #[cfg(CONFIG_PAGE_POISONING)]
    // SAFETY: The key is static.
    if unsafe { is_enabled((&raw const bindings::_page_poisoning_enabled).cast()) } {
        // CAST: A pattern of one byte.
        return Some(bindings::PAGE_POISON as u8);
    }
    None
}

/// Tells whether a static key is enabled (`static_key_enabled()`).
///
/// # Safety
///
/// `key` must point to a valid `struct static_key`, or to a structure that consists of one.
unsafe fn is_enabled(key: *const bindings::static_key) -> bool {
    // SAFETY: By the requirements above.
    unsafe { bindings::atomic_read(&raw const (*key).enabled) > 0 }
}
