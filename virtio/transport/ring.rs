// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as a transport makes, feeds and deletes them, with the functions of
//! `include/linux/virtio_ring.h`.
//!
//! The ring itself is none of the transport's business: it learns the addresses, and passes
//! notifications on.

use super::{
    registration::Shell,
    Device,
    DeviceOf,
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
    marker::PhantomData,
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
    /// What the queue is called, unless its driver has that.
    _name: Option<Arc<CString>>,
}

impl Ring {
    /// Makes a queue of a device of `T`, whose notifications are `T`'s business. The device does
    /// not know of it yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when the ring cannot have that size, which it has logged; `EINVAL` if the
    /// wish is one of another device.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new<T: Notify>(
        device: &DeviceOf<T>,
        index: u32,
        shape: Shape,
        wish: &Wish<'_>,
    ) -> Result<Self> {
        let notify: NotifyFunction = match device.has(NOTIFICATION_DATA) {
            true => notify_with_data::<T>,
            false => notify::<T>,
        };

        if !core::ptr::eq(wish.device, &**device) {
            return Err(EINVAL);
        }
        // SAFETY: The queue becomes one of a device of `T`.
        let queue = unsafe { create(index, shape, wish, notify) }?;

        // INVARIANT: The queue was made above.
        Ok(Self {
            queue,
            lost: AtomicBool::new(false),
            _bell: (),
            _name: wish.name.clone(),
        })
    }
}

impl<B: IoAddress> Ring<B> {
    /// Makes a queue whose notifications are written to a register: its index in 16 bits, or what
    /// `VIRTIO_F_NOTIFICATION_DATA` has the device get, in 32. The device does not know of it yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as for [`Ring::new`]; `EINVAL` if the register is too short.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn with_bell(index: u32, shape: Shape, wish: &Wish<'_>, bell: B) -> Result<Self> {
        let (notify, width): (NotifyFunction, usize) = match wish.device.has(NOTIFICATION_DATA) {
            true => (ring_with_data, 4),
            false => (ring_with_index, 2),
        };

        if bell.length() < width {
            return Err(EINVAL);
        }
        // SAFETY: Nobody notifies the device before the queue is given to its driver.
        let queue = unsafe { create(index, shape, wish, notify) }?;

        // SAFETY: The queue was made above and nobody else has it.
        unsafe { (*queue.as_ref().0.get()).priv_ = bell.address() };
        // INVARIANT: The queue was made above, and its `priv` is the address.
        Ok(Self {
            queue,
            lost: AtomicBool::new(false),
            _bell: bell,
            _name: wish.name.clone(),
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

    /// Tells whether the memory was given up.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
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

// SAFETY: A shared reference gives out the `Virtqueue` only, which is `Sync`.
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
    index: u32,
    shape: Shape,
    wish: &Wish<'_>,
    notify: NotifyFunction,
) -> Result<NonNull<Virtqueue>> {
    let align = u32::try_from(shape.align)?;

    // SAFETY: The device is registered by its type invariant. The name and the callback are those
    // of its driver, or of its transport, whose name the queue keeps. The device is not one that
    // needs barriers of its own.
    let queue = unsafe {
        bindings::vring_create_virtqueue(
            index,
            shape.size,
            align,
            wish.device.0.get(),
            true,
            shape.may_shrink,
            wish.info.ctx,
            Some(notify),
            wish.info.callback,
            wish.info.name,
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

/// A queue that the driver or the transport of a device wants.
///
/// # Invariants
///
/// The callback may be called with a queue of `device`. The name is the driver's, which outlives
/// its queues, or `name`.
#[derive(Clone)]
pub struct Wish<'a> {
    device: &'a Device,
    info: bindings::virtqueue_info,
    name: Option<Arc<CString>>,
}

impl Wish<'_> {
    /// The device that the queue is to be one of.
    pub fn device(&self) -> &Device {
        self.device
    }

    /// What the queue is to be called.
    pub fn name(&self) -> &CStr {
        // SAFETY: By the type invariant; only queues with names are wishes.
        unsafe { CStr::from_char_ptr(self.info.name) }
    }

    /// Tells whether somebody wants to hear of used buffers.
    pub fn has_callback(&self) -> bool {
        self.info.callback.is_some()
    }
}

/// A queue that a transport wants for itself, on one of its devices.
pub struct Own<T> {
    /// Which of the device's queues it is.
    pub index: u32,
    name: Arc<CString>,
    _transport: PhantomData<fn(T)>,
}

impl<T: Transport> Own<T> {
    /// A queue whose used buffers the transport is told of ([`Transport::own_queue_used`]).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(index: u32, name: CString) -> Result<Self> {
        Ok(Self {
            index,
            name: Arc::new(name, GFP_KERNEL)?,
            _transport: PhantomData,
        })
    }

    /// The same as one that a driver wants.
    pub fn wish<'a>(&self, device: &'a DeviceOf<T>) -> Wish<'a> {
        // INVARIANT: The callback is for queues of devices of `T`.
        Wish {
            device,
            info: bindings::virtqueue_info {
                name: self.name.as_char_ptr(),
                callback: Some(own_used::<T>),
                ctx: false,
            },
            name: Some(self.name.clone()),
        }
    }
}

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
    device: &'a Device,
    infos: &'a [Info],
    queues: &'a mut [*mut bindings::virtqueue],
    affinity: Option<bindings::irq_affinity>,
}

/// A queue that a driver wants, or none.
#[repr(transparent)]
struct Info(bindings::virtqueue_info);

impl Info {
    /// Tells whether the driver wants a queue in this place at all.
    fn is_one(&self) -> bool {
        !self.0.name.is_null()
    }
}

impl<'a> Wanted<'a> {
    /// # Safety
    ///
    /// Both arrays must have `count` elements that are the caller's as long as `'a`; those of the
    /// second may be uninitialised. `affinity` is null or the caller's, too. They must come from
    /// the driver of the device.
    pub(super) unsafe fn from_raw(
        device: &'a Device,
        infos: *mut bindings::virtqueue_info,
        queues: *mut *mut bindings::virtqueue,
        count: usize,
        affinity: *const bindings::irq_affinity,
    ) -> Self {
        // SAFETY: By the requirements above.
        let affinity = unsafe { affinity.as_ref() }.copied();

        if count == 0 {
            return Self {
                device,
                infos: &[],
                queues: &mut [],
                affinity,
            };
        }
        for place in 0..count {
            // SAFETY: By the requirements above.
            unsafe { queues.add(place).write(null_mut()) };
        }
        Self {
            device,
            // SAFETY: By the requirements above; `Info` is a transparent wrapper.
            infos: unsafe { slice::from_raw_parts(infos.cast(), count) },
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
    pub fn wishes(&self) -> impl Iterator<Item = Wish<'a>> {
        let device = self.device;
        let wanted = self.infos.iter().filter(|info| info.is_one());

        // INVARIANT: Name and callback are those of the device's driver.
        wanted.map(move |info| Wish {
            device,
            info: info.0,
            name: None,
        })
    }

    /// Gives the driver its queues, in the order of [`Self::wishes`]. It gets none of another
    /// device.
    pub fn grant<'q>(&mut self, queues: impl Iterator<Item = &'q Virtqueue>) {
        let places = self.queues.iter_mut().zip(self.infos);
        let wanted = places.filter(|(_, info)| info.is_one());

        for ((place, _), queue) in wanted.zip(queues) {
            if queue.device() == self.device.0.get() {
                *place = queue.0.get();
            }
        }
    }
}
