// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as a transport makes, feeds and deletes them, with the functions of
//! `include/linux/virtio_ring.h`.
//!
//! The ring itself is none of the transport's business: it learns the addresses, and passes
//! notifications on.

use super::{
    registration::Shell,
    Device,
    Notify,
    Transport, //
};
use crate::{
    kernel_ext::{
        io_address::IoAddress,
        iomap,
        irq_handler::RawHandler, //
    },
    virtio::bindings, //
};

use core::{
    ops::Deref,
    ptr::{
        null_mut,
        NonNull, //
    },
    slice,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc,
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

    /// The queue as the ring knows it.
    pub(super) fn as_raw(&self) -> *mut bindings::virtqueue {
        self.0.get()
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

/// How large a virtqueue is to be, and how it lies in memory.
#[derive(Clone, Copy)]
pub struct Shape {
    /// How many descriptors the device can have in it at most.
    pub size: u32,
    /// Where its parts begin, in bytes.
    pub align: usize,
    /// There may be fewer descriptors if memory is short.
    pub may_shrink: bool,
}

/// A virtqueue that this owns, and what it takes to notify the device; dropping it deletes it,
/// unless that is lost.
///
/// # Invariants
///
/// The queue is not deleted. If `B` is an [`IoAddress`], `priv` of the queue is that address.
pub struct Ring<B = ()> {
    queue: NonNull<Virtqueue>,
    lost: AtomicBool,
    _bell: B,
}

impl Ring {
    /// Makes a queue whose notifications are `T`'s business. The device does not know of it yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when the ring cannot have that size, which it has logged.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new<T: Notify>(device: &Device, index: u32, shape: Shape, wish: &Wish) -> Result<Self> {
        let notify: NotifyFunction = match device.has(NOTIFICATION_DATA) {
            true => notify_with_data::<T>,
            false => notify::<T>,
        };

        // SAFETY: The queue becomes one of a device of `T`.
        let queue = unsafe { create(device, index, shape, wish, notify) }?;

        // INVARIANT: The queue was made above.
        Ok(Self {
            queue,
            lost: AtomicBool::new(false),
            _bell: (),
        })
    }
}

impl<B: IoAddress> Ring<B> {
    /// Makes a queue whose notifications are written to a register: its index in 16 bits, or what
    /// `VIRTIO_F_NOTIFICATION_DATA` has the device get, in 32. The device does not know of it yet.
    ///
    /// # Errors
    ///
    /// As for [`Ring::new`]; `EINVAL` if the register is too short.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn with_bell(
        device: &Device,
        index: u32,
        shape: Shape,
        wish: &Wish,
        bell: B,
    ) -> Result<Self> {
        let (notify, width): (NotifyFunction, usize) = match device.has(NOTIFICATION_DATA) {
            true => (ring_with_data, 4),
            false => (ring_with_index, 2),
        };

        if bell.length() < width {
            return Err(EINVAL);
        }
        // SAFETY: Nobody notifies the device before the queue is given to its driver.
        let queue = unsafe { create(device, index, shape, wish, notify) }?;

        // SAFETY: The queue was made above and nobody else has it.
        unsafe { (*queue.as_ref().0.get()).priv_ = bell.address() };
        // INVARIANT: The queue was made above, and its `priv` is the address.
        Ok(Self {
            queue,
            lost: AtomicBool::new(false),
            _bell: bell,
        })
    }
}

impl<B> Ring<B> {
    /// The queue, for who puts buffers into it.
    pub fn raw_queue(&self) -> NonNull<bindings::virtqueue> {
        self.queue.cast()
    }

    /// Gives the queue's memory up for good: the device may still use it. What it takes to notify
    /// the device goes all the same when this is dropped.
    pub fn leak(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }
}

impl<B> Deref for Ring<B> {
    type Target = Virtqueue;

    #[inline(always)]
    fn deref(&self) -> &Virtqueue {
        // SAFETY: By the type invariant.
        unsafe { self.queue.as_ref() }
    }
}

impl<B> Drop for Ring<B> {
    fn drop(&mut self) {
        if *self.lost.get_mut() {
            return;
        }
        // SAFETY: By the type invariant; the owner sees to it that neither driver nor device uses
        // it. What notifies the device goes after it.
        unsafe { bindings::vring_del_virtqueue(self.queue.as_ptr().cast()) };
    }
}

// SAFETY: A queue can be used and deleted by any thread.
unsafe impl<B: Send> Send for Ring<B> {}

// SAFETY: As for `Virtqueue`.
unsafe impl<B: Sync> Sync for Ring<B> {}

// SAFETY: `vring_interrupt()` is a handler for interrupts of a queue, which the value keeps.
unsafe impl<B: Send + Sync> RawHandler for Arc<Ring<B>> {
    fn function(&self) -> unsafe extern "C" fn(c_int, *mut c_void) -> bindings::irqreturn_t {
        bindings::vring_interrupt
    }

    fn argument(&self) -> *mut c_void {
        self.queue.as_ptr().cast()
    }
}

/// What the ring calls to notify the device.
type NotifyFunction = unsafe extern "C" fn(*mut bindings::virtqueue) -> bool;

