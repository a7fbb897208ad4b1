// SPDX-License-Identifier: GPL-2.0

//! What the handler of an interrupt that several queues share has of each of them.

use super::ring::Virtqueue;
use crate::virtio::bindings;

use core::{
    ptr::null_mut,
    // The kernel's atomics call a function to read a pointer, for each queue in each interrupt.
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use kernel::prelude::*;

/// The call of a queue's driver for used buffers, which can be turned off.
///
/// # Invariants
///
/// `on` is null or `queue`, which is valid as long as this is used.
pub struct Callback {
    queue: *mut bindings::virtqueue,
    on: AtomicPtr<bindings::virtqueue>,
}

impl Callback {
    /// That of a queue, turned on.
    ///
    /// # Safety
    ///
    /// The queue must not be deleted before the result has been used for the last time.
    pub unsafe fn new(queue: &Virtqueue) -> Self {
        let queue = queue.as_raw();

        // INVARIANT: By the requirements above.
        Self {
            queue,
            on: AtomicPtr::new(queue),
        }
    }

    /// Turns it off; calls may be under way.
    pub fn turn_off(&self) {
        self.on.store(null_mut(), Ordering::Relaxed);
    }

    /// Turns it on again.
    pub fn turn_on(&self) {
        // INVARIANT: It is `queue`.
        self.on.store(self.queue, Ordering::Relaxed);
    }

    /// Looks for used buffers and calls the driver if there are any; returns whether there were, as
    /// a handler says it.
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    #[inline(always)]
    pub fn interrupt(&self) -> c_uint {
        let queue = self.on.load(Ordering::Relaxed);

        if queue.is_null() {
            return bindings::irqreturn::IRQ_NONE.0;
        }
        // The number of the interrupt is of no use to the ring.
        // SAFETY: By the type invariant the queue is valid.
        unsafe { bindings::vring_interrupt(0, queue.cast()) }.0
    }
}

// SAFETY: The pointer is only passed to a function that any thread may call.
unsafe impl Send for Callback {}

// SAFETY: The pointer is only passed to a function that any thread may call, in parallel.
unsafe impl Sync for Callback {}
