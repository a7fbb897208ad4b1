// SPDX-License-Identifier: GPL-2.0

//! Physical addresses: of pages, and of memory in the kernel's linear mapping.
//!
//! `page_to_pfn()`, `page_to_phys()`, `virt_to_phys()` and `pfn_to_page()` are macros of the
//! architecture. With `CONFIG_SPARSEMEM_VMEMMAP` all pages are in one array, the memory map
//! (`include/asm-generic/memory_model.h`); where that is, and where memory is mapped, is in a file
//! for each architecture.

use core::ffi::c_void;
use kernel::bindings;

#[cfg(CONFIG_ARM64)]
#[path = "phys/arm64.rs"]
mod arch;
#[cfg(CONFIG_X86_64)]
#[path = "phys/x86_64.rs"]
mod arch;

#[cfg(not(CONFIG_SPARSEMEM_VMEMMAP))]
compile_error!("only the memory model of CONFIG_SPARSEMEM_VMEMMAP is known");

const PAGE_SHIFT: u32 = bindings::PAGE_SHIFT;

/// The map of all pages, for the addresses of several of them.
///
/// Holds the address at which the page with number 0 would be; it need not exist.
#[derive(Clone, Copy)]
pub struct PageFrames(usize);

impl PageFrames {
    /// Looks up where the map is.
    #[inline(always)]
    pub fn get() -> Self {
        Self(arch::memory_map())
    }

    /// The number of a page; `page` points to the page's structure, or into it.
    #[inline(always)]
    pub fn number(self, page: *const bindings::page) -> usize {
        page.addr().wrapping_sub(self.0) / size_of::<bindings::page>()
    }

    /// The physical address of a page; `page` points to the page's structure, or into it.
    #[inline(always)]
    pub fn phys(self, page: *const bindings::page) -> u64 {
        // CAST: Both have 64 bits.
        (self.number(page) as u64) << PAGE_SHIFT
    }
}

/// The page at a physical address that has one.
pub fn phys_to_page(addr: u64) -> *mut bindings::page {
    // CAST: Both have 64 bits.
    core::ptr::with_exposed_provenance_mut::<bindings::page>(arch::memory_map())
        .wrapping_add((addr >> PAGE_SHIFT) as usize)
}

/// The physical address of memory in the linear mapping or in the kernel's image; of no use for
/// memory from `vmalloc()`.
pub fn virt_to_phys(ptr: *const c_void) -> u64 {
    // CAST: Both have 64 bits.
    arch::virt_to_phys(ptr.addr()) as u64
}
