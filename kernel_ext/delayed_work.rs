// SPDX-License-Identifier: GPL-2.0

//! Delayed work items inside of structures that nobody counts references to.
//!
//! `kernel::workqueue` has items only in what is reference-counted, and cannot wait for one; the
//! owner of the structure must before it goes. C header: `include/linux/workqueue.h`.

use kernel::{
    bindings,
    container_of,
    ffi::c_int,
    prelude::*,
    sync::LockClassKey,
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    types::Opaque,
    workqueue, //
};

/// A delayed work item; who has it must call [`Self::cancel`] before it goes, if it was queued.
#[pin_data]
#[repr(C)]
pub struct DelayedWork {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    run: unsafe fn(&Self),
}

// SAFETY: A work item may be queued and cancelled from any thread, and `run` is a plain function.
unsafe impl Send for DelayedWork {}

// SAFETY: The work queue code serialises all that is done to an item.
unsafe impl Sync for DelayedWork {}

impl DelayedWork {
    /// An item that calls `run` with itself.
    ///
    /// # Safety
    ///
    /// `run` may be called with the item whenever it was queued and is not cancelled.
    pub unsafe fn new(
        run: unsafe fn(&Self),
        name: &'static CStr,
        work_key: Pin<&'static LockClassKey>,
        timer_key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            work <- Opaque::ffi_init(move |slot: *mut bindings::delayed_work| {
                // SAFETY: `slot` is valid for writing; name and key are static.
                unsafe {
                    bindings::init_work_with_key(
                        &raw mut (*slot).work,
                        Some(Self::callback),
                        false,
                        name.as_char_ptr(),
                        work_key.as_ptr(),
                    )
                };
                // SAFETY: As for the item; the timer is only used by the work queue code, and runs
                // with interrupts off, as its function wants it.
                unsafe {
                    bindings::timer_init_key(
                        &raw mut (*slot).timer,
                        Some(bindings::delayed_work_timer_fn),
                        bindings::TIMER_IRQSAFE,
                        name.as_char_ptr(),
                        timer_key.as_ptr(),
                    )
                };
            }),
            run,
        })
    }

    /// Queues the item after `delay` milliseconds, in the queue that system sleep freezes, unless
    /// it is queued already or is being cancelled.
    ///
    /// # Context
    ///
    /// Any, interrupts included.
    pub fn queue_freezable(&self, delay: Msecs) {
        // CAST: The constant is the number of CPUs, at most.
        let any = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;
        let queue = core::ptr::from_ref(workqueue::system_freezable()).cast_mut();

        // SAFETY: `Queue` is a transparent wrapper of the C queue, which lives for ever. The item
        // was initialised, and stays where it is until it is cancelled.
        unsafe {
            bindings::queue_delayed_work_on(
                any,
                queue.cast(),
                self.work.get(),
                msecs_to_jiffies(delay),
            )
        };
    }

    /// Takes the item out of its queue, or waits until it has run; it does not queue itself again.
    ///
    /// # Context
    ///
    /// May sleep; not from the item itself.
    pub fn cancel(&self) {
        // SAFETY: The item was initialised.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }

    /// # Safety
    ///
    /// Called only by a work queue, with the item of a `DelayedWork`.
    unsafe extern "C" fn callback(work: *mut bindings::work_struct) {
        // SAFETY: The work queue passes the item of a `DelayedWork`, part of a delayed one.
        let work = unsafe { container_of!(work, bindings::delayed_work, work) };
        // SAFETY: That one is the field `work` of a `DelayedWork`; `Opaque` is transparent.
        let this = unsafe { container_of!(Opaque::cast_from(work), Self, work) };
        // SAFETY: A queued item exists until it is cancelled, which waits for this call.
        let this = unsafe { &*this };

        // SAFETY: By the requirements of `new`.
        unsafe { (this.run)(this) };
    }
}
