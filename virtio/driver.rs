// SPDX-License-Identifier: GPL-2.0

//! The driver trait: what a driver does, and when it is called.
//!
//! Follows `struct virtio_driver` of `include/linux/virtio.h`. The [`Adapter`] connects the trait
//! with the C core.

mod adapter;
mod binding;

pub use adapter::{
    Adapter,
    Bundle, //
};
pub(super) use binding::Binding;

use super::{
    id::IdTable,
    pm::Phase,
    queue::NewQueues,
    Device,
    Negotiation, //
};
use crate::{
    config::FeatureBit,
    kernel_ext::{
        kthread,
        registration::Registration, //
    }, //
};

use core::pin::Pin;
use kernel::{
    device::{
        Bound,
        Core, //
    },
    error::VTABLE_DEFAULT_ERROR,
    prelude::*, //
};

/// A virtio driver.
///
/// The order of calls for one device is [`validate`](Self::validate), [`probe`](Self::probe),
/// [`live`](Self::live), then any of the others, and at last [`unbind`](Self::unbind). The driver's
/// data is dropped after that. System sleep puts a [`freeze`](Self::freeze), a
/// [`restore`](Self::restore) and another `live` in between, a reset of the device by its bus a
/// [`prepare_reset`](Self::prepare_reset), a `restore` and another `live`.
///
/// [`thread`](Self::thread) and the callbacks of [`Registration`](Self::Registration) run beside
/// them from the time the device is live until just before `unbind`.
///
/// All hooks but `probe` are optional. After `unbind`, `freeze` and `prepare_reset` the device is
/// reset, the payloads in its queues are dropped and the queues are deleted, whatever the driver
/// has done with its handles. A driver that wants its payloads back takes them before
/// ([`Device::reset`]).
///
/// # Examples
///
/// A driver that keeps one buffer with its device, and says when that comes back. A module of its
/// own would end with `module_virtio_driver!`.
///
/// ```
/// use crate::virtio::prelude::*;
///
/// virtio_device_table!(TABLE, [DeviceId::any_vendor(DeviceId::CONSOLE)]);
///
/// struct WaitingDriver;
///
/// #[pin_data]
/// struct Waiting {
///     queue: Queue<InBuf<16>>,
/// }
///
/// #[vtable]
/// impl Driver for WaitingDriver {
///     type Data<'bound> = Waiting;
///     type Registration<'bound> = ();
///
///     const ID_TABLE: IdTable = &TABLE;
///
///     fn probe<'bound>(
///         _dev: &'bound Device<Core<'_>>,
///         queues: NewQueues<'_, Self>,
///     ) -> impl PinInit<Waiting, Error> {
///         pin_init::pin_init_scope(move || {
///             let queue = queues.single(c"in")?;
///
///             queue.add(InBuf::new()?).map_err(|(error, _)| error)?;
///             Ok(try_pin_init!(Waiting { queue }? Error))
///         })
///     }
///
///     fn live(_dev: &Device<Core<'_>>, data: Pin<&Waiting>) -> Result {
///         data.queue.notify()
///     }
///
///     fn notified(dev: &Device<Bound>, _data: Pin<&Waiting>, _place: usize) {
///         dev_info!(dev, "{} says something\n", dev.id().device());
///     }
/// }
/// ```
#[vtable]
pub trait Driver: Sized {
    /// The driver's data for one device.
    type Data<'bound>: Send + Sync + 'bound;

    /// What the driver offers to another part of the kernel for each live device; `()` if nothing.
    type Registration<'bound>: Registration<'bound, Self::Data<'bound>> + 'bound;

    /// The devices that the driver takes.
    const ID_TABLE: IdTable;

    /// The features that the driver can use, beside those of the transport and of the rings.
    const FEATURES: &'static [FeatureBit] = &[];

