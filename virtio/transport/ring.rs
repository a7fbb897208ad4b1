// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as a transport makes, feeds and deletes them, with the functions of
//! `include/linux/virtio_ring.h`.
//!
//! The ring itself is none of the transport's business: it learns the addresses, and passes
//! notifications on.

use super::{
    Device,
    Shell,
    Transport, //
};
use crate::virtio::bindings;

use core::{
    ops::Deref,
    ptr::{
        null_mut,
        NonNull, //
    },
    slice, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// The most descriptors that a queue can have (Virtio 1.4, 2.7 and 2.8).
pub const MAX_SIZE: u32 = 1 << 15;

/// Bit of `VIRTIO_F_NOTIFICATION_DATA` (Virtio 1.4, 6).
const NOTIFICATION_DATA: u32 = bindings::VIRTIO_F_NOTIFICATION_DATA;

/// A virtqueue.
///
/// # Invariants
///
/// Represents a `struct virtqueue` that the ring made and that is not deleted.
#[repr(transparent)]
pub struct Virtqueue(Opaque<bindings::virtqueue>);

impl Virtqueue {
    /// # Safety
    ///
    /// `vq` must be a queue that a transport of this module made, and that is not deleted as long
    /// as `'a`.
    #[inline(always)]
    pub(super) unsafe fn from_raw<'a>(vq: *mut bindings::virtqueue) -> &'a Self {
        // SAFETY: By the requirements above; a transparent wrapper.
        unsafe { &*vq.cast() }
    }

    /// The device that the queue belongs to.
    pub(super) fn device(&self) -> *mut bindings::virtio_device {
        // SAFETY: By the type invariant; the field never changes.
        unsafe { (*self.0.get()).vdev }
    }

    /// Which of the device's queues this is.
    #[inline(always)]
    pub fn index(&self) -> u32 {
        // SAFETY: By the type invariant; the field never changes.
        unsafe { (*self.0.get()).index }
    }

    /// What the driver calls the queue.
    pub fn name(&self) -> &CStr {
        // SAFETY: By the type invariant the name was given when the queue was made, by a driver
        // whose names outlive its queues.
        unsafe { CStr::from_char_ptr((*self.0.get()).name) }
    }

    /// How many descriptors it has.
    pub fn size(&self) -> u32 {
        // SAFETY: By the type invariant; the function only reads.
        unsafe { bindings::virtqueue_get_vring_size(self.0.get()) }
    }

    /// Where the descriptors are, as an address of the device: the descriptor table, or the
    /// descriptor ring.
    pub fn descriptors(&self) -> u64 {
        // SAFETY: By the type invariant; the function only reads.
        unsafe { bindings::virtqueue_get_desc_addr(self.0.get()) }
    }

    /// Where the part that the driver writes is: the available ring, or the driver's event
    /// suppression.
    pub fn driver_area(&self) -> u64 {
        // SAFETY: By the type invariant; the function only reads.
        unsafe { bindings::virtqueue_get_avail_addr(self.0.get()) }
    }

    /// Where the part that the device writes is: the used ring, or the device's event suppression.
    pub fn device_area(&self) -> u64 {
        // SAFETY: By the type invariant; the function only reads.
        unsafe { bindings::virtqueue_get_used_addr(self.0.get()) }
    }

    /// Looks for used buffers and calls the driver if there are any; returns whether there were.
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    #[inline]
    pub fn interrupt(&self) -> bool {
        // The number of the interrupt is of no use to the ring.
        // SAFETY: By the type invariant.
        let handled = unsafe { bindings::vring_interrupt(0, self.0.get().cast()) };

        handled == bindings::irqreturn::IRQ_HANDLED
    }

    /// Tells whether the queue was reset, alone, and is not in use again.
    pub(super) fn is_reset(&self) -> bool {
        // SAFETY: By the type invariant; the core does not use the field in parallel.
        unsafe { (*self.0.get()).reset }
    }

    pub(super) fn set_reset(&self, reset: bool) {
        // SAFETY: By the type invariant; the core does not use the field in parallel.
        unsafe { (*self.0.get()).reset = reset };
    }
}

// SAFETY: What can be reached through a reference does not change, or may be called in parallel.
unsafe impl Sync for Virtqueue {}

/// A virtqueue that this owns; dropping it deletes it.
///
/// # Invariants
///
/// The queue is not deleted.
pub struct Ring(NonNull<Virtqueue>);

impl Ring {
    /// Makes a queue with `size` descriptors, or fewer if memory is short; `align` is where its
    /// parts begin, in bytes. The device does not know of it yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when the ring cannot have that size, which it has logged.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new<T: Transport>(
        device: &Device,
        index: u32,
        size: u32,
        align: usize,
        wish: &Wish,
    ) -> Result<Self> {
        let align = u32::try_from(align)?;
        let notify: unsafe extern "C" fn(*mut bindings::virtqueue) -> bool =
            match device.has(NOTIFICATION_DATA) {
                true => notify_with_data::<T>,
                false => notify::<T>,
            };

        // SAFETY: The device is registered by its type invariant. The name and the callback are
        // those of its driver. The queue may have fewer descriptors, and the device is not one
        // that needs barriers of its own.
        let queue = unsafe {
            bindings::vring_create_virtqueue(
                index,
                size,
                align,
                device.0.get(),
                true,
                true,
                wish.0.ctx,
                Some(notify),
                wish.0.callback,
                wish.0.name,
            )
        };
        let queue = NonNull::new(queue).ok_or(ENOMEM)?;

        // SAFETY: The queue was made above and nobody else has it.
        unsafe { (*queue.as_ptr()).num_max = size };
        // INVARIANT: The queue was made above.
        Ok(Self(queue.cast()))
    }

    /// Gives the queue's memory up for good: the device may still use it.
    pub fn leak(self) {
        core::mem::forget(self);
    }
}

