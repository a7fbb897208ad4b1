// SPDX-License-Identifier: GPL-2.0

//! Virtio devices for the core: what PCI, MMIO and other transports have in common.
//!
//! A transport finds devices on a bus of the machine, implements [`Transport`] for one of them, and
//! puts it on the virtio bus with a [`Registration`]. From then on the core and the drivers reach
//! it through `struct virtio_config_ops` of `include/linux/virtio_config.h`, whose functions are in
//! `ops.rs`; they say when they may be called and how the calls are serialised.
//!
//! Rings are made with [`ring`].

pub mod callback;
mod generation;
mod ops;
mod registration;
mod reset;
pub mod ring;

pub use registration::Registration;

use super::bindings;
use crate::config::{
    FeatureBit,
    Features, //
};
use ring::{
    Virtqueue,
    Wanted, //
};

use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::{
        addr_of_mut,
        NonNull, //
    }, //
};
use kernel::{
    cpumask::Cpumask,
    device,
    prelude::*,
    sync::aref::AlwaysRefCounted,
    time::Delta,
    types::Opaque, //
};

/// What a transport does for one device.
#[vtable]
pub trait Transport: Send + Sync + Sized {
    /// How long a device may take to reset while its driver waits.
    fn patience(&self) -> Delta;

    /// Tells whether a device that does not reset sets `FAILED` instead. If not, the bit says
    /// nothing: a device that takes its time still has the status from before.
    fn may_refuse(&self) -> bool {
        false
    }

    /// Tells whether the device has a configuration space; asked once, before it is registered.
    fn has_config(&self) -> bool {
        true
    }

    /// Reads the device configuration space from `offset` on, in bytes; fields are little-endian
    /// on devices of version 1.0 or later.
    ///
    /// # Context
    ///
    /// As the driver calls it; most may sleep, but none does.
    fn read_config(&self, offset: usize, bytes: &mut [u8]);

    /// Writes the device configuration space; otherwise as [`Self::read_config`].
    fn write_config(&self, offset: usize, bytes: &[u8]);

    /// The number that changes whenever the device changes its configuration (Virtio 1.4, 2.5.1).
    /// Drivers are told the same number in the end, even if it changes all the time.
    fn generation(&self) -> u32;

    /// The device status (Virtio 1.4, 2.1).
    fn status(&self) -> u8;

    /// Sets bits of the device status; never 0, which would reset the device.
    fn set_status(&self, status: u8);

    /// Tells whether the device is there after all, if its status is all ones.
    fn is_present(&self) -> bool;

    /// Tells the device to reset. Does not wait: `reset.rs` does that.
    fn begin_reset(&self);

    /// Keeps a device that does not reset from memory. Returns whether that is certain; then its
    /// writes so far have arrived.
    ///
    /// # Context
    ///
    /// May sleep.
    fn fence(&self) -> bool {
        false
    }

    /// Lets a device reach memory again that has reset.
    ///
    /// # Context
    ///
    /// May sleep.
    fn lift_fence(&self) {}

    /// The device was reset, or will not be. If it is `quiet`, it uses no memory; callbacks may
    /// still be under way.
    ///
    /// # Safety
    ///
    /// `quiet` must be true only if it is so until the device is told to be live.
    ///
    /// # Context
    ///
    /// May sleep.
    unsafe fn reset_is_over(&self, _quiet: bool) {}

    /// The features the device offers.
    fn offered_features(&self) -> Features;

    /// The feature bits of transports, 28 to 41, that this one knows beside those of the ring.
    fn own_features(&self) -> Features;

    /// Tells the device what was negotiated; may be called again with less.
    ///
    /// # Errors
    ///
    /// Any error makes the probe fail with it.
    fn accept_features(&self, dev: &Device, features: Features) -> Result;

