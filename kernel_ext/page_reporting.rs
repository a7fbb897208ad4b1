// SPDX-License-Identifier: GPL-2.0

//! Free page reporting: the kernel says which pages it has no use for at present.
//!
//! One reporter at a time in the whole system. C header: `include/linux/page_reporting.h`.

use super::sg::Writable;
use crate::virtio::bindings;

use core::{
    marker::PhantomPinned,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Completion, //
    },
    types::Opaque, //
};

/// The smallest order of reported pages, if the user did not choose one: that of a page block, but
/// 2 MiB where a page block is larger than anybody's free memory.
const ORDER: c_uint = if cfg!(all(CONFIG_ARM64, CONFIG_ARM64_64K_PAGES)) {
    5
} else {
    c_uint::MAX
};

/// Gets the pages.
pub trait Reporter: Send + Sync {
    /// Takes pages that nobody uses, and sees to it that they are dropped soon: somebody waits.
    ///
    /// # Context
    ///
    /// A work item of a freezable workqueue: it keeps the system from going to sleep until the
    /// pages are dropped.
    fn report(&self, pages: Pages);
}

/// Free pages that were taken off the free lists for a report; they go back when this is dropped.
///
/// # Invariants
///
/// `list` is a valid scatter list of pages that nobody uses, and `done` is valid: the callback of
/// the kernel, to which both belong, waits until this is dropped.
pub struct Pages {
    list: NonNull<bindings::scatterlist>,
    count: usize,
    done: NonNull<Done>,
}

impl Pages {
    /// Number of blocks of contiguous pages.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The pages were reported: they need not be reported again before somebody has used them.
    pub fn confirm(self) {
        // SAFETY: By the type invariant.
        unsafe { self.done.as_ref() }.reported.store(true, Release);
    }
}

impl<'a> From<&'a mut Pages> for Writable<'a> {
    fn from(pages: &'a mut Pages) -> Self {
        // SAFETY: By the type invariant the list and its pages are there until `pages` is dropped.
        unsafe { Self::from_list(pages.list.as_ptr()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The callback may return from now on.
        unsafe { self.done.as_ref() }.completion.complete_all();
    }
}

// SAFETY: Pages belong to no thread, and `Done` may be used from any.
unsafe impl Send for Pages {}

/// What a callback waits for.
#[pin_data]
struct Done {
    #[pin]
    completion: Completion,
    reported: Atomic<bool>,
}

/// A registered reporter; dropping it waits for running calls.
///
/// # Invariants
///
/// `info` is registered from initialisation to drop.
#[pin_data(PinnedDrop)]
pub struct PageReporting<T: Reporter + 'static> {
    #[pin]
    info: Opaque<bindings::page_reporting_dev_info>,
    reporter: T,
    #[pin]
    _pin: PhantomPinned,
}

impl<T: Reporter + 'static> PageReporting<T> {
    /// Registers `reporter` for up to `capacity` blocks of pages at a time, fewer if the kernel has
    /// a lower limit.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is another reporter.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(reporter: T, capacity: usize) -> impl PinInit<Self, Error> {
        // INVARIANT: Registration is the last step of the initialisation.
        try_pin_init!(&this in Self {
            info: Opaque::zeroed(),
            reporter,
            _pin: PhantomPinned,
            _: {
                // SAFETY: All fields are in place and pinned; they are unregistered before they go
                // away.
                to_result(unsafe {
                    let info = (*this.as_ptr()).info.get();

                    (*info).report = Some(Self::callback);
                    (*info).order = ORDER;
                    (*info).capacity = c_uint::try_from(capacity).unwrap_or(0);
                    bindings::page_reporting_register(info)
                })?;
            },
        })
    }

    /// # Safety
    ///
    /// Called only by the reporting code of the kernel, with the `info` of a `PageReporting<T>`
    /// and a list of `count` blocks of pages that it will not touch meanwhile.
    unsafe extern "C" fn callback(
        info: *mut bindings::page_reporting_dev_info,
        list: *mut bindings::scatterlist,
        count: c_uint,
    ) -> c_int {
        // CAST: `Opaque` is transparent.
        let info = info.cast::<Opaque<bindings::page_reporting_dev_info>>();
        // SAFETY: By the requirements above.
        let this = unsafe { &*kernel::container_of!(info, Self, info) };
        let (Some(list), Ok(count)) = (NonNull::new(list), usize::try_from(count)) else {
            return EINVAL.to_errno();
        };
        pin_init::stack_pin_init!(let done = pin_init!(Done {
            completion <- Completion::new(),
            reported: Atomic::new(false),
        }));

        // INVARIANT: The list is valid by the requirements above, both stay so until the wait is
        // over.
        this.reporter.report(Pages {
            list,
            count,
            done: NonNull::from(&*done),
        });
        done.completion.wait_for_completion();
        match done.reported.load(Acquire) {
            true => 0,
            false => EAGAIN.to_errno(),
        }
    }
}

#[pinned_drop]
impl<T: Reporter + 'static> PinnedDrop for PageReporting<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::page_reporting_unregister(self.info.get()) };
    }
}

// SAFETY: The reporter is `Send`; the rest may be unregistered from any thread.
unsafe impl<T: Reporter + 'static> Send for PageReporting<T> {}

// SAFETY: The reporter is `Sync`, and nothing else can be reached through a reference.
unsafe impl<T: Reporter + 'static> Sync for PageReporting<T> {}
