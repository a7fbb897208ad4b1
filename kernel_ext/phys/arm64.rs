// SPDX-License-Identifier: GPL-2.0

//! The memory of arm64 (`arch/arm64/include/asm/memory.h`, `pgtable.h`).
//!
//! All constants depend on page size and address width; `virtio/bindings.h` has them from the
//! kernel's headers.

use crate::virtio::bindings as constants;
use kernel::bindings;

// CAST: They are addresses; bindgen takes no numbers above `i64::MAX`.
const VMEMMAP_START: usize = constants::RUST_CONST_HELPER_VMEMMAP_START as usize;
const PAGE_OFFSET: usize = constants::RUST_CONST_HELPER_PAGE_OFFSET as usize;
const PAGE_END: usize = constants::RUST_CONST_HELPER_PAGE_END as usize;

/// Where the page with number 0 would be (`vmemmap`): the array begins with the first page of
/// memory.
#[inline(always)]
pub(super) fn memory_map() -> usize {
    // CAST: Both have 64 bits.
    let first = (physical_base() >> bindings::PAGE_SHIFT) as usize;

    VMEMMAP_START.wrapping_sub(first.wrapping_mul(size_of::<bindings::page>()))
}

/// `virt_to_phys()`.
pub(super) fn virt_to_phys(addr: usize) -> usize {
    let addr = untagged(addr);

    if addr.wrapping_sub(PAGE_OFFSET) < PAGE_END.wrapping_sub(PAGE_OFFSET) {
        // CAST: Both have 64 bits.
        addr.wrapping_sub(PAGE_OFFSET)
            .wrapping_add(physical_base() as usize)
    } else {
        // SAFETY: The variable is set once, early during boot.
        let offset = unsafe { bindings::kimage_voffset };

        // CAST: Both have 64 bits.
        addr.wrapping_sub(offset as usize)
    }
}

/// The physical address that is mapped at `PAGE_OFFSET` (`PHYS_OFFSET`): below 0 where the CPU has
/// fewer address bits than the kernel, whose mapping then begins further above.
#[inline(always)]
fn physical_base() -> i64 {
    // SAFETY: The variable is set once, early during boot.
    unsafe { bindings::memstart_addr }
}

/// An address without the tag that KASAN may have put into its top byte (`__tag_reset()`).
fn untagged(addr: usize) -> usize {
    if cfg!(CONFIG_KASAN_HW_TAGS) {
        addr | 0xff << 56
    } else {
        addr
    }
}
