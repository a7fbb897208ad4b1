// SPDX-License-Identifier: GPL-2.0

//! Balloon pages: memory that a balloon driver took from the kernel.
//!
//! The balloon core of the kernel keeps them on a list, marks them offline, counts them, and lets
//! compaction migrate them. C header: `include/linux/balloon.h`.

use crate::virtio::bindings;

use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};
use kernel::{
    num::casts::usize_as_u64,
    prelude::*,
    types::Opaque, //
};

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
    pub fn pfn(&self) -> u64 {
        page_to_pfn(self.0.as_ptr())
    }
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
fn page_to_pfn(page: *mut bindings::page) -> u64 {
    // SAFETY: The variable is set once, early during boot.
    let base = unsafe { bindings::vmemmap_base };
    let offset = page.addr().wrapping_sub(base);

    usize_as_u64(offset / size_of::<bindings::page>())
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
    _owner: PhantomData<fn(&T)>,
}

impl<T: Migrate> PageList<T> {
    /// Creates an empty list whose pages also leave the managed pages of their zones, and so
    /// `MemTotal`.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            info <- Opaque::ffi_init(|info: *mut bindings::balloon_dev_info| {
                // SAFETY: `info` is valid for writing, and pinned from now on as its list demands.
                unsafe {
                    (*info).isolated_pages = 0;
                    bindings::INIT_LIST_HEAD(&raw mut (*info).pages);
                    (*info).migratepage = Some(Self::migrate_callback);
                    (*info).adjust_managed_page_count = true;
                }
            }),
            _owner: PhantomData,
        })
    }

    /// Puts the pages of `pages` into the balloon and leaves `pages` empty.
    ///
    /// From now on compaction may ask to migrate them.
    pub fn enqueue(&self, pages: &mut KVec<BalloonPage>) {
        with_list_head(|head| {
            for page in pages.drain_all() {
                let page = ManuallyDrop::new(page);
                // SAFETY: The page is ours, so its list node is unused. `head` is a valid list.
                unsafe { bindings::list_add_tail(lru(page.0), head) };
            }
            // SAFETY: The list holds pages that are allocated and in no other list; their
            // references pass to the balloon.
            unsafe { bindings::balloon_page_list_enqueue(self.info.get(), head) };
        });
    }

    /// Moves up to `max` pages out of the balloon to the end of `pages`, no more than its capacity
    /// holds, and returns how many.
    ///
    /// Less than asked for, even zero, if compaction has isolated the others: they come back soon.
    pub fn dequeue(&self, pages: &mut KVec<BalloonPage>, max: usize) -> usize {
        let max = max.min(pages.capacity() - pages.len());

        with_list_head(|head| {
            // SAFETY: `head` is a valid, empty list.
            unsafe { bindings::balloon_page_list_dequeue(self.info.get(), head, max) };
            let mut moved = 0;
            // SAFETY: `head` is a valid list, its nodes are those of pages that are now ours.
            while let Some(page) = unsafe { pop(head) } {
                // INVARIANT: The reference of the balloon passes to us.
                // There is room by the computation of `max`.
                if pages.push_within_capacity(BalloonPage(page)).is_ok() {
                    moved += 1;
                }
            }
            moved
        })
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
        // SAFETY: Both pages are allocated by the requirements above.
        let (new, old) = unsafe { (BalloonPage::get(new), BalloonPage::get(old)) };

        kernel::error::from_result(|| owner.migrate(new, old).map(|()| 0))
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
