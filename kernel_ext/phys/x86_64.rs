// SPDX-License-Identifier: GPL-2.0

//! The memory of x86-64 (`arch/x86/include/asm/page_64.h`, `pgtable_64_types.h`).

use kernel::bindings;

/// Where the kernel's own image is mapped (`__START_KERNEL_map`).
const KERNEL_MAP: usize = 0xffff_ffff_8000_0000;

/// Where the page with number 0 is (`vmemmap`).
#[inline(always)]
pub(super) fn memory_map() -> usize {
    // SAFETY: The variable is set once, early during boot.
    unsafe { bindings::vmemmap_base }
}

/// `__phys_addr()`.
pub(super) fn virt_to_phys(addr: usize) -> usize {
    if addr >= KERNEL_MAP {
        // SAFETY: The variable is set once, early during boot.
        let base = unsafe { bindings::phys_base };
        addr.wrapping_sub(KERNEL_MAP).wrapping_add(base)
    } else {
        // SAFETY: The variable is set once, early during boot.
        let base = unsafe { bindings::page_offset_base };
        addr.wrapping_sub(base)
    }
}