impl Deref for Ring {
    type Target = Virtqueue;

    #[inline(always)]
    fn deref(&self) -> &Virtqueue {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the owner sees to it that neither driver nor device uses
        // it.
        unsafe { bindings::vring_del_virtqueue(self.0.as_ptr().cast()) };
    }
}

// SAFETY: A queue can be used and deleted by any thread.
unsafe impl Send for Ring {}

// SAFETY: As for `Virtqueue`.
unsafe impl Sync for Ring {}

/// # Safety
///
/// Called only by the ring, with a queue that `Ring::new::<T>` made.
unsafe extern "C" fn notify<T: Transport>(vq: *mut bindings::virtqueue) -> bool {
    // SAFETY: By the requirements above.
    let queue = unsafe { Virtqueue::from_raw(vq) };

    // SAFETY: The device of a queue is one of `T`, and outlives it.
    unsafe { Shell::<T>::parts(queue.device()) }.1.notify(queue);
    true
}

/// # Safety
///
/// As for [`notify`].
unsafe extern "C" fn notify_with_data<T: Transport>(vq: *mut bindings::virtqueue) -> bool {
    // SAFETY: By the requirements above.
    let queue = unsafe { Virtqueue::from_raw(vq) };
    // SAFETY: By the requirements above.
    let data = unsafe { bindings::vring_notification_data(vq) };

    // SAFETY: The device of a queue is one of `T`, and outlives it.
    unsafe { Shell::<T>::parts(queue.device()) }
        .1
        .notify_with_data(queue, data);
    true
}

/// A queue that a driver wants.
#[repr(transparent)]
pub struct Wish(bindings::virtqueue_info);

impl Wish {
    /// Tells whether the driver wants a queue in this place at all.
    fn is_one(&self) -> bool {
        !self.0.name.is_null()
    }

    /// Tells whether the driver wants to hear of used buffers.
    pub fn has_callback(&self) -> bool {
        self.0.callback.is_some()
    }
}

/// The queues that a driver wants, and where they go.
pub struct Wanted<'a> {
    wishes: &'a [Wish],
    queues: &'a mut [*mut bindings::virtqueue],
}

impl<'a> Wanted<'a> {
    /// # Safety
    ///
    /// Both arrays must have `count` elements that are the caller's as long as `'a`; those of the
    /// second may be uninitialised.
    pub(super) unsafe fn from_raw(
        infos: *mut bindings::virtqueue_info,
        queues: *mut *mut bindings::virtqueue,
        count: usize,
    ) -> Self {
        if count == 0 {
            return Self {
                wishes: &[],
                queues: &mut [],
            };
        }
        for place in 0..count {
            // SAFETY: By the requirements above.
            unsafe { queues.add(place).write(null_mut()) };
        }
        Self {
            // SAFETY: By the requirements above; `Wish` is a transparent wrapper.
            wishes: unsafe { slice::from_raw_parts(infos.cast(), count) },
            // SAFETY: By the requirements above, and initialised just now.
            queues: unsafe { slice::from_raw_parts_mut(queues, count) },
        }
    }

    /// The queues wanted, in the order of their indexes on the device.
    pub fn wishes(&self) -> impl Iterator<Item = &'a Wish> {
        self.wishes.iter().filter(|wish| wish.is_one())
    }

    /// Gives the driver its queues, in the order of [`Self::wishes`].
    pub fn grant<'q>(&mut self, queues: impl Iterator<Item = &'q Virtqueue>) {
        let places = self.queues.iter_mut().zip(self.wishes);
        let wanted = places.filter(|(_, wish)| wish.is_one());

        for ((place, _), queue) in wanted.zip(queues) {
            *place = queue.0.get();
        }
    }
}
