// SPDX-License-Identifier: GPL-2.0

//! Devices that ask for a reset (`DEVICE_NEEDS_RESET`; Virtio 1.4, 2.1.1 and 2.1.2).
//!
//! Such a device says so by a configuration change. Its status may be read only where it is allowed
//! to sleep, so a work item does that. If the device does ask, its queues break: drivers must not
//! wait for buffers any more that may never come back (2.1.1), and nothing is made available to a
//! device that is out of order. It works again once it is bound anew, or after sleep, since it is
//! reset then.

use super::{
    bus,
    device::VirtioDevice,
    gate, //
};
use crate::{
    kernel_ext::static_work::{
        Active,
        StaticWork, //
    },
    virtio::bindings, //
};

use core::sync::atomic::{
    AtomicU64,
    Ordering, //
};
use kernel::{
    dev_err,
    static_lock_class, //
};

/// The item that looks at devices.
static LOOK: StaticWork = StaticWork::new(run);

/// Which devices to look at: a bit for each number of a device, modulo 64.
static MARKED: AtomicU64 = AtomicU64::new(0);

/// Devices can be watched as long as this exists; dropping it waits until nobody looks any more.
pub(super) struct Running {
    _active: Active,
}

impl Running {
    /// Begins.
    ///
    /// # Safety
    ///
    /// To be called once, before there are devices; to be dropped after the last one.
    pub(super) unsafe fn new() -> Self {
        Self {
            // SAFETY: By the safety requirements: only devices are looked at.
            _active: unsafe { LOOK.activate(c"virtio_watch", static_lock_class!()) },
        }
    }
}

/// Has somebody look at the status of a device soon.
///
/// # Context
///
/// Any.
pub(super) fn look(device: &VirtioDevice) {
    MARKED.fetch_or(device.index().mark(), Ordering::Relaxed);
    LOOK.queue_freezable();
}

/// Looks at all that are marked.
fn run() {
    let marked = MARKED.swap(0, Ordering::Relaxed);

    bus::each_device(|device| {
        if marked & device.index().mark() != 0 {
            check(device);
        }
    });
}

/// Inspects a device that a driver uses. Says once that it asks for a reset: there is nothing to
/// break the next time.
fn check(device: &VirtioDevice) {
    // Whoever has the lock binds or unbinds the device. Either resets it, and a device that is live
    // afterwards is inspected then.
    let Some(_lock) = Lock::try_new(device) else {
        return;
    };
    if device.driver().is_some() && gate::is_open(device) {
        inspect(device);
    }
}

/// Breaks the queues of a live device if it asks for a reset.
///
/// # Context
///
/// May sleep; the lock of the device must be held.
pub(super) fn inspect(device: &VirtioDevice) {
    let status = device.status();

    if status.needs_reset() && device.has_sound_queue() {
        dev_err!(
            device.as_ref(),
            "the device asks for a reset: status {:#x}; it cannot be used any more\n",
            status.bits()
        );
        device.break_queues();
    }
}

/// The lock of the driver core, without which no driver is bound or unbound.
struct Lock<'a>(&'a VirtioDevice);

impl<'a> Lock<'a> {
    /// Takes the lock if nobody else has it.
    fn try_new(device: &'a VirtioDevice) -> Option<Self> {
        // SAFETY: A registered device, so its mutex is initialised.
        let taken = unsafe { bindings::mutex_trylock(&raw mut (*device.as_dev()).mutex) };

        // Not made before it is known, since dropping it unlocks.
        (taken != 0).then(|| Self(device))
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // SAFETY: Taken by `try_new`.
        unsafe { bindings::mutex_unlock(&raw mut (*self.0.as_dev()).mutex) };
    }
}
