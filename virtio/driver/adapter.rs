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
        queue::{
            NewQueues,
            MAX_QUEUES, //
        },
        Device,
        Negotiation, //
    },
    Binding,
    Driver,
    MAX_THREADS, //
};
use crate::{
    config::Features,
    kernel_ext::{
        kthread,
        registration::Registration, //
    }, //
};

use core::{
    marker::PhantomData,
    mem::{
        offset_of,
        replace, //
    },
    pin::Pin,
    ptr::from_ref, //
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
    sync::{
        Arc,
        Mutex, //
    },
    types::Opaque,
    ThisModule, //
};

/// What a bound device carries: the driver's data, and what may call the driver besides the core.
/// The fields are dropped in this order.
#[pin_data]
pub struct Bundle<D, R> {
    #[pin]
    registration: Mutex<Option<Pin<KBox<R>>>>,
    #[pin]
    threads: Mutex<KVec<kthread::Thread>>,
    #[pin]
    data: D,
    attached: Attached,
}

/// The binding of a device, which can be found by it until this is dropped.
///
/// # Invariants
///
/// The device is bound to a driver of this module, and `priv` is `binding`.
struct Attached {
    vdev: *mut bindings::virtio_device,
    binding: Arc<Binding>,
}

impl Attached {
    /// # Safety
    ///
    /// The device must be bound as long as the result, and have no queues.
    unsafe fn new(dev: &Device<Bound>, binding: Arc<Binding>) -> Self {
        // SAFETY: The binding exists until `drop` takes it back. The probe has just begun.
        unsafe { dev.set_binding(Some(&binding)) };
        // INVARIANT: Set above.
        Self {
            vdev: dev.as_raw(),
            binding,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; `Device` is a transparent wrapper.
        let dev = unsafe { &*self.vdev.cast::<Device<BoundInternal>>() };

        // SAFETY: The driver's data is gone, and so is all that calls the driver.
        unsafe { dev.set_binding(None) };
    }
}

// SAFETY: The device may be used by any thread as long as it is bound.
unsafe impl Send for Attached {}

// SAFETY: Nothing can be done through a shared reference.
unsafe impl Sync for Attached {}

impl<D, R> Bundle<D, R> {
    /// The driver's data.
    fn data(self: Pin<&Self>) -> Pin<&D> {
        // SAFETY: `data` is structurally pinned.
        unsafe { self.map_unchecked(|bundle| &bundle.data) }
    }

