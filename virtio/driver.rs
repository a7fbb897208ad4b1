// SPDX-License-Identifier: GPL-2.0

//! The driver trait, its registration, and the adapter between the two and the C core.
//!
//! Follows `struct virtio_driver` of `include/linux/virtio.h`; the shape is that of the other buses
//! of the kernel crate (`rust/kernel/driver.rs`).

use super::{
    bindings,
    id::IdTable,
    pm::{
        Phase,
        PmOps, //
    },
    queue::Queues,
    Device, //
};
use crate::{
    config::FeatureBit,
    kernel_ext::kthread, //
};

use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        replace, //
    },
    pin::Pin, //
};
use kernel::{
    device::{
        Bound,
        BoundInternal,
        Core,
        CoreInternal, //
    },
    driver,
    error::{
        from_result,
        to_result, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
    types::Opaque,
    ThisModule, //
};

/// A virtio driver.
///
/// The order of calls for one device is [`validate`](Self::validate), [`probe`](Self::probe), then
/// any of the others while the device is live, and at last [`unbind`](Self::unbind). The driver's
/// data is dropped after that.
///
/// [`thread`](Self::thread) runs beside them in threads of its own that exist from the time the
/// device is live until just before `unbind`.
#[vtable]
pub trait Driver {
    /// The driver's data for one device.
    type Data<'bound>: Send + Sync + 'bound;

    /// The devices that the driver takes.
    const ID_TABLE: IdTable;

    /// The features that the driver can use, beside those of the transport and of the rings.
    const FEATURES: &'static [FeatureBit];

    /// The names of the driver's threads, to which `/<device>` is appended; at most
    /// [`MAX_THREADS`].
    const THREADS: &'static [&'static CStr];

    /// Looks at the features that both sides know, and declines those it must.
    ///
    /// # Errors
    ///
    /// Any error makes the probe fail with it.
    fn validate(dev: &Device<Core<'_>>) -> Result;

    /// Makes the driver's data for a device; the device becomes live afterwards.
    ///
    /// # Context
    ///
    /// May sleep. No buffer will be used before the device is live, so do not wait for one.
    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound;

    /// The work of thread number `which` of [`Self::THREADS`]; returns when
    /// [`kthread::Current::should_stop`] says so.
    ///
    /// # Context
    ///
    /// A thread of its own, may sleep. The PM core freezes it where it waits freezably
    /// ([`WaitQueue`](crate::kernel_ext::wait::WaitQueue)).
    fn thread(
        dev: &Device<Bound>,
        data: Pin<&Self::Data<'_>>,
        current: &kthread::Current,
        which: usize,
    );

    /// Gives the device up. All queues must be gone when it returns.
    ///
    /// # Context
    ///
    /// May sleep; the driver's threads have ended.
    fn unbind(dev: &Device<Core<'_>>, data: Pin<&Self::Data<'_>>);

    /// Makes the device stop, for a reboot, a power-off or a new kernel.
    ///
    /// # Context
    ///
    /// May sleep; the driver's threads may be frozen, so do not wait for them.
    fn shutdown(dev: &Device<Core<'_>>, data: Pin<&Self::Data<'_>>);

    /// The device configuration changed, perhaps.
    ///
    /// # Context
    ///
    /// Interrupt; must not sleep.
    fn config_changed(dev: &Device<Bound>, data: Pin<&Self::Data<'_>>);

    /// The device used a buffer, perhaps; `place` is where the queue's name is in the list that
    /// was given to [`Queues::new`](super::queue::Queues::new).
    ///
    /// # Context
    ///
    /// Interrupt; must not sleep.
    fn notified(dev: &Device<Bound>, data: Pin<&Self::Data<'_>>, place: usize);

    /// The transport is about to lose the device: delete the queues.
    ///
    /// # Errors
    ///
    /// Any error vetoes the transition.
    ///
    /// # Context
    ///
    /// May sleep; must not wait for the device or for a frozen thread.
    fn freeze(dev: &Device<Core<'_>>, data: Pin<&Self::Data<'_>>) -> Result;

    /// The transport has the device again, reset and with features negotiated: re-create the
    /// queues. The device becomes live afterwards.
    ///
    /// # Errors
    ///
    /// Any error leaves the device failed, as after a failed probe.
    ///
    /// # Context
    ///
    /// As for [`Self::freeze`].
    fn restore(dev: &Device<Core<'_>>, data: Pin<&Self::Data<'_>>) -> Result;

    /// A system sleep transition takes a step; see [`Phase`] for the order.
    ///
    /// # Errors
    ///
    /// Any error vetoes the transition where it still can be.
    ///
    /// # Context
    ///
    /// May sleep, except in the `Noirq` phases, where nothing may be waited for.
    fn sleep(dev: &Device<Core<'_>>, data: Pin<&Self::Data<'_>>, phase: Phase) -> Result;
}

/// The most threads that a driver can have.
pub const MAX_THREADS: usize = 2;

/// What a bound device carries: the driver's data and its threads.
#[pin_data]
pub struct Bundle<D> {
    #[pin]
    data: D,
    #[pin]
    threads: Mutex<KVec<kthread::Thread>>,
}

impl<D> Bundle<D> {
    /// The driver's data.
    fn data(self: Pin<&Self>) -> Pin<&D> {
        // SAFETY: `data` is structurally pinned.
        unsafe { self.map_unchecked(|bundle| &bundle.data) }
    }
}

/// Connects the C core and a [`Driver`].
pub struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY:
// - `struct virtio_driver` is `repr(C)` and embeds a `struct device_driver` at the given offset.
// - `Bundle` is what `probe_callback` stores as the private data of the device.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = Bundle<T::Data<'bound>>;
    const DEVICE_DRIVER_OFFSET: usize = offset_of!(Self::DriverType, driver);
}

// SAFETY: `unregister` undoes a successful `register` of the same structure.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let features = u32::try_from(T::FEATURES.len())?;

        // SAFETY: The structure is not registered yet, so its fields may be set.
        unsafe {
            let drv = &mut *reg.get();

            drv.driver.name = name.as_char_ptr();
            drv.driver.pm = &PmOps::<T>::TABLE;
            drv.id_table = T::ID_TABLE.as_ptr();
            drv.feature_table = T::FEATURES.as_ptr();
            drv.feature_table_size = features;
            drv.validate = Some(Self::validate_callback);
            drv.probe = Some(Self::probe_callback);
            drv.scan = Some(Self::scan_callback);
            drv.remove = Some(Self::remove_callback);
            drv.shutdown = Some(Self::shutdown_callback);
            drv.config_changed = Some(Self::config_changed_callback);
            drv.freeze = Some(Self::freeze_callback);
            drv.restore = Some(Self::restore_callback);
        }

        // SAFETY: The caller keeps the structure pinned until `unregister`.
        to_result(unsafe { bindings::__register_virtio_driver(reg.get(), module.as_ptr()) })
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: Registered before, by the requirements of this function.
        unsafe { bindings::unregister_virtio_driver(reg.get()) }
    }
}

