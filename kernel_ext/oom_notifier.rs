// SPDX-License-Identifier: GPL-2.0

//! Notification of a lack of memory that nothing else could cure, before a process is killed.
//!
//! C header: `include/linux/oom.h`.

use crate::virtio::bindings;

use core::marker::PhantomPinned;
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// Gets told when memory is short.
pub trait Handler: Send + Sync {
    /// Frees memory, and returns how many kernel pages. If that is none, and no other handler frees
    /// any, a process will be killed.
    ///
    /// # Context
    ///
    /// A task that allocates memory, under the lock of the OOM killer. May sleep, but not for long;
    /// must not allocate.
    fn free_pages(&self) -> usize;
}

/// A registered handler; dropping it waits for running calls.
///
/// # Invariants
///
/// `block` is on the notifier chain from initialisation to drop.
#[pin_data(PinnedDrop)]
pub struct OomNotifier<T: Handler + 'static> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    handler: T,
    #[pin]
    _pin: PhantomPinned,
}

impl<T: Handler + 'static> OomNotifier<T> {
    /// Registers `handler`; those with a higher `priority` are called first.
    ///
    /// # Errors
    ///
    /// `EEXIST` as `register_oom_notifier()`.
    pub fn new(handler: T, priority: i32) -> impl PinInit<Self, Error> {
        // INVARIANT: Registration is the last step of the initialisation.
        try_pin_init!(&this in Self {
            block: Opaque::zeroed(),
            handler,
            _pin: PhantomPinned,
            _: {
                // SAFETY: All fields are in place and pinned; the block is taken off the chain
                // before they go away.
                to_result(unsafe {
                    let block = (*this.as_ptr()).block.get();

                    (*block).notifier_call = Some(Self::callback);
                    (*block).priority = priority;
                    bindings::register_oom_notifier(block)
                })?;
            },
        })
    }

    /// # Safety
    ///
    /// Called only by the notifier chain, with the block of a `OomNotifier<T>` and a pointer
    /// to the number of pages that were freed so far.
    unsafe extern "C" fn callback(
        block: *mut bindings::notifier_block,
        _action: c_ulong,
        data: *mut c_void,
    ) -> c_int {
        // CAST: `Opaque` is transparent.
        let block = block.cast::<Opaque<bindings::notifier_block>>();
        // SAFETY: By the requirements above.
        let this = unsafe { &*kernel::container_of!(block, Self, block) };
        let freed = this.handler.free_pages();

        // SAFETY: By the requirements above.
        unsafe { *data.cast::<c_ulong>() += freed };
        NOTIFY_OK
    }
}

/// `NOTIFY_OK` of `include/linux/notifier.h`: go on.
const NOTIFY_OK: c_int = 1;

#[pinned_drop]
impl<T: Handler + 'static> PinnedDrop for OomNotifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::unregister_oom_notifier(self.block.get()) };
    }
}

// SAFETY: The handler is `Send`; the block may be unregistered from any thread.
unsafe impl<T: Handler + 'static> Send for OomNotifier<T> {}

// SAFETY: The handler is `Sync`, and nothing else can be reached through a reference.
unsafe impl<T: Handler + 'static> Sync for OomNotifier<T> {}
