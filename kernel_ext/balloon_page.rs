// SPDX-License-Identifier: GPL-2.0

//! Balloon pages: memory that a balloon driver took from the kernel.
//!
//! The balloon core of the kernel keeps them on a list, marks them offline, counts them, and lets
//! compaction migrate them. C header: `include/linux/balloon.h`.
//!
//! What the core would do page by page, or what a lock would be held for too long, is done here for
//! many pages at once: see [`PageList`] and [`free_all`].

use crate::virtio::bindings;

use core::{
    marker::PhantomData,
    mem::{
        forget,
        offset_of,
        MaybeUninit, //
    },
    ptr::NonNull,
    slice::from_ref, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Pages that go on or off a list under one hold of the balloon core's lock, for which interrupts
/// are off: some 10 microseconds.
const AT_ONCE: usize = 256;

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
    /// May sleep, may reclaim and compact memory; take no lock that migration needs.
    pub fn alloc() -> Option<Self> {
        // SAFETY: No requirements.
        // INVARIANT: The caller of `balloon_page_alloc` owns the page.
        NonNull::new(unsafe { bindings::balloon_page_alloc() }).map(Self)
    }

    /// Takes another reference on a page.
    ///
    /// # Safety
    ///
    /// `page` must point to the `struct page` of an allocated order-0 page.
    unsafe fn get(page: NonNull<bindings::page>) -> Self {
        // SAFETY: By the requirements above the count is at least one.
        unsafe { bindings::atomic_inc(&raw mut (*page.as_ptr())._refcount) };
        // INVARIANT: The reference was taken above.
        Self(page)
    }

    /// Number of the page frame, in kernel pages.
    pub fn pfn(&self) -> usize {
        page_to_pfn(self.0.as_ptr())
    }

    /// Equal for two pages only if both are in the same zone.
    ///
    /// All that is in the flags beside the flags proper, of which zone and node are a part; most of
    /// the time the rest is equal, too.
    fn zone_key(&self) -> c_ulong {
        // SAFETY: By the type invariant the structure exists. Others may change flags meanwhile.
        let flags = unsafe { (&raw const (*self.0.as_ptr()).flags.f).read_volatile() };

        flags >> bindings::pageflags___NR_PAGEFLAGS
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
        for run in pages.chunk_by(|a, b| a.pfn() + 1 == b.pfn()) {
            if let [first, ..] = run {
                // SAFETY: By the type invariant we own a reference on each of these pages, which
                // are all of order 0; they are forgotten below.
                unsafe { bindings::free_contig_range(first.pfn(), run.len()) };
            }
        }
        pages.drain_all().for_each(forget);
    }
    #[cfg(not(CONFIG_CONTIG_ALLOC))]
    pages.clear();
}

/// Adds the number of `pages` to the managed pages of their zones, and so to `MemTotal`, or takes
/// it off.
fn account(pages: &[BalloonPage], add: bool) {
    for run in pages.chunk_by(|a, b| a.zone_key() == b.zone_key()) {
        // CAST: A slice has at most `isize::MAX` elements.
        let count = run.len() as c_long;
        let count = if add { count } else { -count };

        if let [first, ..] = run {
            // SAFETY: The page exists by its type invariant.
            unsafe { bindings::adjust_managed_page_count(first.0.as_ptr(), count) };
        }
    }
}

/// How far an allocation of a block may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Take what is free.
    TakeFree,
    /// Move the contents of other pages out of the way, on the node of this CPU; reclaim nothing.
    Compact,
}

