// SPDX-License-Identifier: GPL-2.0

//! The list of the pages in a balloon.
//!
//! The balloon core of the kernel marks the pages on it offline, counts them, and lets compaction
//! migrate them. What it would do page by page, or hold a lock for too long for, is done here for
//! many pages at once. C header: `include/linux/balloon.h`.

use super::balloon_page::BalloonPage;
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

/// Something that can move a balloon page elsewhere for compaction.
///
/// Implemented together with [`HasPageList`].
pub trait Migrate: HasPageList {
    /// Puts `new` into the balloon in the place of `old`.
    ///
    /// Whoever is `patient` needs the memory itself (`MIGRATE_SYNC`: offlining,
    /// `alloc_contig_range()`); others merely tidy up.
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
    fn migrate(&self, new: BalloonPage, old: BalloonPage, patient: bool) -> Result;
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
                // SAFETY: The pages are ours, so their list nodes are unused. `head` is writable.
                unsafe { link(chunk, head) };
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

            // SAFETY: `head` is a valid list of the nodes of pages whose references pass to us.
            // There is room for them: no more than `max` were asked for.
            unsafe { take_all(head, pages) };
            moved
        })
    }

    /// Corrects the accounts when the first page took the place of the second in another zone.
    fn moved(&self, pages: &[BalloonPage; 2]) {
        let [new, old] = pages;

        if self.unmanaged && !new.shares_zone(old) {
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
        mode: bindings::migrate_mode,
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
            owner.migrate(new, old, mode == bindings::migrate_mode_MIGRATE_SYNC)?;
            list.moved(&pages);
            Ok(0)
        })
    }
}

// SAFETY: The balloon core has a lock of its own for the list.
unsafe impl<T> Send for PageList<T> {}

// SAFETY: As above.
unsafe impl<T> Sync for PageList<T> {}

/// Adds the number of `pages` to the managed pages of their zones, and so to `MemTotal`, or takes
/// it off.
fn account(pages: &[BalloonPage], add: bool) {
    if BalloonPage::share_zone(pages) {
        return account_in_zone(pages, add);
    }
    for run in pages.chunk_by(BalloonPage::shares_zone) {
        account_in_zone(run, add);
    }
}

/// As [`account`], of pages that are in one zone.
fn account_in_zone(pages: &[BalloonPage], add: bool) {
    // CAST: A slice has at most `isize::MAX` elements.
    let count = pages.len() as c_long;
    let count = if add { count } else { -count };

    if let [first, ..] = pages {
        // SAFETY: The page exists by its type invariant.
        unsafe { bindings::adjust_managed_page_count(first.as_raw().as_ptr(), count) };
    }
}

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

/// Makes the nodes of `pages` a list, in their order.
///
/// # Safety
///
/// `head` must be valid for writing, and no node be in a list.
unsafe fn link(pages: &[BalloonPage], head: *mut bindings::list_head) {
    let last = pages.iter().fold(head, |last, page| {
        let node = lru(page.as_raw());

        // SAFETY: Both are the head or the node of a page, and belong to the caller.
        unsafe {
            (*last).next = node;
            (*node).prev = last;
        }
        node
    });

    // SAFETY: Both belong to the caller.
    unsafe {
        (*last).next = head;
        (*head).prev = last;
    }
}

/// Appends the pages of a list to `pages`, as far as there is room.
///
/// # Safety
///
/// `head` must be a valid list whose nodes are those of pages, and the references on these nobody
/// else's.
unsafe fn take_all(head: *mut bindings::list_head, pages: &mut KVec<BalloonPage>) {
    const OFFSET: usize = offset_of!(
        bindings::page,
        __bindgen_anon_1.__bindgen_anon_1.__bindgen_anon_1.lru
    );
    let mut count = 0;
    // SAFETY: By the requirements of this function `head` is a valid list.
    let mut node = unsafe { (*head).next };

    for place in pages.spare_capacity_mut() {
        if node == head {
            break;
        }
        // SAFETY: The node is that of a page, see `lru`; it is not NULL, as it is in a list. The
        // reference on the page passes to `pages`.
        place.write(unsafe {
            BalloonPage::from_raw(NonNull::new_unchecked(node.byte_sub(OFFSET).cast()))
        });
        count += 1;
        // SAFETY: The node is in a valid list, by the requirements of this function.
        node = unsafe { (*node).next };
    }
    // SAFETY: So many elements were written above.
    unsafe { pages.inc_len(count) };
}

/// Implements [`HasPageList`] for a structure with a lifetime parameter.
macro_rules! impl_has_page_list {
    (impl<$lt:lifetime> for $owner:ty { self.$field:ident }) => {
        #[expect(unsafe_code, reason = "sound by construction, see below")]
        // SAFETY: The offset is that of a field whose type the function below checks.
        unsafe impl<$lt> $crate::kernel_ext::page_list::HasPageList for $owner {
            const OFFSET: usize = {
                fn _check<'b, $lt>(
                    owner: &'b $owner,
                ) -> &'b $crate::kernel_ext::page_list::PageList<$owner> {
                    &owner.$field
                }
                ::core::mem::offset_of!($owner, $field)
            };
        }
    };
}
pub(crate) use impl_has_page_list;