    /// Makes all the virtqueues that a driver wants.
    ///
    /// # Errors
    ///
    /// Any; then there are none.
    ///
    /// # Context
    ///
    /// May sleep. Never in parallel with itself, [`Self::delete_queues`] or a reset.
    fn make_queues(&self, dev: &DeviceOf<Self>, wanted: &mut Wanted<'_>) -> Result;

    /// Deletes the virtqueues. If the device is not `quiet` it may still use them: their memory is
    /// lost.
    ///
    /// # Context
    ///
    /// May sleep.
    fn delete_queues(&self, quiet: bool);

    /// Waits for callbacks of queues that run on other CPUs.
    ///
    /// # Context
    ///
    /// May sleep.
    fn wait_for_callbacks(&self);

    /// The device's name on the bus of the machine.
    fn bus_name(&self) -> &CStr;

    /// Looks a shared memory region up (Virtio 1.4, 2.10).
    fn shared_memory(&self, id: u8) -> Option<SharedMemory>;

    /// Says on which CPUs the interrupt of a queue should be handled; `None` takes it back.
    ///
    /// # Errors
    ///
    /// `EINVAL` if nobody hears of used buffers of this queue; that of the interrupt core.
    ///
    /// # Context
    ///
    /// May sleep.
    fn set_queue_affinity(&self, _queue: &Virtqueue, _cpus: Option<&Cpumask>) -> Result {
        Err(EINVAL)
    }

    /// The CPUs that the interrupt of a queue alone was spread to; null if there is no such thing.
    /// What it points to exists as long as the queue.
    ///
    /// # Context
    ///
    /// May sleep.
    fn queue_affinity(&self, _index: u32) -> *const Cpumask {
        core::ptr::null()
    }

    /// Takes one queue back from the device (`VIRTIO_F_RING_RESET`; Virtio 1.4, 2.6.1). No callback
    /// of the queue runs when it returns.
    ///
    /// # Errors
    ///
    /// `ENOENT` if this was not negotiated. With any error the device still has the queue.
    ///
    /// # Context
    ///
    /// May sleep.
    fn reset_queue(&self, _dev: &Device, _queue: &Virtqueue) -> Result {
        Err(ENOENT)
    }

    /// The device may have used buffers of a queue that the transport made for itself
    /// ([`ring::Own`]).
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    fn own_queue_used(&self) {}

    /// Gives a queue that was reset, and whose size may have changed, to the device again.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it was not reset.
    ///
    /// # Context
    ///
    /// May sleep.
    fn restart_queue(&self, _dev: &Device, _queue: &Virtqueue) -> Result {
        Err(ENOENT)
    }
}

/// A transport that does something of its own to notify a device.
pub trait Notify: Transport {
    /// Notifies the device of available buffers in a queue.
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    fn notify(&self, queue: &Virtqueue);

    /// As [`Self::notify`], with `VIRTIO_F_NOTIFICATION_DATA` (Virtio 1.4, 2.9): `data` is what
    /// the device gets.
    fn notify_with_data(&self, queue: &Virtqueue, data: u32);
}

/// Memory that driver and device share (Virtio 1.4, 2.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedMemory {
    /// Physical address, in bytes.
    pub address: u64,
    /// Length, in bytes.
    pub length: u64,
}

/// What kind of device it is (Virtio 1.4, 5), and whose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Device type; 0 is none.
    pub device: u32,
    /// Vendor, as the bus of the machine numbers them.
    pub vendor: u32,
}

/// The virtio device of a transport.
///
/// # Invariants
///
/// Represents a `struct virtio_device` that a [`Registration`] made, with a nonzero reference
/// count, which was given to `register_virtio_device()`.
#[repr(transparent)]
pub struct Device(Opaque<bindings::virtio_device>);

/// A [`Device`] of which it is known that its transport is `T`.
///
/// # Invariants
///
/// The device is that of a [`Registration`] for `T`.
#[repr(transparent)]
pub struct DeviceOf<T>(Device, PhantomData<fn(T)>);

impl<T> Deref for DeviceOf<T> {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.0
    }
}

impl Device {
    /// The negotiated features; before negotiation is complete, those still under consideration.
    pub fn features(&self) -> Features {
        // SAFETY: By the type invariant. Both members of the union are plain words, which change
        // only during probe and restore.
        Features::from_words(unsafe { (*self.0.get()).__bindgen_anon_1.features_array })
    }

    /// Tells whether a feature was negotiated.
    pub fn has(&self, feature: FeatureBit) -> bool {
        self.features().has(feature)
    }

    fn set_features(&self, features: Features) {
        // SAFETY: By the type invariant; called by the core during negotiation only, when nothing
        // else uses the features.
        unsafe { (*self.0.get()).__bindgen_anon_1.features_array = features.words() };
    }

    /// Tells the driver that the configuration changed, perhaps.
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    #[inline]
    pub fn config_changed(&self) {
        // SAFETY: By the type invariant the device was registered, so its lock is initialised.
        unsafe { bindings::virtio_config_changed(self.0.get()) };
    }
}

impl AsRef<device::Device> for Device {
    fn as_ref(&self) -> &device::Device {
        // SAFETY: By the type invariant the pointer is valid and `dev` is inside the structure.
        let dev = unsafe { addr_of_mut!((*self.0.get()).dev) };

        // SAFETY: `dev` points to a valid `struct device` that lives as long as `self`.
        unsafe { device::Device::from_raw(dev) }
    }
}

// SAFETY: The structure is freed when the last reference to its `struct device` is put.
unsafe impl AlwaysRefCounted for Device {
    fn inc_ref(&self) {
        // SAFETY: By the type invariant the count is not zero.
        unsafe { bindings::get_device(addr_of_mut!((*self.0.get()).dev)) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: By the requirements of this function the caller owns a reference.
        unsafe { bindings::put_device(addr_of_mut!((*obj.as_ref().0.get()).dev)) };
    }
}

// SAFETY: A `struct virtio_device` can be released from any thread.
unsafe impl Send for Device {}

// SAFETY: The methods are either read-only or calls that the core serialises.
unsafe impl Sync for Device {}