impl Effort {
    /// The flags of an allocation: those of `balloon_page_alloc()` without reclaim.
    fn flags(self) -> bindings::gfp_t {
        const TAKE_FREE: bindings::gfp_t = (1 << bindings::___GFP_IO_BIT)
            | (1 << bindings::___GFP_FS_BIT)
            | (1 << bindings::___GFP_HARDWALL_BIT)
            | (1 << bindings::___GFP_HIGHMEM_BIT)
            | ((cfg!(CONFIG_BALLOON_MIGRATION) as u32) << bindings::___GFP_MOVABLE_BIT)
            | (1 << bindings::___GFP_NOMEMALLOC_BIT)
            | (1 << bindings::___GFP_NORETRY_BIT)
            | (1 << bindings::___GFP_NOWARN_BIT);
        // The allocator compacts but does not reclaim for costly orders with this pair of flags.
        const COMPACT: bindings::gfp_t = TAKE_FREE
            | (1 << bindings::___GFP_DIRECT_RECLAIM_BIT)
            | (1 << bindings::___GFP_THISNODE_BIT);

        match self {
            Self::TakeFree => TAKE_FREE,
            Self::Compact => COMPACT,
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
    if pages.capacity() - pages.len() < count {
        return false;
    }
    // SAFETY: No requirements.
    let first = unsafe { bindings::alloc_pages(effort.flags(), order) };
    if first.is_null() {
        return false;
    }
    // SAFETY: The block was allocated above, is not compound and belongs to nobody else.
    unsafe { bindings::split_page(first, order) };
    for i in 0..count {
        // SAFETY: The structures of a block are adjacent.
        let page = unsafe { first.add(i) };
        // INVARIANT: `split_page` left us a reference on each page.
        // There is room, as was checked above.
        let _ = NonNull::new(page).map(|page| pages.push_within_capacity(BalloonPage(page)));
    }
    true
}

/// Allocates up to `max` single pages, no more than there is room for, and appends them to `pages`.
///
/// Takes what is free; only the first page may make the kernel reclaim memory. Returns how many.
///
/// # Context
///
/// May sleep, may reclaim and compact memory; take no lock that migration needs.
pub fn alloc_singles(max: usize, pages: &mut KVec<BalloonPage>) -> usize {
    let max = max.min(pages.capacity() - pages.len());
    let Some(first) = (max > 0).then(BalloonPage::alloc).flatten() else {
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
            core::ptr::null_mut(),
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

/// The frame number of a page: its index in the map of all pages, whose place depends on the
/// architecture (`include/asm-generic/memory_model.h`, `CONFIG_SPARSEMEM_VMEMMAP`).
#[cfg(all(CONFIG_X86_64, CONFIG_SPARSEMEM_VMEMMAP))]
fn page_to_pfn(page: *mut bindings::page) -> usize {
    // SAFETY: The variable is set once, early during boot.
    let base = unsafe { bindings::vmemmap_base };
    let offset = page.addr().wrapping_sub(base);

    offset / size_of::<bindings::page>()
}

/// Something that can move a balloon page elsewhere for compaction.
///
/// Implemented together with [`HasPageList`].
pub trait Migrate: HasPageList {
    /// Puts `new` into the balloon in the place of `old`.
    ///
    /// When it succeeds, the balloon core adds `new` to the list and drops the list's reference on
    /// `old`. Both are references of the callee's own.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it cannot be done now: both pages stay what they are.
    ///
    /// # Context
    ///
    /// Any task that compacts memory, with both pages locked; may sleep.
    fn migrate(&self, new: BalloonPage, old: BalloonPage) -> Result;
}

/// Says where in a structure its page list is; implemented by [`impl_has_page_list!`].
///
/// # Safety
///
/// `OFFSET` must be the offset of a `PageList<Self>` in `Self`.
pub unsafe trait HasPageList: Sized {
    /// Offset of the list in bytes.
    const OFFSET: usize;
}

/// The pages of one balloon (`struct balloon_dev_info`).
#[pin_data]
pub struct PageList<T> {
    #[pin]
    info: Opaque<bindings::balloon_dev_info>,
    /// The pages on the list are missing from the managed pages of their zones.
    unmanaged: bool,
    _owner: PhantomData<fn(&T)>,
}

impl<T: Migrate> PageList<T> {
    /// Creates an empty list. If `unmanaged`, pages on it leave the managed pages of their zones,
    /// and so `MemTotal`.
    ///
    /// The list does that for many pages at once; the balloon core would do it for each of them.
    pub fn new(unmanaged: bool) -> impl PinInit<Self> {
        pin_init!(Self {
            info <- Opaque::ffi_init(|info: *mut bindings::balloon_dev_info| {
                // SAFETY: `info` is valid for writing, and pinned from now on as its list demands.
                unsafe {
                    (*info).isolated_pages = 0;
                    bindings::INIT_LIST_HEAD(&raw mut (*info).pages);
                    (*info).migratepage = Some(Self::migrate_callback);
                    (*info).adjust_managed_page_count = false;
                }
            }),
            unmanaged,
            _owner: PhantomData,
        })
    }

    /// Puts the pages of `pages` into the balloon and leaves `pages` empty.
    ///
    /// From now on compaction may ask to migrate them.
    pub fn enqueue(&self, pages: &mut KVec<BalloonPage>) {
        if self.unmanaged {
            account(pages, false);
        }
        for chunk in pages.chunks(AT_ONCE) {
            with_list_head(|head| {
                for page in chunk {
                    // SAFETY: The page is ours, so its list node is unused. `head` is a valid list.
                    unsafe { bindings::list_add_tail(lru(page.0), head) };
                }
                // SAFETY: The list holds pages that are allocated and in no other list; their
                // references pass to the balloon, and are forgotten below.
                unsafe { bindings::balloon_page_list_enqueue(self.info.get(), head) };
            });
        }
        pages.drain_all().for_each(forget);
    }

    /// Moves up to `max` pages out of the balloon to the end of `pages`, no more than its capacity
    /// holds, and returns how many.
    ///
    /// Those that went in last come out first, in pieces of ascending order if they went in so.
    /// Less than asked for, even zero, if compaction has isolated the others: they come back soon.
    pub fn dequeue(&self, pages: &mut KVec<BalloonPage>, max: usize) -> usize {
        let had = pages.len();
        let max = max.min(pages.capacity() - had);

        while pages.len() - had < max {
            if self.dequeue_some(pages, AT_ONCE.min(max + had - pages.len())) == 0 {
                break;
            }
        }
        let moved = pages.get(had..).unwrap_or(&[]);
        if self.unmanaged {
            account(moved, true);
        }
        moved.len()
    }

    /// [`Self::dequeue`] without accounting, for as many pages as the lock may be held for.
    fn dequeue_some(&self, pages: &mut KVec<BalloonPage>, max: usize) -> usize {
        with_list_head(|head| {
            // SAFETY: `head` is a valid, empty list.
            let moved = unsafe { bindings::balloon_page_list_dequeue(self.info.get(), head, max) };

            // SAFETY: `head` is a valid list, its nodes are those of pages that are now ours.
            while let Some(page) = unsafe { pop(head) } {
                // INVARIANT: The reference of the balloon passes to us.
                // There is room: no more than `max` were asked for.
                let _ = pages.push_within_capacity(BalloonPage(page));
            }
            moved
        })
    }

    /// Corrects the accounts when the first page took the place of the second in another zone.
    fn moved(&self, pages: &[BalloonPage; 2]) {
        let [new, old] = pages;

        if self.unmanaged && new.zone_key() != old.zone_key() {
            account(from_ref(new), false);
            account(from_ref(old), true);
        }
    }

    /// # Safety
    ///
    /// Called only by the balloon core, with the `info` of a list in a `T`, and two allocated and
    /// locked pages, of which the old one is isolated from that list.
    unsafe extern "C" fn migrate_callback(
        info: *mut bindings::balloon_dev_info,
        new: *mut bindings::page,
        old: *mut bindings::page,
        _mode: bindings::migrate_mode,
    ) -> c_int {
        // SAFETY: `info` is the first and only sized field of the list, which is at `OFFSET` in
        // its owner. Pages can be isolated only as long as the owner exists, see `drop`.
        let owner = unsafe { &*info.byte_sub(T::OFFSET).cast::<T>() };
        let (Some(new), Some(old)) = (NonNull::new(new), NonNull::new(old)) else {
            return EINVAL.to_errno();
        };
        // SAFETY: The list is at `OFFSET` in its owner, see above.
        let list = unsafe { &*info.cast::<Self>() };
        // SAFETY: Both pages are allocated by the requirements above, here and below.
        let pages = unsafe { [BalloonPage::get(new), BalloonPage::get(old)] };
        // SAFETY: As above.
        let (new, old) = unsafe { (BalloonPage::get(new), BalloonPage::get(old)) };

        kernel::error::from_result(|| {
            owner.migrate(new, old)?;
            list.moved(&pages);
            Ok(0)
        })
    }
}

// SAFETY: The balloon core has a lock of its own for the list.
unsafe impl<T> Send for PageList<T> {}

// SAFETY: As above.
unsafe impl<T> Sync for PageList<T> {}

/// The list node of a page (`lru`).
fn lru(page: NonNull<bindings::page>) -> *mut bindings::list_head {
    // SAFETY: Computes an address inside of the structure.
    unsafe {
        &raw mut (*page.as_ptr())
            .__bindgen_anon_1
            .__bindgen_anon_1
            .__bindgen_anon_1
            .lru
    }
}

/// Calls `f` with an empty list head that stays where it is.
fn with_list_head<R>(f: impl FnOnce(*mut bindings::list_head) -> R) -> R {
    let mut head = MaybeUninit::<bindings::list_head>::uninit();
    // SAFETY: `head` is writable memory.
    unsafe { bindings::INIT_LIST_HEAD(head.as_mut_ptr()) };
    f(head.as_mut_ptr())
}

/// Takes the first page off a list.
///
/// # Safety
///
/// `head` must be a valid list whose nodes are those of pages, all ours.
unsafe fn pop(head: *mut bindings::list_head) -> Option<NonNull<bindings::page>> {
    // SAFETY: By the requirements above, here and below.
    let node = unsafe { (*head).next };
    if node == head {
        return None;
    }
    // SAFETY: `node` and its neighbours are part of the valid list.
    unsafe {
        let next = (*node).next;
        (*head).next = next;
        (*next).prev = head;
    }
    let offset = offset_of!(
        bindings::page,
        __bindgen_anon_1.__bindgen_anon_1.__bindgen_anon_1.lru
    );
    // SAFETY: The node is the one of a page, see `lru`.
    NonNull::new(unsafe { node.byte_sub(offset) }.cast())
}

/// Implements [`HasPageList`] for a structure with a lifetime parameter.
macro_rules! impl_has_page_list {
    (impl<$lt:lifetime> for $owner:ty { self.$field:ident }) => {
        #[expect(unsafe_code, reason = "sound by construction, see below")]
        // SAFETY: The offset is that of a field whose type the function below checks.
        unsafe impl<$lt> $crate::kernel_ext::balloon_page::HasPageList for $owner {
            const OFFSET: usize = {
                fn _check<'b, $lt>(
                    owner: &'b $owner,
                ) -> &'b $crate::kernel_ext::balloon_page::PageList<$owner> {
                    &owner.$field
                }
                ::core::mem::offset_of!($owner, $field)
            };
        }
    };
}
pub(crate) use impl_has_page_list;