/// Makes a queue.
///
/// # Safety
///
/// `notify` can be called with the queue as soon as its driver has it.
unsafe fn create(
    device: &Device,
    index: u32,
    shape: Shape,
    wish: &Wish,
    notify: NotifyFunction,
) -> Result<NonNull<Virtqueue>> {
    let align = u32::try_from(shape.align)?;

    // SAFETY: The device is registered by its type invariant. The name and the callback are those
    // of its driver. The device is not one that needs barriers of its own.
    let queue = unsafe {
        bindings::vring_create_virtqueue(
            index,
            shape.size,
            align,
            device.0.get(),
            true,
            shape.may_shrink,
            wish.0.ctx,
            Some(notify),
            wish.0.callback,
            wish.0.name,
        )
    };
    let queue = NonNull::new(queue).ok_or(ENOMEM)?;

    // SAFETY: The queue was made above and nobody else has it.
    unsafe { (*queue.as_ptr()).num_max = shape.size };
    Ok(queue.cast())
}

/// # Safety
///
/// Called only by the ring, with a queue that `Ring::new::<T>` made.
unsafe extern "C" fn notify<T: Notify>(vq: *mut bindings::virtqueue) -> bool {
    // SAFETY: By the requirements above.
    let queue = unsafe { Virtqueue::from_raw(vq) };

    // SAFETY: The device of a queue is one of `T`, and outlives it.
    unsafe { Shell::<T>::parts(queue.device()) }.1.notify(queue);
    true
}

/// # Safety
///
/// As for [`notify`].
unsafe extern "C" fn notify_with_data<T: Notify>(vq: *mut bindings::virtqueue) -> bool {
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

/// # Safety
///
/// Called only by the ring, with a queue that `Ring::with_bell` made.
unsafe extern "C" fn ring_with_index(vq: *mut bindings::virtqueue) -> bool {
    // CAST: A device with bells has at most 2^16 queues.
    // SAFETY: By the requirements above; the field never changes.
    let index = unsafe { (*vq).index } as u16;

    // SAFETY: By the type invariant of `Ring` it is the address of a bell, which is there.
    unsafe { iomap::iowrite16(index, (*vq).priv_) };
    true
}

/// # Safety
///
/// As for [`ring_with_index`].
unsafe extern "C" fn ring_with_data(vq: *mut bindings::virtqueue) -> bool {
    // SAFETY: By the requirements above.
    let data = unsafe { bindings::vring_notification_data(vq) };

    // SAFETY: By the type invariant of `Ring` it is the address of a bell, which is there.
    unsafe { iomap::iowrite32(data, (*vq).priv_) };
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

    /// What the driver calls the queue.
    pub fn name(&self) -> &CStr {
        // SAFETY: It is one that a driver wants, so it has a name.
        unsafe { CStr::from_char_ptr(self.0.name) }
    }

    /// Tells whether the driver wants to hear of used buffers.
    pub fn has_callback(&self) -> bool {
        self.0.callback.is_some()
    }
}

/// A queue that a transport wants for itself. Must exist as long as the queue that is made of it.
pub struct Own {
    /// Which of the device's queues it is.
    pub index: u32,
    wish: Wish,
    _name: CString,
}

impl Own {
    /// A queue of a device of `T`, which is told of used buffers.
    pub fn new<T: Transport>(index: u32, name: CString) -> Self {
        Self {
            index,
            wish: Wish(bindings::virtqueue_info {
                name: name.as_char_ptr(),
                callback: Some(own_used::<T>),
                ctx: false,
            }),
            _name: name,
        }
    }

    /// The same as one that a driver wants.
    pub fn wish(&self) -> &Wish {
        &self.wish
    }
}

// SAFETY: The pointers are to the name, which belongs to it, and to a function.
unsafe impl Send for Own {}

// SAFETY: Nothing of it changes.
unsafe impl Sync for Own {}

/// # Safety
///
/// Called only by the ring, with a queue that was made of an [`Own`] of `T`.
unsafe extern "C" fn own_used<T: Transport>(vq: *mut bindings::virtqueue) {
    // SAFETY: By the requirements above.
    let queue = unsafe { Virtqueue::from_raw(vq) };

    // SAFETY: The device of a queue is one of `T`, and outlives it.
    unsafe { Shell::<T>::parts(queue.device()) }
        .1
        .own_queue_used();
}

/// The queues that a driver wants, and where they go.
pub struct Wanted<'a> {
    wishes: &'a [Wish],
    queues: &'a mut [*mut bindings::virtqueue],
    affinity: Option<bindings::irq_affinity>,
}

impl<'a> Wanted<'a> {
    /// # Safety
    ///
    /// Both arrays must have `count` elements that are the caller's as long as `'a`; those of the
    /// second may be uninitialised. `affinity` is null or the caller's, too.
    pub(super) unsafe fn from_raw(
        infos: *mut bindings::virtqueue_info,
        queues: *mut *mut bindings::virtqueue,
        count: usize,
        affinity: *const bindings::irq_affinity,
    ) -> Self {
        // SAFETY: By the requirements above.
        let affinity = unsafe { affinity.as_ref() }.copied();

        if count == 0 {
            return Self {
                wishes: &[],
                queues: &mut [],
                affinity,
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
            affinity,
        }
    }

    /// How the driver wants interrupts of queues to be spread over CPUs, if it cares.
    pub fn affinity(&self) -> Option<bindings::irq_affinity> {
        self.affinity
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
