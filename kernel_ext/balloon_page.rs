// SPDX-License-Identifier: GPL-2.0

//! Balloon pages: memory that a balloon driver took from the kernel.
//!
//! They are of order 0, whatever they were allocated as: each can be migrated and freed by itself.
//! `page_list.rs` has the list that the kernel's balloon core keeps of them.
//!
//! C headers: `include/linux/gfp.h`, `include/linux/balloon.h`.

use super::phys::PageFrames;
use crate::virtio::bindings;

use core::{
    mem::MaybeUninit,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::prelude::*;

/// A page of the kernel that we hold a reference on; dropping it gives the reference back, and the
/// page with it if that was the last one.
///
/// # Invariants
///
/// `0` points to the `struct page` of an order-0 page on which this owns a reference.
#[repr(transparent)]
pub struct BalloonPage(NonNull<bindings::page>);

impl BalloonPage {
    /// Allocates a page for a balloon: without touching the reserves, and giving up early.
    ///
    /// # Context
    ///
    /// May sleep; take no lock that migration needs.
    fn alloc(effort: Effort) -> Option<Self> {
        let page = match effort {
            // SAFETY: No requirements.
            Effort::Reclaim => unsafe { bindings::balloon_page_alloc() },
            // SAFETY: No requirements.
            _ => unsafe { bindings::alloc_pages(effort.flags(), 0) },
        };

        // INVARIANT: The caller of either function owns the page.
        NonNull::new(page).map(Self)
    }

    /// Takes another reference on a page.
    ///
    /// # Safety
    ///
    /// `page` must point to the `struct page` of an allocated order-0 page.
    pub(super) unsafe fn get(page: NonNull<bindings::page>) -> Self {
        // SAFETY: By the requirements above the count is at least one.
        unsafe { bindings::atomic_inc(&raw mut (*page.as_ptr())._refcount) };
        // INVARIANT: The reference was taken above.
        Self(page)
    }

    /// Takes over a reference on a page.
    ///
    /// # Safety
    ///
    /// `page` must point to the `struct page` of an order-0 page, and the reference be nobody
    /// else's.
    pub(super) unsafe fn from_raw(page: NonNull<bindings::page>) -> Self {
        // INVARIANT: By the requirements above.
        Self(page)
    }

    /// The structure of the page.
    pub(super) fn as_raw(&self) -> NonNull<bindings::page> {
        self.0
    }

    /// Number of the page frame, in kernel pages.
    pub fn pfn(&self) -> usize {
        PageFrames::get().number(self.0.as_ptr())
    }

    /// Tells that `other` is in the same zone; `false` leaves that open.
    pub(super) fn shares_zone(&self, other: &Self) -> bool {
        (self.flags() ^ other.flags()) >> bindings::pageflags___NR_PAGEFLAGS == 0
    }

    /// Tells that all of `pages` are in one zone; `false` leaves that open.
    pub(super) fn share_zone(pages: &[Self]) -> bool {
        let Some(first) = pages.first().map(Self::flags) else {
            return true;
        };
        // Without a branch for each page.
        let different = pages
            .iter()
            .fold(0, |different, page| different | (page.flags() ^ first));

        different >> bindings::pageflags___NR_PAGEFLAGS == 0
    }

    /// The flags, and beside them the zone, the node and what else is stored there.
    fn flags(&self) -> c_ulong {
        // SAFETY: By the type invariant the structure exists. Others may change flags meanwhile.
        unsafe { (&raw const (*self.0.as_ptr()).flags.f).read_volatile() }
    }
}

/// Gives all pages back to the kernel, adjacent ones in one go, and leaves `pages` empty.
///
/// Pages in ascending order are put together to large free blocks at once.
///
/// # Context
///
/// May take some 10 microseconds for each 256 pages.
pub fn free_all(pages: &mut KVec<BalloonPage>) {
    #[cfg(CONFIG_CONTIG_ALLOC)]
    {
        // All structures are in one array, in the order of the pages' numbers.
        for run in pages.chunk_by(|a, b| a.0.as_ptr().wrapping_add(1) == b.0.as_ptr()) {
            if let [first, ..] = run {
                // SAFETY: By the type invariant we own a reference on each of these pages, which
                // are all of order 0; they are forgotten below.
                unsafe { bindings::free_contig_range(first.pfn(), run.len()) };
            }
        }
        pages.drain_all().for_each(core::mem::forget);
    }
    #[cfg(not(CONFIG_CONTIG_ALLOC))]
    pages.clear();
}

/// How far an allocation of a block may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Take what is free.
    TakeFree,
    /// Move the contents of other pages out of the way, on the node of this CPU; reclaim nothing.
    Compact,
    /// Take what is free, and wake the kernel's threads that reclaim memory when that gets low.
    Background,
    /// Reclaim memory as far as `balloon_page_alloc()` does.
    Reclaim,
}

