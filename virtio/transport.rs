// SPDX-License-Identifier: GPL-2.0

//! Virtio devices for the core: what PCI, MMIO and other transports have in common.
//!
//! A transport finds devices on a bus of the machine, implements [`Transport`] for one of them, and
//! puts it on the virtio bus with a [`Registration`]. From then on the core and the drivers reach
//! it through `struct virtio_config_ops` of `include/linux/virtio_config.h`, whose functions are
//! here; they say when they may be called and how the calls are serialised.
//!
//! Owns the memory of `struct virtio_device`, which outlives the transport's part while others
//! hold references to it. Rings are made with [`ring`].

pub mod ring;

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
    ptr::{
        addr_of_mut,
        NonNull, //
    },
    slice,
};
use kernel::{
    container_of,
    device,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque,
    warn_on, //
};
use pin_init::Wrapper;

/// What a transport does for one device.
#[vtable]
pub trait Transport: Send + Sync {
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
    fn generation(&self) -> u32;

    /// The device status (Virtio 1.4, 2.1).
    fn status(&self) -> u8;

    /// Sets bits of the device status; never 0, which would reset the device.
    fn set_status(&self, status: u8);

    /// Resets the device and waits until it has done so, or until it is clear that it does not.
    ///
    /// # Context
    ///
    /// May sleep.
    fn reset(&self);

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
    /// May sleep. Never in parallel with itself, [`Self::delete_queues`] or [`Self::reset`].
    fn make_queues(&self, dev: &Device, wanted: &mut Wanted<'_>) -> Result;

    /// Deletes the virtqueues. The device has been reset, or was never live.
    ///
    /// # Context
    ///
    /// May sleep.
    fn delete_queues(&self);

    /// Notifies the device of available buffers in a queue.
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    fn notify(&self, queue: &Virtqueue);

    /// As [`Self::notify`], with `VIRTIO_F_NOTIFICATION_DATA` (Virtio 1.4, 2.9): `data` is what
    /// the device gets.
    fn notify_with_data(&self, queue: &Virtqueue, data: u32);

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
/// Represents a `struct virtio_device` inside a [`Shell`] with a nonzero reference count, which
/// was given to `register_virtio_device()`.
#[repr(transparent)]
pub struct Device(Opaque<bindings::virtio_device>);

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

/// A virtio device and what its transport keeps for it.
///
/// The transport's part exists until the [`Registration`] is dropped, the rest until the last
/// reference to the device is put.
#[pin_data]
#[repr(C)]
struct Shell<T> {
    #[pin]
    device: Opaque<bindings::virtio_device>,
    #[pin]
    transport: Opaque<T>,
}

impl<T: Transport> Shell<T> {
    /// # Safety
    ///
    /// `device` must be that of a `Shell<T>` whose transport's part exists as long as `'a`.
    #[inline(always)]
    unsafe fn parts<'a>(device: *mut bindings::virtio_device) -> (&'a Device, &'a T) {
        // CAST: The device is the first field.
        let shell = device.cast::<Self>();

        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let device = unsafe { &*device.cast::<Device>() };
        // SAFETY: By the requirements above it is there, and only shared references to it exist.
        let transport = unsafe { &*(*shell).transport.get() };

        (device, transport)
    }

    /// # Safety
    ///
    /// Called only by the driver core, when the last reference to the device is put.
    unsafe extern "C" fn release(dev: *mut bindings::device) {
        // SAFETY: By the requirements above it is the `struct device` of a virtio device.
        let device = unsafe { container_of!(dev, bindings::virtio_device, dev) };

        // SAFETY: `Registration::new` made a box of it, and nothing uses it any more. The
        // transport's part, which `Opaque` does not drop, is gone.
        drop(unsafe { KBox::from_raw(device.cast::<Self>()) });
    }
}

/// A device on the virtio bus; dropping it takes the device off the bus, away from its driver.
///
/// # Invariants
///
/// The pointer is to a `Shell<T>` whose transport's part exists. Its device was registered, and
/// this owns a reference to it.
pub struct Registration<'bound, T: Transport> {
    shell: NonNull<Shell<T>>,
    _bound: PhantomData<(&'bound (), T)>,
}

impl<'bound, T: Transport + 'bound> Registration<'bound, T> {
    /// Puts a device that is behind `parent` on the virtio bus; its driver may be bound at once.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, that of `transport`, or that of `register_virtio_device()`.
    ///
    /// # Context
    ///
    /// May sleep.
    ///
    /// # Safety
    ///
    /// The result must be dropped before `'bound` ends: it must not be forgotten.
    pub unsafe fn new(
        parent: &'bound device::Device<device::Bound>,
        identity: Identity,
        transport: impl PinInit<T, Error>,
    ) -> Result<Self> {
        // CAST: `device::Device` is a transparent wrapper.
        let parent = core::ptr::from_ref(parent).cast_mut().cast();
        let shell = KBox::pin_init(
            try_pin_init!(Shell {
                device: Opaque::zeroed(),
                transport <- Opaque::pin_init(transport),
            }? Error),
            GFP_KERNEL,
        )?;
        // SAFETY: It does not move until `Shell::release` frees it.
        let shell = NonNull::from(KBox::leak(unsafe { Pin::into_inner_unchecked(shell) }));
        // SAFETY: The pointer is to the shell made above.
        let device = unsafe { shell.as_ref() }.device.get();

        // SAFETY: Nothing else has the structure yet, which is all zeroes.
        unsafe {
            (*device).dev.parent = parent;
            (*device).dev.release = Some(Shell::<T>::release);
            (*device).config = &Ops::<T>::TABLE;
            (*device).id.device = identity.device;
            (*device).id.vendor = identity.vendor;
        }
        // SAFETY: The structure is as the core wants it, and lives until it is released.
        let registered = to_result(unsafe { bindings::register_virtio_device(device) });
        // INVARIANT: `register_virtio_device()` initialises the reference count first.
        let this = Self {
            shell,
            _bound: PhantomData,
        };

        if let Err(error) = registered {
            this.put();
            return Err(error);
        }
        Ok(this)
    }