    /// The names of the driver's threads, to which `/<device>` is appended. A driver with more than
    /// [`MAX_THREADS`] does not compile.
    const THREADS: &'static [&'static CStr] = &[];

    /// Looks at the features that both sides know, and declines those it must.
    ///
    /// # Errors
    ///
    /// Any error makes the probe fail with it.
    fn validate(_dev: &Negotiation<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes the driver's data for a device, and its virtqueues.
    ///
    /// # Context
    ///
    /// May sleep. The device becomes live afterwards: buffers may be made available, but it cannot
    /// be notified of them yet, so do not wait for one.
    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
        queues: NewQueues<'_, Self>,
    ) -> impl PinInit<Self::Data<'bound>, Error>;

    /// The device has become live: notify it of the buffers that it has already.
    ///
    /// # Errors
    ///
    /// Any error makes the probe fail with it, or leaves the device failed after a reset.
    ///
    /// # Context
    ///
    /// May sleep. Nothing was registered yet, and no thread runs, when it is called the first time.
    fn live(_dev: &Device<Core<'_>>, _data: Pin<&Self::Data<'_>>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The work of thread number `which` of [`Self::THREADS`]; returns when
    /// [`kthread::Current::should_stop`] says so.
    ///
    /// # Context
    ///
    /// A thread of its own, may sleep. The PM core freezes it where it waits freezably
    /// ([`WaitQueue`](crate::kernel_ext::wait::WaitQueue)).
    fn thread(
        _dev: &Device<Bound>,
        _data: Pin<&Self::Data<'_>>,
        _current: &kthread::Current,
        _which: usize,
    ) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Gives the device up. It is reset afterwards.
    ///
    /// # Context
    ///
    /// May sleep; the driver's threads have ended, nothing is registered any more.
    fn unbind(_dev: &Device<Core<'_>>, _data: Pin<&Self::Data<'_>>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes the device stop, for a reboot, a power-off or a new kernel.
    ///
    /// Without this the core does what [`Device::shut_down`] does.
    ///
    /// # Context
    ///
    /// May sleep; the driver's threads may be frozen, so do not wait for them.
    fn shutdown(_dev: &Device<Core<'_>>, _data: Pin<&Self::Data<'_>>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device configuration changed, perhaps.
    ///
    /// # Context
    ///
    /// Interrupt; must not sleep.
    fn config_changed(_dev: &Device<Bound>, _data: Pin<&Self::Data<'_>>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device used a buffer, perhaps; `place` is where the queue is in the list that was given
    /// to [`NewQueues::create`].
    ///
    /// # Context
    ///
    /// Interrupt; must not sleep. To sleep, wake a [`thread`](Self::thread) or whoever waits.
    fn notified(_dev: &Device<Bound>, _data: Pin<&Self::Data<'_>>, _place: usize) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The transport is about to lose the device, which is reset afterwards: stop using it.
    ///
    /// A driver without this vetoes system sleep.
    ///
    /// # Errors
    ///
    /// Any error vetoes the transition.
    ///
    /// # Context
    ///
    /// May sleep; must not wait for the device or for a frozen thread.
    fn freeze(_dev: &Device<Core<'_>>, _data: Pin<&Self::Data<'_>>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The transport has the device again, reset and with features negotiated: make new queues. The
    /// device becomes live afterwards.
    ///
    /// # Errors
    ///
    /// Any error leaves the device failed, as after a failed probe.
    ///
    /// # Context
    ///
    /// As for [`Self::freeze`] and [`Self::probe`].
    fn restore(
        _dev: &Device<Core<'_>>,
        _data: Pin<&Self::Data<'_>>,
        _queues: NewQueues<'_, Self>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The transport's bus is about to reset the device, which stays where it is: stop using it.
    /// [`Self::restore`] and [`Self::live`] follow when that was done.
    ///
    /// A driver without this is not told of such resets.
    ///
    /// # Errors
    ///
    /// Any error is logged by the transport. The device is reset all the same, and its queues are
    /// deleted.
    ///
    /// # Context
    ///
    /// May sleep; the driver's threads go on.
    fn prepare_reset(_dev: &Device<Core<'_>>, _data: Pin<&Self::Data<'_>>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A system sleep transition takes a step; see [`Phase`] for the order.
    ///
    /// # Errors
    ///
    /// Any error vetoes the transition where it still can be.
    ///
    /// # Context
    ///
    /// May sleep, except in the `Noirq` phases, where nothing may be waited for.
    fn sleep(_dev: &Device<Core<'_>>, _data: Pin<&Self::Data<'_>>, _phase: Phase) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// The most threads that a driver can have.
pub const MAX_THREADS: usize = 2;

/// Declares a kernel module that exposes a single virtio driver.
macro_rules! module_virtio_driver {
    ($($f:tt)*) => {
        ::kernel::module_driver!(<T>, $crate::virtio::driver::Adapter<T>, { $($f)* });
    };
}
pub(crate) use module_virtio_driver;
