// SPDX-License-Identifier: GPL-2.0

//! Physical addresses: of pages, and of memory in the kernel's linear mapping.
//!
//! `page_to_phys()`, `virt_to_phys()` and `virt_to_page()` are macros of the architecture; these
//! are theirs for x86-64 (`arch/x86/include/asm/page_64.h`,
//! `include/asm-generic/memory_model.h` with `CONFIG_SPARSEMEM_VMEMMAP`).

use core::ffi::c_void;
use kernel::bindings;

const PAGE_SHIFT: u32 = bindings::PAGE_SHIFT;

/// Where the kernel's own image is mapped (`__START_KERNEL_map`).
const KERNEL_MAP: usize = 0xffff_ffff_8000_0000;

/// The map of all pages, for the physical addresses of several of them.
#[derive(Clone, Copy)]
pub struct PageFrames(usize);

impl PageFrames {
    /// Looks up where the map is.
    #[inline(always)]
    #[cfg(all(CONFIG_X86_64, CONFIG_SPARSEMEM_VMEMMAP))]
    pub fn get() -> Self {
        // SAFETY: The variable is set once, early during boot.
        Self(unsafe { bindings::vmemmap_base })
    }

    /// The physical address of a page; `page` points to the page's structure, or into it.
    #[inline(always)]
    pub fn phys(self, page: *const bindings::page) -> u64 {
        let index = page.addr().wrapping_sub(self.0) / size_of::<bindings::page>();

        // CAST: Both have 64 bits.
        (index as u64) << PAGE_SHIFT
    }
}

/// The page at a physical address that has one.
#[cfg(all(CONFIG_X86_64, CONFIG_SPARSEMEM_VMEMMAP))]
pub fn phys_to_page(addr: u64) -> *mut bindings::page {
    // SAFETY: The variable is set once, early during boot.
    let base = unsafe { bindings::vmemmap_base };

    // CAST: Both have 64 bits.
    core::ptr::with_exposed_provenance_mut::<bindings::page>(base)
        .wrapping_add((addr >> PAGE_SHIFT) as usize)
}

/// The physical address of memory in the linear mapping or in the kernel's image; of no use for
/// memory from `vmalloc()`.
#[cfg(CONFIG_X86_64)]
pub fn virt_to_phys(ptr: *const c_void) -> u64 {
    let addr = ptr.addr();
    let offset = if addr >= KERNEL_MAP {
        // SAFETY: The variable is set once, early during boot.
        let base = unsafe { bindings::phys_base };
        addr.wrapping_sub(KERNEL_MAP).wrapping_add(base)
    } else {
        // SAFETY: The variable is set once, early during boot.
        let base = unsafe { bindings::page_offset_base };
        addr.wrapping_sub(base)
    };

    // CAST: Both have 64 bits.
    offset as u64
}