    /// What driver and device have in common.
    fn binding(&self) -> &Binding {
        &self.attached.binding
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
        let () = Self::CHECKED;
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
    /// What the compiler checks of a driver.
    const CHECKED: () = {
        let mut rest = T::FEATURES;

        assert!(
            T::THREADS.len() <= MAX_THREADS,
            "a driver has too many threads"
        );
        while let [feature, others @ ..] = rest {
            assert!(*feature < Features::BITS, "there is no such feature");
            rest = others;
        }
    };

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

    /// Calls the driver from outside of the bus, if its data is complete.
    ///
    /// # Safety
    ///
    /// `vdev` must be a virtio device that this driver is bound to, whose data is not dropped
    /// before this returns. The queues of a device are gone before its data, and the core tells of
    /// no change of the configuration from before the removal on.
    #[inline]
    unsafe fn with_bound(
        vdev: *mut bindings::virtio_device,
        f: impl FnOnce(&Device<Bound>, Pin<&T::Data<'_>>),
    ) {
        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let dev: &Device<Bound> = unsafe { &*vdev.cast::<Device<BoundInternal>>() };
        // A device that notifies before it is live finds no data yet.
        let bundle = dev.binding().map(Binding::published);

        // SAFETY: `probe_callback` publishes the `Bundle` of this driver, which is pinned, and by
        // the requirements above not dropped meanwhile.
        let bundle = bundle.and_then(|bundle| unsafe { bundle.cast::<BundleOf<'_, T>>().as_ref() });

        if let Some(bundle) = bundle {
            // SAFETY: It is pinned.
            f(dev, unsafe { Pin::new_unchecked(bundle) }.data());
        }
    }

    /// # Safety
    ///
    /// Called only by the virtio core, with a device that it matched with this driver.
    unsafe extern "C" fn validate_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let dev = unsafe { &*vdev.cast::<Device<CoreInternal<'_>>>() };
        // SAFETY: This is the first that the driver sees of the device, which has no queues.
        // Whoever was bound to it before may have left something in `priv`.
        unsafe { dev.set_binding(None) };
        // SAFETY: The core has the driver look at the features just now.
        let negotiation = unsafe { Negotiation::new(dev) };

        from_result(|| T::validate(&negotiation).map(|()| 0))
    }

    /// # Safety
    ///
    /// Called only by the virtio core, with a device that it matched with this driver.
    unsafe extern "C" fn probe_callback(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the requirements above; `Device` is a transparent wrapper.
        let dev = unsafe { &*vdev.cast::<Device<CoreInternal<'_>>>() };

        from_result(|| {
            let binding = Binding::new()?;
            // SAFETY: The device is bound until the `Bundle` is dropped, or the probe has failed.
            let mut attached = Some(unsafe { Attached::new(dev, binding.clone()) });

            Self::make_data(dev, &mut attached).inspect_err(|_| binding.close(dev))?;

            // SAFETY: The data was stored just now.
            let (dev, bundle) = unsafe { Self::core(vdev) };

            binding.publish(from_ref(bundle.get_ref()).cast_mut().cast());
            Self::begin(dev, bundle).inspect_err(|_| Self::end(dev, bundle))?;
            Ok(0)
        })
    }

    /// Has the driver make its data, and stores that with what is attached, which stays if there is
    /// an error.
    fn make_data(dev: &Device<CoreInternal<'_>>, attached: &mut Option<Attached>) -> Result {
        let binding = attached.as_ref().ok_or(EINVAL)?.binding.clone();
        let queues = NewQueues::of(dev, &binding);

        dev.as_ref().set_drvdata(try_pin_init!(Bundle {
            data <- T::probe(dev, queues),
            threads <- new_mutex!(KVec::new()),
            registration <- new_mutex!(None::<Pin<KBox<T::Registration<'_>>>>),
            attached: attached.take().ok_or(EINVAL)?,
        }? Error))
    }

    /// Makes the device live, then all that depends on it.
    fn begin<'a>(dev: &Device<CoreInternal<'a>>, bundle: Pin<&'a BundleOf<'a, T>>) -> Result {
        *bundle.threads.lock() = Self::make_threads(dev)?;
        Self::make_live(dev, bundle)?;

        // SAFETY: `end` drops it while the device is bound, and the data with it.
        let registration = unsafe { T::Registration::new(bundle.data(), dev.as_ref().name()) };
        *bundle.registration.lock() = Some(KBox::pin_init(registration, GFP_KERNEL)?);

        for thread in bundle.threads.lock().iter() {
            thread.start();
        }
        Ok(())
    }

    /// Makes the device live and lets the driver notify it.
    fn make_live(dev: &Device<CoreInternal<'_>>, bundle: Pin<&BundleOf<'_, T>>) -> Result {
        bundle.binding().go_live(dev)?;
        match T::HAS_LIVE {
            true => T::live(dev, bundle.data()),
            false => Ok(()),
        }
    }

    /// Has the driver make its queues anew, and makes the device live again.
    fn go_on(dev: &Device<CoreInternal<'_>>, bundle: Pin<&BundleOf<'_, T>>) -> Result {
        let binding = bundle.get_ref().binding();

        binding.begin()?;
        T::restore(dev, bundle.data(), NewQueues::of(dev, binding))?;
        Self::make_live(dev, bundle)
    }

    /// Ends all that calls the driver, then the driver's use of the device.
    fn end(dev: &Device<CoreInternal<'_>>, bundle: Pin<&BundleOf<'_, T>>) {
        let registration = bundle.registration.lock().take();
        let threads = replace(&mut *bundle.threads.lock(), KVec::new());

        drop(registration);
        drop(threads);
        if T::HAS_UNBIND {
            T::unbind(dev, bundle.data());
        }
        bundle.binding().close(dev);
        bundle.binding().publish(core::ptr::null_mut());
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
        let body = |current: &kthread::Current| {
            // SAFETY: `end` waits for this thread before the driver is unbound.
            unsafe {
                Self::with_bound(arg.cast(), |dev, data| T::thread(dev, data, current, WHICH));
            }
        };

        // SAFETY: By the requirements above this function was given to `Thread::new`.
        unsafe { kthread::Current::enter(body) }
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
        MAX_QUEUES] = [
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

        from_result(|| {
            if !(T::HAS_FREEZE && T::HAS_RESTORE) {
                return Err(EOPNOTSUPP);
            }
            T::freeze(dev, bundle.data())?;
            bundle.binding().close(dev);
            Ok(0)
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
                Self::go_on(dev, bundle).inspect_err(|_| bundle.binding().close(dev))?;
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

        from_result(|| {
            let result = T::prepare_reset(dev, bundle.data());

            // The bus resets the device whatever the driver says.
            bundle.binding().close(dev);
            result.map(|()| 0)
        })
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
