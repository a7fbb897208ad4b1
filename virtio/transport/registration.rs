// SPDX-License-Identifier: GPL-2.0

//! A transport's device on the virtio bus.
//!
//! Owns the memory of `struct virtio_device`, which outlives the transport's part while others
//! hold references to it.

use super::{
    generation::Generation,
    ops::Ops,
    reset,
    Device,
    DeviceOf,
    Identity,
    Transport, //
};
use crate::{
    kernel_ext::delayed_work::DelayedWork,
    virtio::{
        bindings,
        reset::state::{
            Answer,
            Reset,
            State, //
        }, //
    }, //
};

use core::{
    marker::PhantomData,
    ptr::{
        addr_of_mut,
        NonNull, //
    }, //
};
use kernel::{
    container_of,
    dev_err,
    dev_info,
    device,
    error::to_result,
    new_mutex,
    prelude::*,
    static_lock_class,
    sync::{
        aref::ARef,
        Mutex, //
    },
    time::Msecs,
    types::Opaque, //
};
use pin_init::Wrapper;

/// How often to look whether a device that is slow to reset is ready, in milliseconds.
const INTERVAL: Msecs = 250;

/// How far a device has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not reset yet; `struct virtio_device` is not initialised.
    Waiting,
    /// It is on the virtio bus.
    Registered,
    /// The core did not take it, but has initialised it.
    Refused,
}

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
    reset: Reset,
    /// Changes only while somebody has the lock of the parent.
    #[pin]
    stage: Mutex<Stage>,
    #[pin]
    late: DelayedWork,
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

    /// What is known of the device's reset.
    ///
    /// # Safety
    ///
    /// As for [`Self::generation`].
    pub(super) unsafe fn reset<'a>(device: *mut bindings::virtio_device) -> &'a Reset {
        // CAST: The device is the first field.
        let shell = device.cast::<Self>();

        // SAFETY: By the requirements above; there are only shared references to it.
        unsafe { &(*shell).reset }
    }

    /// Registers the device, which has reset. The parent is locked.
    ///
    /// # Errors
    ///
    /// That of `register_virtio_device()`.
    fn register(&self) -> Result {
        // SAFETY: The structure is as the core wants it, and lives until it is released.
        let registered = to_result(unsafe { bindings::register_virtio_device(self.device.get()) });

        *self.stage.lock() = match registered {
            Ok(()) => Stage::Registered,
            Err(_) => Stage::Refused,
        };
        registered
    }

    /// Looks again at a device that had not reset when it was found.
    ///
    /// # Safety
    ///
    /// `late` must be that of a `Shell<T>` whose transport's part exists.
    unsafe fn look_again(late: &DelayedWork) {
        // SAFETY: By the requirements above.
        let shell = unsafe { &*container_of!(core::ptr::from_ref(late), Self, late) };
        // SAFETY: By the requirements above it is there, and only shared references to it exist.
        let transport = unsafe { &*shell.transport.get() };
        // SAFETY: `Registration::new` set the parent, which is bound until the work is cancelled.
        let parent: &device::Device =
            unsafe { device::Device::from_raw((*shell.device.get()).dev.parent) };
        // Whoever has it resets the device by the bus, puts it to sleep, or takes the driver away
        // and waits for the end of this.
        let Some(_lock) = Lock::try_new(parent) else {
            late.queue_freezable(INTERVAL);
            return;
        };

        match reset::look(transport) {
            Answer::Busy => late.queue_freezable(INTERVAL),
            Answer::Done => {
                dev_info!(parent, "the device has reset, and is registered now\n");
                if let Err(error) = shell.register() {
                    dev_err!(
                        parent,
                        "the device is not registered: {}\n",
                        error.to_errno()
                    );
                }
            }
            Answer::Gone => dev_err!(parent, "the device is gone\n"),
            Answer::Refused => dev_err!(parent, "the device does not reset\n"),
        }
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

/// A lock of the driver core: without that of a device, no driver is bound to it or unbound.
struct Lock(NonNull<bindings::device>);

impl Lock {
    /// Waits for the lock of a virtio device, and takes it.
    fn new(device: &Device) -> Self {
        // SAFETY: By the type invariant of `Device`; only an address is formed.
        let dev = unsafe { &raw mut (*device.0.get()).dev };

        // SAFETY: By the type invariant of `Device` it was registered, so its mutex is initialised.
        unsafe { bindings::mutex_lock(&raw mut (*dev).mutex) };
        Self::taken(dev)
    }

    /// Takes the lock of a device unless somebody has it.
    fn try_new(dev: &device::Device) -> Option<Self> {
        // CAST: `device::Device` is a transparent wrapper.
        let dev: *mut bindings::device = core::ptr::from_ref(dev).cast_mut().cast();
        // SAFETY: A device that exists as a reference has an initialised mutex.
        let taken = unsafe { bindings::mutex_trylock(&raw mut (*dev).mutex) };

        // Not made before it is known, since dropping it unlocks.
        (taken != 0).then(|| Self::taken(dev))
    }

    /// The lock of a device, which this thread has.
    fn taken(dev: *mut bindings::device) -> Self {
        // SAFETY: All callers have it from a reference.
        Self(unsafe { NonNull::new_unchecked(dev) })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: Whoever made it has the lock, and keeps the device.
        unsafe { bindings::mutex_unlock(&raw mut (*self.0.as_ptr()).mutex) };
    }
}

/// A device on the virtio bus, or on its way there; dropping it takes the device off the bus, away
/// from its driver.
///
/// # Invariants
///
/// The pointer is to a `Shell<T>` whose transport's part exists. If its device is registered this
/// owns a reference to it, else all of it.
pub struct Registration<'bound, T: Transport> {
    shell: NonNull<Shell<T>>,
    _bound: PhantomData<(&'bound (), T)>,
}

impl<'bound, T: Transport + 'bound> Registration<'bound, T> {
    /// Puts a device that is behind `parent` on the virtio bus; its driver may be bound at once.
    ///
    /// The device is reset first. One that takes more than a second for that is registered as soon
    /// as it has, and the caller is not held up.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, that of `transport`, or that of `register_virtio_device()`; `ENODEV` if the device
    /// is gone, `EIO` if it does not reset.
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
        // SAFETY: `drop` cancels the work before anything of the shell goes.
        let late = unsafe {
            DelayedWork::new(
                Shell::<T>::look_again,
                c"virtio_reset",
                static_lock_class!(),
                static_lock_class!(),
            )
        };
        let shell = KBox::pin_init(
            try_pin_init!(Shell {
                device: Opaque::zeroed(),
                transport <- Opaque::pin_init(transport),
                generation: Generation::new(),
                reset: Reset::new(),
                stage <- new_mutex!(Stage::Waiting),
                late <- late,
            }? Error),
            GFP_KERNEL,
        )?;
        // SAFETY: It does not move until it is freed.
        let shell = NonNull::from(KBox::leak(unsafe { Pin::into_inner_unchecked(shell) }));
        // INVARIANT: Made above, and nobody else has it.
        let this = Self {
            shell,
            _bound: PhantomData,
        };
        let device = this.device();
        let has_config = this.transport().has_config();

        // SAFETY: Nothing else has the structure yet, which is all zeroes.
        unsafe {
            // CAST: `device::Device` is a transparent wrapper.
            (*device).dev.parent = core::ptr::from_ref(parent).cast_mut().cast();
            (*device).dev.release = Some(Shell::<T>::release);
            (*device).config = Ops::<T>::table(has_config);
            (*device).id.device = identity.device;
            (*device).id.vendor = identity.vendor;
        }
        this.begin(parent)?;
        Ok(this)
    }

    /// Resets the device, and registers it then or later.
    fn begin(&self, parent: &device::Device) -> Result {
        let shell = self.shell();
        let asked = reset::ask(&shell.reset, self.transport());

        match reset::first(self.transport(), asked) {
            // The core finds that it was reset.
            Answer::Done => shell.register(),
            Answer::Busy => {
                dev_info!(
                    parent,
                    "the device has not reset yet, it is registered when it has\n"
                );
                shell.late.queue_freezable(INTERVAL);
                Ok(())
            }
            Answer::Gone => {
                dev_err!(parent, "the device is gone\n");
                Err(ENODEV)
            }
            Answer::Refused => {
                dev_err!(parent, "the device does not reset\n");
                Err(EIO)
            }
        }
    }

    /// Does something to a device that is on the bus.
    fn on_bus<R>(&self, step: impl FnOnce(*mut bindings::virtio_device) -> R) -> Option<R> {
        let stage = *self.shell().stage.lock();

        (stage == Stage::Registered).then(|| step(self.device()))
    }

    /// What this owns.
    fn shell(&self) -> &Shell<T> {
        // SAFETY: By the type invariant; nobody has a mutable reference.
        unsafe { self.shell.as_ref() }
    }

    /// The transport's part.
    pub fn transport(&self) -> &T {
        // SAFETY: By the type invariant it is there.
        unsafe { &*self.shell().transport.get() }
    }

    /// The device as the virtio bus has it, once it has it.
    pub fn virtio(&self) -> Option<&Device> {
        // SAFETY: The device is registered until this is dropped; a transparent wrapper.
        self.on_bus(|device| unsafe { &*device.cast::<Device>() })
    }

    /// The device.
    fn device(&self) -> *mut bindings::virtio_device {
        self.shell().device.get()
    }

    /// Keeps drivers from being bound to the device, and from being unbound, until
    /// [`Self::unlock_driver`].
    ///
    /// # Context
    ///
    /// May sleep; the parent is locked.
    ///
    /// # Safety
    ///
    /// The same thread must call [`Self::unlock_driver`] before this is dropped and before it
    /// unlocks the parent.
    pub unsafe fn lock_driver(&self) {
        core::mem::forget(self.virtio().map(Lock::new));
    }

    /// Undoes [`Self::lock_driver`].
    ///
    /// # Safety
    ///
    /// The same thread must have called [`Self::lock_driver`], once for each call of this.
    pub unsafe fn unlock_driver(&self) {
        // SAFETY: The device is registered, and was when it was locked: the parent is locked since.
        drop(self.on_bus(|device| Lock::taken(unsafe { &raw mut (*device).dev })));
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
        let _lock = self.virtio().map(Lock::new);

        // SAFETY: The device is registered.
        self.on_bus(|device| to_result(unsafe { bindings::virtio_device_freeze(device) }))
            .unwrap_or(Ok(()))
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
        let _lock = self.virtio().map(Lock::new);

        // SAFETY: The device is registered.
        self.on_bus(|device| to_result(unsafe { bindings::virtio_device_restore(device) }))
            .unwrap_or_else(|| {
                // It may be another one than before.
                reset::ask(&self.shell().reset, self.transport());
                Ok(())
            })
    }

    /// The bus of the machine is about to reset the device: lets the driver give its queues up.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the driver cannot do that, or there is none yet, else that of the driver.
    ///
    /// # Context
    ///
    /// May sleep; the driver is locked ([`Self::lock_driver`]).
    pub fn prepare_reset(&self) -> Result {
        // SAFETY: The device is registered.
        self.on_bus(|device| to_result(unsafe { bindings::virtio_device_reset_prepare(device) }))
            .unwrap_or(Err(EOPNOTSUPP))
    }

    /// The bus of the machine has reset the device: negotiates its features anew and lets the
    /// driver make its queues.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the driver cannot do that, or there is none yet, else that of the driver or
    /// of the negotiation.
    ///
    /// # Context
    ///
    /// As for [`Self::prepare_reset`].
    pub fn finish_reset(&self) -> Result {
        // SAFETY: The device is registered.
        self.on_bus(|device| to_result(unsafe { bindings::virtio_device_reset_done(device) }))
            .unwrap_or(Err(EOPNOTSUPP))
    }

    /// The device is gone: no queue works any more, so that drivers give up what they wait for.
    ///
    /// # Context
    ///
    /// May sleep; serialised with all else that is done to the device.
    pub fn give_up(&self) {
        self.shell().reset.gone();
        // SAFETY: The device is registered.
        self.on_bus(|device| unsafe { bindings::virtio_break_device(device) });
        // SAFETY: What is not there uses no memory.
        unsafe { self.transport().reset_is_over(true) };
    }

    /// Tells whether the device must not reach memory, since it does not reset.
    pub fn is_fenced(&self) -> bool {
        self.shell().reset.state() == State::Fenced
    }
}

