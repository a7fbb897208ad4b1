// SPDX-License-Identifier: GPL-2.0

//! The adapter between a [`Driver`] and the C core: the callbacks of `struct virtio_driver`, and
//! what is stored with a bound device.
//!
//! Each callback borrows device and data once and calls a safe method of the trait. The shape is
//! that of the other buses of the kernel crate (`rust/kernel/driver.rs`).

use super::{
    super::{
        bindings,
        pm::{
            Phase,
            PmOps, //
        },
        queue::Queues,
        Device, //
    },
    Driver,
    MAX_THREADS, //
};
use crate::kernel_ext::{
    kthread,
    registration::Registration, //
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

/// What a bound device carries: the driver's data, and what may call the driver besides the core.
#[pin_data]
pub struct Bundle<D, R> {
    #[pin]
    registration: Mutex<Option<Pin<KBox<R>>>>,
    #[pin]
    threads: Mutex<KVec<kthread::Thread>>,
    #[pin]
    data: D,
}

impl<D, R> Bundle<D, R> {
    /// The driver's data.
    fn data(self: Pin<&Self>) -> Pin<&D> {
        // SAFETY: `data` is structurally pinned.
        unsafe { self.map_unchecked(|bundle| &bundle.data) }
    }
}

/// The [`Bundle`] of a driver.
type BundleOf<'bound, T> = Bundle<<T as Driver>::Data<'bound>, <T as Driver>::Registration<'bound>>;

/// Connects the C core and a [`Driver`].
pub struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY:
// - `struct virtio_driver` is `repr(C)` and embeds a `struct device_driver` at the given offset.
// - `Bundle` is what `probe_callback` stores as the private data of the device.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::virtio_driver;
    type DriverData<'bound> = BundleOf<'bound, T>;
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
            if T::HAS_SLEEP {
                drv.driver.pm = &PmOps::<T>::TABLE;
            }
            drv.id_table = T::ID_TABLE.as_ptr();
            drv.feature_table = T::FEATURES.as_ptr();
            drv.feature_table_size = features;
            drv.validate = T::HAS_VALIDATE.then_some(Self::validate_callback);
            drv.probe = Some(Self::probe_callback);
            drv.remove = Some(Self::remove_callback);
            drv.shutdown = T::HAS_SHUTDOWN.then_some(Self::shutdown_callback);
            drv.config_changed = T::HAS_CONFIG_CHANGED.then_some(Self::config_changed_callback);
            drv.freeze = Some(Self::freeze_callback);
            drv.restore = Some(Self::restore_callback);
            if T::HAS_PREPARE_RESET && T::HAS_RESTORE {
                drv.reset_prepare = Some(Self::reset_prepare_callback);
                drv.reset_done = Some(Self::restore_callback);
            }
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
    ) -> (&'a Device<CoreInternal<'a>>, Pin<&'a BundleOf<'a, T>>) {
        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let dev = unsafe { &*vdev.cast::<Device<CoreInternal<'a>>>() };

        // SAFETY: `probe_callback` stored a `Bundle`, which lives until the driver is unbound.
        let bundle = unsafe { dev.as_ref().drvdata_borrow::<BundleOf<'a, T>>() };

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
        let bundle = unsafe { dev.as_ref().drvdata_borrow::<BundleOf<'_, T>>() };

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
                registration <- new_mutex!(None::<Pin<KBox<T::Registration<'_>>>>),
            }? Error))?;

            // SAFETY: The data was stored just now.
            let (dev, bundle) = unsafe { Self::core(vdev) };

            Self::begin(dev, bundle).inspect_err(|_| Self::end(dev, bundle))?;
            Ok(0)
        })
    }

    /// Makes the device live, then all that depends on it.
    fn begin<'a>(dev: &Device<CoreInternal<'a>>, bundle: Pin<&'a BundleOf<'a, T>>) -> Result {
        *bundle.threads.lock() = Self::make_threads(dev)?;
        Self::make_live(dev, bundle);

        // SAFETY: `end` drops it while the device is bound, and the data with it.
        let registration = unsafe { T::Registration::new(bundle.data(), dev.as_ref().name()) };
        *bundle.registration.lock() = Some(KBox::pin_init(registration, GFP_KERNEL)?);

        for thread in bundle.threads.lock().iter() {
            thread.start();
        }
        Ok(())
    }

    /// Makes the device live and lets the driver notify it.
    fn make_live(dev: &Device<CoreInternal<'_>>, bundle: Pin<&BundleOf<'_, T>>) {
        dev.make_live();
        if T::HAS_LIVE {
            T::live(dev, bundle.data());
        }
    }

    /// Ends all that calls the driver, then the driver's use of the device.
    fn end(dev: &Device<CoreInternal<'_>>, bundle: Pin<&BundleOf<'_, T>>) {
        let registration = bundle.registration.lock().take();
        let threads = replace(&mut *bundle.threads.lock(), KVec::new());

        drop(registration);
        drop(threads);
        let had_queues = dev.has_queues();
        if T::HAS_UNBIND {
            T::unbind(dev, bundle.data());
        }
        // The end of the last queue resets a device; it was said so if that failed. But after a
        // failed restore there were none, and some drivers leave theirs to the end of their data.
        if (dev.has_queues() || !had_queues) && dev.status() != 0 {
            let _ = dev.reset();
        }
    }

    /// Creates the driver's threads, which do not run yet.
    fn make_threads(dev: &Device<CoreInternal<'_>>) -> Result<KVec<kthread::Thread>> {
        let mut threads = KVec::with_capacity(T::THREADS.len(), GFP_KERNEL)?;

        for (name, main) in T::THREADS.iter().zip(Self::THREAD_MAIN) {
            // SAFETY: The thread is stopped in `end`, while the device is still bound, or right
            // here if another one cannot be made.
            let thread = unsafe {
                kthread::Thread::new(main, dev.as_raw().cast(), name, dev.as_ref().name())
            };

            threads.push(thread?, GFP_KERNEL)?;
        }
        Ok(threads)
    }

    /// # Safety
    ///
    /// Called only as a thread that `make_threads` made, with the device as its argument.
    unsafe extern "C" fn thread_main<const WHICH: usize>(arg: *mut c_void) -> c_int {
        kthread::Current::enter(|current| {
            // SAFETY: `end` waits for this thread before the driver is unbound.
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

        Self::end(dev, bundle);
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
        if T::HAS_NOTIFIED {
            // SAFETY: `vdev` is the device of the queue, which is bound while it has queues.
            unsafe { Self::with_bound((*vq).vdev, |dev, data| T::notified(dev, data, PLACE)) }
        }
    }

    /// The callbacks of the queues, by place.
    pub(in crate::virtio) const NOTIFIED: [unsafe extern "C" fn(*mut bindings::virtqueue);
        Queues::MAX] = [
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

        from_result(|| match T::HAS_FREEZE && T::HAS_RESTORE {
            true => T::freeze(dev, bundle.data()).map(|()| 0),
            false => Err(EOPNOTSUPP),
        })
    }

    /// # Safety
    ///
    /// As for [`Self::shutdown_callback`].
    unsafe extern "C" fn restore_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the requirements above.
        let (dev, bundle) = unsafe { Self::core(vdev) };

        from_result(|| {
            if T::HAS_RESTORE {
                T::restore(dev, bundle.data())?;
                Self::make_live(dev, bundle);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As for [`Self::shutdown_callback`].
    unsafe extern "C" fn reset_prepare_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the requirements above.
        let (dev, bundle) = unsafe { Self::core(vdev) };

        from_result(|| T::prepare_reset(dev, bundle.data()).map(|()| 0))
    }

    /// # Safety
    ///
    /// Called only by the PM core, with the `struct device` of a virtio device this driver is bound
    /// to.
    pub(in crate::virtio) unsafe fn sleep_callback(
        dev: *mut bindings::device,
        phase: Phase,
    ) -> c_int {
        // SAFETY: By the requirements above `dev` is embedded in a `struct virtio_device`.
        let vdev = unsafe { kernel::container_of!(dev, bindings::virtio_device, dev) };
        // SAFETY: By the requirements above.
        let (dev, bundle) = unsafe { Self::core(vdev) };

        from_result(|| T::sleep(dev, bundle.data(), phase).map(|()| 0))
    }
}