impl<T: Driver> Adapter<T> {
    /// # Safety
    ///
    /// `vdev` must be a virtio device this driver is bound to, for as long as `'a`, and the call
    /// must be inside a bus callback for it.
    unsafe fn core<'a>(
        vdev: *mut bindings::virtio_device,
    ) -> (&'a Device<CoreInternal<'a>>, Pin<&'a Bundle<T::Data<'a>>>) {
        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let dev = unsafe { &*vdev.cast::<Device<CoreInternal<'a>>>() };

        // SAFETY: `probe_callback` stored a `Bundle`, which lives until the driver is unbound.
        let bundle = unsafe { dev.as_ref().drvdata_borrow::<Bundle<T::Data<'a>>>() };

        (dev, bundle)
    }

    /// # Safety
    ///
    /// `vdev` must be a virtio device whose driver is this one, from the creation of its queues to
    /// their deletion, which both happen while it is bound.
    unsafe fn with_bound(
        vdev: *mut bindings::virtio_device,
        f: impl FnOnce(&Device<Bound>, Pin<&T::Data<'_>>),
    ) {
        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let dev = unsafe { &*vdev.cast::<Device<BoundInternal>>() };

        // A device that notifies before it is live finds no data yet.
        // SAFETY: The pointer is valid; the data pointer is only ever NULL or complete.
        if unsafe { (*vdev).dev.driver_data.is_null() } {
            return;
        }
        // SAFETY: `probe_callback` stored a `Bundle`, which lives until the queues are gone.
        let bundle = unsafe { dev.as_ref().drvdata_borrow::<Bundle<T::Data<'_>>>() };

        f(dev, bundle.data());
    }

    /// # Safety
    ///
    /// Called only by the virtio core, with a device that it matched with this driver.
    unsafe extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let dev = unsafe { &*vdev.cast::<Device<CoreInternal<'_>>>() };

        from_result(|| T::validate(dev).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::validate_callback`].
    unsafe extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let dev = unsafe { &*vdev.cast::<Device<CoreInternal<'_>>>() };

        from_result(|| {
            dev.as_ref().set_drvdata(try_pin_init!(Bundle {
                data <- T::probe(dev),
                threads <- new_mutex!(KVec::new()),
            }? Error))?;

            // SAFETY: The data was stored just now.
            let (dev, bundle) = unsafe { Self::core(vdev) };
            let threads = Self::make_threads(dev).inspect_err(|_| T::unbind(dev, bundle.data()))?;

            *bundle.threads.lock() = threads;
            Ok(0)
        })
    }

    /// Creates the driver's threads, which do not run yet.
    fn make_threads(dev: &Device<CoreInternal<'_>>) -> Result<KVec<kthread::Thread>> {
        let mut threads = KVec::with_capacity(T::THREADS.len(), GFP_KERNEL)?;

        for (name, main) in T::THREADS.iter().zip(Self::THREAD_MAIN) {
            // SAFETY: The thread is stopped in `remove_callback`, while the device is still bound,
            // or right here if another one cannot be made.
            let thread = unsafe {
                kthread::Thread::new(main, dev.as_raw().cast(), name, dev.as_ref().name())
            };

            threads.push(thread?, GFP_KERNEL)?;
        }
        Ok(threads)
    }

    /// # Safety
    ///
    /// Called only by the virtio core, after a successful probe, when the device is live.
    unsafe extern "C" fn scan_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements above.
        let (_, bundle) = unsafe { Self::core(vdev) };

        for thread in bundle.threads.lock().iter() {
            thread.start();
        }
    }

    /// # Safety
    ///
    /// Called only as a thread that `make_threads` made, with the device as its argument.
    unsafe extern "C" fn thread_main<const WHICH: usize>(arg: *mut c_void) -> c_int {
        kthread::Current::enter(|current| {
            // SAFETY: `remove_callback` waits for this thread before the driver is unbound.
            unsafe {
                Self::with_bound(arg.cast(), |dev, data| T::thread(dev, data, current, WHICH));
            }
        })
    }

    /// The bodies of the threads, by number.
    const THREAD_MAIN: [unsafe extern "C" fn(*mut c_void) -> c_int; MAX_THREADS] =
        [Self::thread_main::<0>, Self::thread_main::<1>];

    /// # Safety
    ///
    /// Called only by the virtio core, when the driver is unbound from a probed device.
    unsafe extern "C" fn remove_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements above.
        let (dev, bundle) = unsafe { Self::core(vdev) };
        let threads = replace(&mut *bundle.threads.lock(), KVec::new());

        drop(threads);
        T::unbind(dev, bundle.data());
        // Deleting the queues resets a device, but after a failed restore there were none.
        if dev.status() != 0 {
            dev.reset();
        }
    }

    /// # Safety
    ///
    /// Called only by the virtio core, with a device this driver is bound to.
    unsafe extern "C" fn shutdown_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements above.
        let (dev, bundle) = unsafe { Self::core(vdev) };

        T::shutdown(dev, bundle.data());
    }

    /// # Safety
    ///
    /// As for [`Self::shutdown_callback`].
    unsafe extern "C" fn config_changed_callback(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the requirements above.
        unsafe { Self::with_bound(vdev, |dev, data| T::config_changed(dev, data)) }
    }

    /// # Safety
    ///
    /// Called only by a ring, with a queue that was made for a device of this driver.
    unsafe extern "C" fn notified_callback<const PLACE: usize>(vq: *mut bindings::virtqueue) {
        // SAFETY: `vdev` is the device of the queue, which is bound while it has queues.
        unsafe { Self::with_bound((*vq).vdev, |dev, data| T::notified(dev, data, PLACE)) }
    }

    /// The callbacks of the queues, by place.
    pub(super) const NOTIFIED: [unsafe extern "C" fn(*mut bindings::virtqueue); Queues::MAX] = [
        Self::notified_callback::<0>,
        Self::notified_callback::<1>,
        Self::notified_callback::<2>,
        Self::notified_callback::<3>,
        Self::notified_callback::<4>,
        Self::notified_callback::<5>,
        Self::notified_callback::<6>,
        Self::notified_callback::<7>,
    ];

    /// # Safety
    ///
    /// As for [`Self::shutdown_callback`].
    unsafe extern "C" fn freeze_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the requirements above.
        let (dev, bundle) = unsafe { Self::core(vdev) };

        from_result(|| T::freeze(dev, bundle.data()).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::shutdown_callback`].
    unsafe extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the requirements above.
        let (dev, bundle) = unsafe { Self::core(vdev) };

        from_result(|| T::restore(dev, bundle.data()).map(|()| 0))
    }

    /// # Safety
    ///
    /// Called only by the PM core, with the `struct device` of a virtio device this driver is bound
    /// to.
    pub(super) unsafe fn sleep_callback(dev: *mut bindings::device, phase: Phase) -> c_int {
        // SAFETY: By the requirements above `dev` is embedded in a `struct virtio_device`.
        let vdev = unsafe { kernel::container_of!(dev, bindings::virtio_device, dev) };
        // SAFETY: By the requirements above.
        let (dev, bundle) = unsafe { Self::core(vdev) };

        from_result(|| T::sleep(dev, bundle.data(), phase).map(|()| 0))
    }
}

/// Declares a kernel module that exposes a single virtio driver.
macro_rules! module_virtio_driver {
    ($($f:tt)*) => {
        ::kernel::module_driver!(<T>, $crate::virtio::driver::Adapter<T>, { $($f)* });
    };
}
pub(crate) use module_virtio_driver;