impl<T: Transport> Drop for Registration<'_, T> {
    fn drop(&mut self) {
        let shell = self.shell.as_ptr();
        // SAFETY: By the type invariant.
        let device = unsafe { (*shell).device.get() };

        // SAFETY: By the type invariant. Nothing changes the stage any more after this.
        unsafe { (*shell).late.cancel() };
        // SAFETY: By the type invariant.
        let stage = *unsafe { (*shell).stage.lock() };

        if stage == Stage::Registered {
            // The transport's part has to go when the device is off the bus but still exists.
            // SAFETY: The device is registered, hence a `Device`.
            let reference = ARef::from(unsafe { &*device.cast::<Device>() });

            // SAFETY: The device is registered; this puts the reference owned.
            unsafe { bindings::unregister_virtio_device(device) };
            // SAFETY: `reference` keeps the memory, and the core calls no operation any more.
            unsafe { core::ptr::drop_in_place((*shell).transport.get()) };
            drop(reference);
            return;
        }
        // SAFETY: By the type invariant it is there. The core calls no operation of a device that
        // is not registered.
        unsafe { core::ptr::drop_in_place((*shell).transport.get()) };
        match stage {
            // SAFETY: `new` made a box of it, of which the core knows nothing.
            Stage::Waiting => drop(unsafe { KBox::from_raw(shell) }),
            // SAFETY: The core has initialised the device, and this owns the reference.
            _ => unsafe { bindings::put_device(addr_of_mut!((*device).dev)) },
        }
    }
}

// Nothing in it is pinned: the device is on the heap.
impl<T: Transport> Unpin for Registration<'_, T> {}

// SAFETY: A device can be used and unregistered from any thread; `T` is `Send` and `Sync`.
unsafe impl<T: Transport> Send for Registration<'_, T> {}

// SAFETY: Through a reference only functions are called that the lock of the parent serialises, or
// that any thread may call.
unsafe impl<T: Transport> Sync for Registration<'_, T> {}
