// SPDX-License-Identifier: GPL-2.0

//! A transport's device on the virtio bus.
//!
//! Owns the memory of `struct virtio_device`, which outlives the transport's part while others
//! hold references to it.

use super::{
    generation::Generation,
    ops::Ops,
    Device,
    DeviceOf,
    Identity,
    Transport, //
};
use crate::virtio::bindings;

use core::{
    marker::PhantomData,
    ptr::{
        addr_of_mut,
        NonNull, //
    }, //
};
use kernel::{
    container_of,
    device,
    error::to_result,
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};
use pin_init::Wrapper;

/// A virtio device and what its transport keeps for it.
///
/// The transport's part exists until the [`Registration`] is dropped, the rest until the last
/// reference to the device is put.
#[pin_data]
#[repr(C)]
pub(super) struct Shell<T> {
    #[pin]
    device: Opaque<bindings::virtio_device>,
    #[pin]
    transport: Opaque<T>,
    generation: Generation,
}

impl<T: Transport> Shell<T> {
    /// The device and the transport's part of it.
    ///
    /// # Safety
    ///
    /// `device` must be that of a `Shell<T>` whose transport's part exists as long as `'a`.
    #[inline(always)]
    pub(super) unsafe fn parts<'a>(
        device: *mut bindings::virtio_device,
    ) -> (&'a DeviceOf<T>, &'a T) {
        // CAST: The device is the first field.
        let shell = device.cast::<Self>();

        // SAFETY: By the requirements above; `DeviceOf` is a transparent wrapper.
        // INVARIANT: It is one of `T`.
        let device = unsafe { &*device.cast::<DeviceOf<T>>() };
        // SAFETY: By the requirements above it is there, and only shared references to it exist.
        let transport = unsafe { &*(*shell).transport.get() };

        (device, transport)
    }

    /// What drivers are told of the generation of the device's configuration.
    ///
    /// # Safety
    ///
    /// `device` must be that of a `Shell<T>` that exists as long as `'a`.
    pub(super) unsafe fn generation<'a>(device: *mut bindings::virtio_device) -> &'a Generation {
        // CAST: The device is the first field.
        let shell = device.cast::<Self>();

        // SAFETY: By the requirements above; there are only shared references to it.
        unsafe { &(*shell).generation }
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

/// The lock of the driver core, without which no driver is bound to a device or unbound.
struct Lock<'a>(&'a Device);

impl<'a> Lock<'a> {
    /// Waits for the lock, and takes it.
    fn new(device: &'a Device) -> Self {
        // SAFETY: By the type invariant of `Device` it was registered, so its mutex is initialised.
        unsafe { bindings::mutex_lock(&raw mut (*device.0.get()).dev.mutex) };
        Self(device)
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // SAFETY: Whoever made it has the lock.
        unsafe { bindings::mutex_unlock(&raw mut (*self.0 .0.get()).dev.mutex) };
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
                generation: Generation::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        // SAFETY: It does not move until `Shell::release` frees it.
        let shell = NonNull::from(KBox::leak(unsafe { Pin::into_inner_unchecked(shell) }));
        // SAFETY: The pointer is to the shell made above.
        let device = unsafe { shell.as_ref() }.device.get();

        // SAFETY: The transport's part was made above.
        let has_config = unsafe { &*shell.as_ref().transport.get() }.has_config();

        // SAFETY: Nothing else has the structure yet, which is all zeroes.
        unsafe {
            (*device).dev.parent = parent;
            (*device).dev.release = Some(Shell::<T>::release);
            (*device).config = Ops::<T>::table(has_config);
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

    /// The device as the virtio bus has it.
    pub fn virtio(&self) -> &Device {
        // SAFETY: By the type invariant the device was registered; a transparent wrapper.
        unsafe { &*self.device().cast::<Device>() }
    }

    /// The device.
    fn device(&self) -> *mut bindings::virtio_device {
        // SAFETY: By the type invariant.
        unsafe { self.shell.as_ref() }.device.get()
    }

    /// Keeps drivers from being bound to the device, and from being unbound, until
    /// [`Self::unlock_driver`].
    ///
    /// # Context
    ///
    /// May sleep.
    ///
    /// # Safety
    ///
    /// The same thread must call [`Self::unlock_driver`] before this is dropped.
    pub unsafe fn lock_driver(&self) {
        core::mem::forget(Lock::new(self.virtio()));
    }

    /// Undoes [`Self::lock_driver`].
    ///
    /// # Safety
    ///
    /// The same thread must have called [`Self::lock_driver`], once for each call of this.
    pub unsafe fn unlock_driver(&self) {
        drop(Lock(self.virtio()));
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
        let _lock = Lock::new(self.virtio());

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
        let _lock = Lock::new(self.virtio());

        // SAFETY: By the type invariant the device is registered.
        to_result(unsafe { bindings::virtio_device_restore(self.device()) })
    }

    /// The bus of the machine is about to reset the device: lets the driver give its queues up.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the driver cannot do that, else that of the driver.
    ///
    /// # Context
    ///
    /// May sleep; the driver is locked ([`Self::lock_driver`]).
    pub fn prepare_reset(&self) -> Result {
        // SAFETY: By the type invariant the device is registered.
        to_result(unsafe { bindings::virtio_device_reset_prepare(self.device()) })
    }

    /// The bus of the machine has reset the device: negotiates its features anew and lets the
    /// driver make its queues.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the driver cannot do that, else that of the driver or of the negotiation.
    ///
    /// # Context
    ///
    /// As for [`Self::prepare_reset`].
    pub fn finish_reset(&self) -> Result {
        // SAFETY: By the type invariant the device is registered.
        to_result(unsafe { bindings::virtio_device_reset_done(self.device()) })
    }

    /// The device is gone: no queue works any more, so that drivers give up what they wait for.
    ///
    /// # Context
    ///
    /// Any.
    pub fn break_queues(&self) {
        // SAFETY: By the type invariant the device is registered.
        unsafe { bindings::virtio_break_device(self.device()) };
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

// Nothing in it is pinned: the device is on the heap.
impl<T: Transport> Unpin for Registration<'_, T> {}

// SAFETY: A device can be used and unregistered from any thread; `T` is `Send` and `Sync`.
unsafe impl<T: Transport> Send for Registration<'_, T> {}

// SAFETY: As above.
unsafe impl<T: Transport> Sync for Registration<'_, T> {}
