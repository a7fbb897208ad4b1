// SPDX-License-Identifier: GPL-2.0

//! Notification of system sleep before tasks are frozen and after they are thawed.
//!
//! C header: `include/linux/suspend.h`.

use core::marker::PhantomPinned;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// What is about to happen, or is over (`PM_*` of `include/linux/suspend.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Suspend or hibernation begins; the latter frees memory for the image.
    SleepPrepare,
    /// It is over: it failed, or this kernel was resumed.
    PostSleep,
    /// An image is about to be loaded over this kernel.
    RestorePrepare,
    /// The image could not be loaded.
    PostRestore,
}

/// Gets told of [`Event`]s.
pub trait Handler: Send + Sync {
    /// Takes notice.
    ///
    /// # Context
    ///
    /// A task that starts or ends a sleep transition; may sleep. Tasks are not frozen.
    fn notify(&self, event: Event);
}

/// A registered handler; dropping it waits for running calls.
///
/// # Invariants
///
/// `block` is on the notifier chain from initialisation to drop.
#[pin_data(PinnedDrop)]
pub struct PmNotifier<T: Handler + 'static> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    handler: T,
    #[pin]
    _pin: PhantomPinned,
}

impl<T: Handler + 'static> PmNotifier<T> {
    /// Registers `handler`.
    ///
    /// # Errors
    ///
    /// `EEXIST` as `register_pm_notifier()`.
    pub fn new(handler: T) -> impl PinInit<Self, Error> {
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
                    bindings::register_pm_notifier(block)
                })?;
            },
        })
    }

    /// # Safety
    ///
    /// Called only by the notifier chain, with the block of a `PmNotifier<T>`.
    unsafe extern "C" fn callback(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        // CAST: `Opaque` is transparent.
        let block = block.cast::<Opaque<bindings::notifier_block>>();
        // SAFETY: By the requirements above.
        let this = unsafe { &*kernel::container_of!(block, Self, block) };
        let event = match u32::try_from(action) {
            Ok(bindings::PM_HIBERNATION_PREPARE | bindings::PM_SUSPEND_PREPARE) => {
                Event::SleepPrepare
            }
            Ok(bindings::PM_POST_HIBERNATION | bindings::PM_POST_SUSPEND) => Event::PostSleep,
            Ok(bindings::PM_RESTORE_PREPARE) => Event::RestorePrepare,
            Ok(bindings::PM_POST_RESTORE) => Event::PostRestore,
            _ => return NOTIFY_DONE,
        };

        this.handler.notify(event);
        NOTIFY_DONE
    }
}

/// `NOTIFY_DONE` of `include/linux/notifier.h`: go on, and no opinion.
const NOTIFY_DONE: c_int = 0;

#[pinned_drop]
impl<T: Handler + 'static> PinnedDrop for PmNotifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::unregister_pm_notifier(self.block.get()) };
    }
}

// SAFETY: The handler is `Send`; the block may be unregistered from any thread.
unsafe impl<T: Handler + 'static> Send for PmNotifier<T> {}

// SAFETY: The handler is `Sync`, and nothing else can be reached through a reference.
unsafe impl<T: Handler + 'static> Sync for PmNotifier<T> {}
