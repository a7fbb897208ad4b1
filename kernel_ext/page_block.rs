// SPDX-License-Identifier: GPL-2.0

//! The largest blocks of contiguous pages that the page allocator has.
//!
//! C headers: `include/linux/gfp.h`, `include/linux/mmzone.h`.

use super::sg::Writable;

use core::{
    mem::ManuallyDrop,
    ptr::{
        null_mut,
        NonNull, //
    },
};
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
}

impl<'a> From<&'a mut PageBlock> for Writable<'a> {
    fn from(block: &'a mut PageBlock) -> Self {
        // SAFETY: By the type invariant the pages belong to the block, wherever that moves.
        unsafe { Self::pages(block.0.as_ptr(), PageBlock::BYTES) }
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

/// A pile of blocks, which needs no memory of its own.
///
/// # Invariants
///
/// - `top`, and the `private` field of each block's first page, is the next block's first page or
///   NULL; all these blocks are owned by the pile.
/// - `len` is their number.
pub struct Pile {
    top: *mut bindings::page,
    len: usize,
}

impl Default for Pile {
    /// Makes an empty pile.
    fn default() -> Self {
        // INVARIANT: There are no blocks.
        Self {
            top: null_mut(),
            len: 0,
        }
    }
}

impl Pile {
    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.len
    }

    /// Puts a block on top.
    pub fn push(&mut self, block: PageBlock) {
        let page = ManuallyDrop::new(block).0.as_ptr();

        // SAFETY: The page is ours, and so is the field.
        unsafe { *next(page) = self.top.expose_provenance() };
        // INVARIANT: The block passes to the pile and leads to the others.
        self.top = page;
        self.len += 1;
    }

    /// Takes the top block off.
    pub fn pop(&mut self) -> Option<PageBlock> {
        let page = NonNull::new(self.top)?;
        // SAFETY: The page belongs to the pile by the type invariant.
        let field = unsafe { &mut *next(page.as_ptr()) };

        // INVARIANT: The block passes from the pile to the caller.
        self.top = core::ptr::with_exposed_provenance_mut(*field);
        self.len -= 1;
        *field = 0;
        Some(PageBlock(page))
    }
}

/// The field of a page that its owner may use (`private`).
fn next(page: *mut bindings::page) -> *mut usize {
    // SAFETY: Computes an address inside of the structure.
    unsafe { &raw mut (*page).__bindgen_anon_1.__bindgen_anon_1.private }
}

impl Drop for Pile {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

// SAFETY: Pages belong to no thread.
unsafe impl Send for Pile {}

// SAFETY: Through a shared reference only the number can be had.
unsafe impl Sync for Pile {}