impl Effort {
    /// The flags of an allocation: those of `balloon_page_alloc()`, and less.
    fn flags(self) -> bindings::gfp_t {
        const TAKE_FREE: bindings::gfp_t = (1 << bindings::___GFP_IO_BIT)
            | (1 << bindings::___GFP_FS_BIT)
            | (1 << bindings::___GFP_HARDWALL_BIT)
            | (1 << bindings::___GFP_HIGHMEM_BIT)
            | ((cfg!(CONFIG_BALLOON_MIGRATION) as u32) << bindings::___GFP_MOVABLE_BIT)
            | (1 << bindings::___GFP_NOMEMALLOC_BIT)
            | (1 << bindings::___GFP_NORETRY_BIT)
            | (1 << bindings::___GFP_NOWARN_BIT);
        // The allocator compacts but does not reclaim for costly orders with this pair of flags,
        // unless it cannot compact.
        const COMPACT: bindings::gfp_t = TAKE_FREE
            | ((cfg!(CONFIG_COMPACTION) as u32) << bindings::___GFP_DIRECT_RECLAIM_BIT)
            | (1 << bindings::___GFP_THISNODE_BIT);

        const BACKGROUND: bindings::gfp_t = TAKE_FREE | (1 << bindings::___GFP_KSWAPD_RECLAIM_BIT);

        match self {
            Self::TakeFree => TAKE_FREE,
            Self::Compact => COMPACT,
            Self::Background => BACKGROUND,
            Self::Reclaim => BACKGROUND | (1 << bindings::___GFP_DIRECT_RECLAIM_BIT),
        }
    }
}

/// Allocates `1 << order` adjacent pages that are aligned to their size, and appends them to
/// `pages` one by one in ascending order.
///
/// Returns whether there were any, and room for them.
///
/// # Context
///
/// May sleep; take no lock that migration needs.
pub fn alloc_block(order: u32, effort: Effort, pages: &mut KVec<BalloonPage>) -> bool {
    let count = 1_usize << order;
    let Some(room) = pages.spare_capacity_mut().get_mut(..count) else {
        return false;
    };
    // SAFETY: No requirements.
    let first = unsafe { bindings::alloc_pages(effort.flags(), order) };
    let Some(first) = NonNull::new(first) else {
        return false;
    };
    // SAFETY: The block was allocated above, is not compound and belongs to nobody else.
    unsafe { bindings::split_page(first.as_ptr(), order) };
    for (i, place) in room.iter_mut().enumerate() {
        // SAFETY: The structures of a block are adjacent, and there is one for each place.
        // INVARIANT: `split_page` left us a reference on each page.
        place.write(BalloonPage(unsafe { first.add(i) }));
    }
    // SAFETY: So many elements were written above.
    unsafe { pages.inc_len(count) };
    true
}

/// Allocates up to `max` single pages, no more than there is room for, and appends them to `pages`.
///
/// Takes what is free; only for the first page does `effort` go further. Returns how many.
///
/// # Context
///
/// May sleep, may reclaim and compact memory; take no lock that migration needs.
pub fn alloc_singles(max: usize, effort: Effort, pages: &mut KVec<BalloonPage>) -> usize {
    let max = max.min(pages.capacity() - pages.len());
    let Some(first) = (max > 0).then(|| BalloonPage::alloc(effort)).flatten() else {
        return 0;
    };
    // SAFETY: The page exists by its type invariant.
    let node = unsafe { bindings::page_to_nid(first.0.as_ptr()) };
    let _ = pages.push_within_capacity(first);
    let room = pages.spare_capacity_mut();
    let room = room.get_mut(..max - 1).unwrap_or_default();
    for slot in room.iter_mut() {
        *slot = MaybeUninit::zeroed();
    }
    let Ok(count) = c_int::try_from(room.len()) else {
        return 1;
    };
    // SAFETY: The array has `count` elements, all NULL: a `BalloonPage` is a pointer to a page.
    let got = unsafe {
        bindings::alloc_pages_bulk_noprof(
            Effort::TakeFree.flags(),
            node,
            null_mut(),
            count,
            room.as_mut_ptr().cast(),
        )
    };
    // SAFETY: The first `got` elements were written, no more than there is room for.
    // INVARIANT: Each is the pointer of a new page that is ours.
    unsafe { pages.inc_len(got) };
    got + 1
}

impl Drop for BalloonPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant we own a reference; this gives it back.
        unsafe { bindings::__free_pages(self.0.as_ptr(), 0) };
    }
}

// SAFETY: A page belongs to no thread.
unsafe impl Send for BalloonPage {}

// SAFETY: Nothing can be changed through a reference.
unsafe impl Sync for BalloonPage {}
