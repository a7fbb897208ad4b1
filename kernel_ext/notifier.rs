// SPDX-License-Identifier: GPL-2.0

//! Notifier chains: lack of memory that nothing else could cure, and system sleep.
//!
//! C headers: `include/linux/notifier.h`, `include/linux/oom.h`, `include/linux/suspend.h`.

use crate::virtio::bindings;
#[cfg(CONFIG_PM_SLEEP)]
use crate::virtio::bindings::{
    register_pm_notifier,
    unregister_pm_notifier, //
};

use core::marker::{
    PhantomData,
    PhantomPinned, //
};
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

#[cfg(not(CONFIG_PM_SLEEP))]
use no_sleep::*;

/// The functions of the C header for a kernel that does not sleep: nobody is told anything.
#[cfg(not(CONFIG_PM_SLEEP))]
mod no_sleep {
    use super::{
        bindings::notifier_block,
        c_int, //
    };

    /// # Safety
    ///
    /// None is needed: it does nothing with what it is given.
    pub(super) unsafe fn register_pm_notifier(_block: *mut notifier_block) -> c_int {
        0
    }

    /// # Safety
    ///
    /// None is needed: it does nothing with what it is given.
    pub(super) unsafe fn unregister_pm_notifier(_block: *mut notifier_block) -> c_int {
        0
    }
}

/// Gets told when memory is short, before a process is killed.
pub trait OomHandler: Send + Sync {
    /// Frees memory, and returns how many kernel pages. If that is none, and no other handler frees
    /// any, a process will be killed.
    ///
    /// # Context
    ///
    /// A task that allocates memory, under the lock of the OOM killer. May sleep, but not for long;
    /// must not allocate.
    fn free_pages(&self) -> usize;
}

/// What is about to happen, or is over (`PM_*` of `include/linux/suspend.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PmEvent {
    /// Suspend or hibernation begins; the latter frees memory for the image.
    SleepPrepare,
    /// It is over: it failed, or this kernel was resumed.
    PostSleep,
    /// An image is about to be loaded over this kernel.
    RestorePrepare,
    /// The image could not be loaded.
    PostRestore,
}

/// Gets told of [`PmEvent`]s, before tasks are frozen and after they are thawed.
pub trait PmHandler: Send + Sync {
    /// Takes notice.
    ///
    /// # Context
    ///
    /// A task that starts or ends a sleep transition; may sleep. Tasks are not frozen.
    fn notify(&self, event: PmEvent);
}

/// A chain as handlers of type `T` see it.
///
/// # Safety
///
/// When [`Self::unregister`] returns, the block is called by nobody any more.
pub unsafe trait Chain<T> {
    /// Puts a block on the chain; returns 0 or a negative errno.
    ///
    /// # Safety
    ///
    /// The block must be initialised and stay where it is until it was taken off.
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int;

    /// Takes a block off the chain, and waits for calls of it.
    ///
    /// # Safety
    ///
    /// The block must be on the chain.
    unsafe fn unregister(block: *mut bindings::notifier_block);

    /// Passes a call on.
    ///
    /// # Safety
    ///
    /// `action` and `data` must be what this chain has passed to a block.
    unsafe fn call(handler: &T, action: c_ulong, data: *mut c_void);
}

/// The chain of those who can free memory.
pub struct Oom;

// SAFETY: The C function takes the lock under which blocks are called.
unsafe impl<T: OomHandler> Chain<T> for Oom {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::register_oom_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the requirements of this function.
        unsafe { bindings::unregister_oom_notifier(block) };
    }

    unsafe fn call(handler: &T, _action: c_ulong, data: *mut c_void) {
        let freed = handler.free_pages();

        // SAFETY: By the requirements of this function it is the number of pages freed so far.
        unsafe { *data.cast::<c_ulong>() += freed };
    }
}

/// The chain of those who must know of system sleep.
pub struct Pm;

// SAFETY: The C function takes the lock under which blocks are called.
unsafe impl<T: PmHandler> Chain<T> for Pm {
    unsafe fn register(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: By the requirements of this function.
        unsafe { register_pm_notifier(block) }
    }

    unsafe fn unregister(block: *mut bindings::notifier_block) {
        // SAFETY: By the requirements of this function.
        unsafe { unregister_pm_notifier(block) };
    }

    unsafe fn call(handler: &T, action: c_ulong, _data: *mut c_void) {
        let event = match u32::try_from(action) {
            Ok(bindings::PM_HIBERNATION_PREPARE | bindings::PM_SUSPEND_PREPARE) => {
                PmEvent::SleepPrepare
            }
            Ok(bindings::PM_POST_HIBERNATION | bindings::PM_POST_SUSPEND) => PmEvent::PostSleep,
            Ok(bindings::PM_RESTORE_PREPARE) => PmEvent::RestorePrepare,
            Ok(bindings::PM_POST_RESTORE) => PmEvent::PostRestore,
            _ => return,
        };

        handler.notify(event);
    }
}

/// A handler on a chain; dropping it waits for running calls.
///
/// # Invariants
///
/// `block` is on the chain from initialisation to drop.
#[pin_data(PinnedDrop)]
pub struct Notifier<C: Chain<T> + 'static, T: Send + Sync + 'static> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    handler: T,
    _chain: PhantomData<fn() -> C>,
    #[pin]
    _pin: PhantomPinned,
}

impl<C: Chain<T> + 'static, T: Send + Sync + 'static> Notifier<C, T> {
    /// Puts `handler` on the chain; those with a higher `priority` are called first.
    ///
    /// # Errors
    ///
    /// `EEXIST` as `notifier_chain_register()`.
    pub fn new(handler: T, priority: i32) -> impl PinInit<Self, Error> {
        // INVARIANT: Registration is the last step of the initialisation.
        try_pin_init!(&this in Self {
            block: Opaque::new(bindings::notifier_block {
                notifier_call: Some(Self::callback),
                priority,
                ..Default::default()
            }),
            handler,
            _chain: PhantomData,
            _pin: PhantomPinned,
            // SAFETY: All fields are in place and pinned; the block is taken off the chain before
            // they go away.
            _: { to_result(unsafe { C::register((*this.as_ptr()).block.get()) })?; },
        })
    }

    /// # Safety
    ///
    /// Called only by the chain, with the block of a `Notifier<C, T>`.
    unsafe extern "C" fn callback(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        data: *mut c_void,
    ) -> c_int {
        // CAST: `Opaque` is transparent.
        let block = block.cast::<Opaque<bindings::notifier_block>>();
        // SAFETY: By the requirements above.
        let this = unsafe { &*kernel::container_of!(block, Self, block) };

        // SAFETY: By the requirements above.
        unsafe { C::call(&this.handler, action, data) };
        NOTIFY_OK
    }
}

/// `NOTIFY_OK` of `include/linux/notifier.h`: go on.
const NOTIFY_OK: c_int = 1;

#[pinned_drop]
impl<C: Chain<T> + 'static, T: Send + Sync + 'static> PinnedDrop for Notifier<C, T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { C::unregister(self.block.get()) };
    }
}

// SAFETY: The handler is `Send`; the block may be unregistered from any thread.
unsafe impl<C: Chain<T>, T: Send + Sync> Send for Notifier<C, T> {}

// SAFETY: The handler is `Sync`, and nothing else can be reached through a reference.
unsafe impl<C: Chain<T>, T: Send + Sync> Sync for Notifier<C, T> {}