    /// Gives the reference and the transport's part up. The device is not on the bus.
    fn put(self) {
        let shell = core::mem::ManuallyDrop::new(self).shell.as_ptr();

        // SAFETY: By the type invariant it is there. The core calls no operation of a device that
        // is not registered, so this is the last use.
        unsafe { core::ptr::drop_in_place((*shell).transport.get()) };
        // SAFETY: By the type invariant this owns the reference.
        unsafe { bindings::put_device(addr_of_mut!((*(*shell).device.get()).dev)) };
    }

    /// The transport's part.
    pub fn transport(&self) -> &T {
        // SAFETY: By the type invariant it is there.
        unsafe { &*self.shell.as_ref().transport.get() }
    }

    /// The device.
    #[cfg(CONFIG_PM_SLEEP)]
    fn device(&self) -> *mut bindings::virtio_device {
        // SAFETY: By the type invariant.
        unsafe { self.shell.as_ref() }.device.get()
    }

    /// System sleep is about to take the device away: lets the driver give its queues up.
    ///
    /// # Errors
    ///
    /// That of the driver, which vetoes the transition.
    ///
    /// # Context
    ///
    /// A callback of the PM core that may sleep.
    #[cfg(CONFIG_PM_SLEEP)]
    pub fn freeze(&self) -> Result {
        // SAFETY: By the type invariant the device is registered.
        to_result(unsafe { bindings::virtio_device_freeze(self.device()) })
    }

    /// The device is there again: resets it, negotiates its features anew and lets the driver make
    /// its queues.
    ///
    /// # Errors
    ///
    /// That of the driver or of the negotiation; the device is left failed.
    ///
    /// # Context
    ///
    /// As for [`Self::freeze`].
    #[cfg(CONFIG_PM_SLEEP)]
    pub fn restore(&self) -> Result {
        // SAFETY: By the type invariant the device is registered.
        to_result(unsafe { bindings::virtio_device_restore(self.device()) })
    }
}

impl<T: Transport> Drop for Registration<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        let device = unsafe { self.shell.as_ref() }.device.get();
        // The transport's part has to go when the device is off the bus but still exists.
        // SAFETY: By the type invariant the device is registered, hence a `Device`.
        let reference = ARef::from(unsafe { &*device.cast::<Device>() });

        // SAFETY: By the type invariant; this puts the reference owned.
        unsafe { bindings::unregister_virtio_device(device) };
        // SAFETY: `reference` keeps the memory, and the core calls no operation any more.
        unsafe { core::ptr::drop_in_place(self.shell.as_ref().transport.get()) };
        drop(reference);
    }
}

// SAFETY: A device can be used and unregistered from any thread; `T` is `Send` and `Sync`.
unsafe impl<T: Transport> Send for Registration<'_, T> {}

// SAFETY: As above.
unsafe impl<T: Transport> Sync for Registration<'_, T> {}

/// The functions of `struct virtio_config_ops` for a transport. All are called with a device of
/// it that is registered, or being so, and with arguments as the C header wants them.
struct Ops<T>(PhantomData<T>);

#[expect(
    clippy::missing_safety_doc,
    reason = "the contract is that of the C header, for all of them"
)]
impl<T: Transport> Ops<T> {
    const TABLE: bindings::virtio_config_ops = bindings::virtio_config_ops {
        get: Some(Self::get),
        set: Some(Self::set),
        generation: Some(Self::generation),
        get_status: Some(Self::get_status),
        set_status: Some(Self::set_status),
        reset: Some(Self::reset),
        find_vqs: Some(Self::find_vqs),
        del_vqs: Some(Self::del_vqs),
        synchronize_cbs: Some(Self::synchronize_cbs),
        get_features: Some(Self::get_features),
        finalize_features: Some(Self::finalize_features),
        bus_name: Some(Self::bus_name),
        get_shm_region: Some(Self::get_shm_region),
        disable_vq_and_reset: match T::HAS_RESET_QUEUE {
            true => Some(Self::disable_vq_and_reset),
            false => None,
        },
        enable_vq_after_reset: match T::HAS_RESTART_QUEUE {
            true => Some(Self::enable_vq_after_reset),
            false => None,
        },
        ..pin_init::zeroed()
    };

