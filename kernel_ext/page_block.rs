// SPDX-License-Identifier: GPL-2.0

//! The largest blocks of contiguous pages that the page allocator has.
//!
//! C headers: `include/linux/gfp.h`, `include/linux/mmzone.h`.

use core::ptr::NonNull;
use kernel::{
    bindings,
    page::PAGE_SHIFT, //
};

/// The order of a block: the highest one of the page allocator.
const ORDER: u32 = bindings::MAX_PAGE_ORDER;

/// Flags of an allocation that takes only what is free.
const FREE_ONLY: bindings::gfp_t = 1 << bindings::___GFP_NORETRY_BIT
    | 1 << bindings::___GFP_NOWARN_BIT
    | 1 << bindings::___GFP_NOMEMALLOC_BIT;

/// A block of pages that nobody else uses; dropping it gives it back.
///
/// The kernel neither reads nor writes its contents as long as it is one.
///
/// # Invariants
///
/// `0` points to the first `struct page` of a block of `1 << ORDER` pages that this owns.
#[repr(transparent)]
pub struct PageBlock(NonNull<bindings::page>);

impl PageBlock {
    /// Kernel pages in a block.
    pub const PAGES: usize = 1 << ORDER;

    /// Size of a block in bytes.
    pub const BYTES: usize = Self::PAGES << PAGE_SHIFT;

    /// Takes a block that is free already: neither reclaims nor compacts memory for it, nor touches
    /// the reserves.
    ///
    /// # Context
    ///
    /// Any that may take the locks of the page allocator.
    pub fn alloc_free() -> Option<Self> {
        // SAFETY: The flags and the order are valid.
        // INVARIANT: The caller of `alloc_pages` owns the pages.
        NonNull::new(unsafe { bindings::alloc_pages(FREE_ONLY, ORDER) }).map(Self)
    }

    /// The first page, for those who tell a device of the block.
    pub fn as_raw(&mut self) -> *mut bindings::page {
        self.0.as_ptr()
    }
}

impl Drop for PageBlock {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the block is ours.
        unsafe { bindings::__free_pages(self.0.as_ptr(), ORDER) };
    }
}

// SAFETY: Pages belong to no thread.
unsafe impl Send for PageBlock {}

// SAFETY: Nothing can be done through a shared reference.
unsafe impl Sync for PageBlock {}