    /// The transport of a device.
    ///
    /// # Safety
    ///
    /// As for all functions of this table.
    #[inline(always)]
    unsafe fn of<'a>(vdev: *mut bindings::virtio_device) -> &'a T {
        // SAFETY: The table is only in devices that `Registration::new` made.
        unsafe { Shell::<T>::parts(vdev) }.1
    }

    unsafe extern "C" fn get(
        vdev: *mut bindings::virtio_device,
        offset: c_uint,
        buffer: *mut c_void,
        len: c_uint,
    ) {
        // SAFETY: By the contract of the table `buffer` has room for `len` bytes. They are
        // initialised first, so that a reference to them is allowed.
        let bytes = unsafe {
            buffer.cast::<u8>().write_bytes(0, len as usize);
            slice::from_raw_parts_mut(buffer.cast::<u8>(), len as usize)
        };

        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.read_config(offset as usize, bytes);
    }

    unsafe extern "C" fn set(
        vdev: *mut bindings::virtio_device,
        offset: c_uint,
        buffer: *const c_void,
        len: c_uint,
    ) {
        // SAFETY: By the contract of the table `buffer` has `len` bytes.
        let bytes = unsafe { slice::from_raw_parts(buffer.cast::<u8>(), len as usize) };

        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.write_config(offset as usize, bytes);
    }

    unsafe extern "C" fn generation(vdev: *mut bindings::virtio_device) -> u32 {
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.generation()
    }

    unsafe extern "C" fn get_status(vdev: *mut bindings::virtio_device) -> u8 {
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.status()
    }

    unsafe extern "C" fn set_status(vdev: *mut bindings::virtio_device, status: u8) {
        if warn_on!(status == 0) {
            return;
        }
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.set_status(status);
    }

    unsafe extern "C" fn reset(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.reset();
    }

    unsafe extern "C" fn find_vqs(
        vdev: *mut bindings::virtio_device,
        nvqs: c_uint,
        vqs: *mut *mut bindings::virtqueue,
        infos: *mut bindings::virtqueue_info,
        _affinity: *mut bindings::irq_affinity,
    ) -> c_int {
        // SAFETY: By the contract of the table both arrays have `nvqs` elements.
        let mut wanted = unsafe { Wanted::from_raw(infos, vqs, nvqs as usize) };
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(vdev) };

        from_result(|| transport.make_queues(device, &mut wanted).map(|()| 0))
    }

    unsafe extern "C" fn del_vqs(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.delete_queues();
    }

    unsafe extern "C" fn synchronize_cbs(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.wait_for_callbacks();
    }

    unsafe extern "C" fn get_features(vdev: *mut bindings::virtio_device) -> u64 {
        // SAFETY: By the contract of the table.
        let [low, _] = unsafe { Self::of(vdev) }.offered_features().words();

        low
    }

    unsafe extern "C" fn finalize_features(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(vdev) };
        let own = device.features().intersection(transport.own_features());

        // The ring takes out all bits of transports that it does not know itself.
        // SAFETY: By the contract of the table.
        unsafe { bindings::vring_transport_features(vdev) };
        let features = device.features().union(own);

        device.set_features(features);
        from_result(|| transport.accept_features(device, features).map(|()| 0))
    }

    unsafe extern "C" fn bus_name(vdev: *mut bindings::virtio_device) -> *const c_char {
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.bus_name().as_char_ptr()
    }

    unsafe extern "C" fn get_shm_region(
        vdev: *mut bindings::virtio_device,
        region: *mut bindings::virtio_shm_region,
        id: u8,
    ) -> bool {
        // SAFETY: By the contract of the table.
        let Some(found) = (unsafe { Self::of(vdev) }).shared_memory(id) else {
            return false;
        };

        // SAFETY: By the contract of the table `region` is the caller's.
        unsafe {
            (*region).addr = found.address;
            (*region).len = found.length;
        }
        true
    }

    unsafe extern "C" fn disable_vq_and_reset(vq: *mut bindings::virtqueue) -> c_int {
        // SAFETY: By the contract of the table.
        let queue = unsafe { Virtqueue::from_raw(vq) };
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(queue.device()) };

        from_result(|| {
            transport.reset_queue(device, queue)?;
            queue.set_reset(true);
            Ok(0)
        })
    }

    unsafe extern "C" fn enable_vq_after_reset(vq: *mut bindings::virtqueue) -> c_int {
        // SAFETY: By the contract of the table.
        let queue = unsafe { Virtqueue::from_raw(vq) };
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(queue.device()) };

        from_result(|| {
            if !queue.is_reset() {
                return Err(EBUSY);
            }
            transport.restart_queue(device, queue)?;
            queue.set_reset(false);
            Ok(0)
        })
    }
}
