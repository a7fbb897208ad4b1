// SPDX-License-Identifier: GPL-2.0

//! The driver as this module sees it: its tables and callbacks, in safe methods.

use super::{
    device::VirtioDevice,
    ids::Id, //
};
use crate::{
    config::{
        FeatureBit,
        Features, //
    },
    virtio::bindings::{
        self,
        virtio_device,
        virtio_driver, //
    },
};

use core::slice;
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    types::Opaque,
    warn_on, //
};

/// The features of a legacy device.
const LEGACY_BITS: FeatureBit = 64;

type Step = Option<unsafe extern "C" fn(*mut virtio_device) -> c_int>;
type Notice = Option<unsafe extern "C" fn(*mut virtio_device)>;

/// A driver on the virtio bus.
///
/// # Invariants
///
/// A valid `struct virtio_driver` that nobody changes. Its id table ends with an entry of type 0,
/// its feature tables have as many entries as it says, and its callbacks may be called with a
/// device that it is bound to.
#[repr(transparent)]
pub(super) struct VirtioDriver(Opaque<virtio_driver>);

impl VirtioDriver {
    /// Takes what the driver core knows a driver by.
    ///
    /// # Safety
    ///
    /// `driver` must be that of a driver on the virtio bus, for which the type invariants hold
    /// during `'a`.
    pub(super) unsafe fn from_driver<'a>(driver: *const bindings::device_driver) -> &'a Self {
        // SAFETY: All drivers of the bus are embedded so, by the safety requirements.
        let driver = unsafe { container_of!(driver.cast_mut(), virtio_driver, driver) };
        // SAFETY: By the safety requirements; the type is transparent.
        unsafe { &*driver.cast::<Self>() }
    }

    /// The C structure.
    fn raw(&self) -> &virtio_driver {
        // SAFETY: By the type invariants it is valid and not changed.
        unsafe { &*self.0.get() }
    }

    /// Tells whether the driver takes a device.
    pub(super) fn takes(&self, device: Id) -> bool {
        let mut entry = self.raw().id_table;

        loop {
            // SAFETY: By the type invariants: the end of the table was not reached yet.
            let id = unsafe { entry.read() };

            if id.device == 0 {
                return false;
            }
            let id = Id {
                device: id.device,
                vendor: id.vendor,
            };
            if id.takes(device) {
                return true;
            }
            // SAFETY: As above; the end is an entry, too.
            entry = unsafe { entry.add(1) };
        }
    }

    // Features

    /// The table of features.
    fn table(&self) -> &[FeatureBit] {
        let driver = self.raw();

        // SAFETY: By the type invariants.
        unsafe { table(driver.feature_table, driver.feature_table_size) }
    }

    /// The table of features for legacy devices, if the driver has one of its own for them.
    fn legacy_table(&self) -> Option<&[FeatureBit]> {
        let driver = self.raw();
        let first = driver.feature_table_legacy;

        // SAFETY: By the type invariants.
        (!first.is_null()).then(|| unsafe { table(first, driver.feature_table_size_legacy) })
    }

    /// The features that the driver can use; bits that do not exist are left out, with a warning.
    pub(super) fn features(&self) -> Features {
        checked(self.table(), Features::BITS)
    }

    /// The features that the driver can use on a legacy device, if it makes a difference.
    pub(super) fn legacy_features(&self) -> Option<Features> {
        Some(checked(self.legacy_table()?, LEGACY_BITS))
    }

    /// Tells whether a feature is in one of the tables.
    pub(super) fn knows(&self, bit: FeatureBit) -> bool {
        let legacy = self.legacy_table().unwrap_or_default();

        self.table().contains(&bit) || legacy.contains(&bit)
    }

    // Callbacks

    /// Has the driver look at the features under consideration; it may decline some.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub(super) fn validate(&self, device: &VirtioDevice) -> Result {
        call(self.raw().validate, device).unwrap_or(Ok(()))
    }

    /// Has the driver begin.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub(super) fn probe(&self, device: &VirtioDevice) -> Result {
        call(self.raw().probe, device).unwrap_or(Err(EINVAL))
    }

    /// Tells the driver that the device is live.
    pub(super) fn scan(&self, device: &VirtioDevice) {
        notify(self.raw().scan, device);
    }

    /// Has the driver give the device up.
    pub(super) fn remove(&self, device: &VirtioDevice) {
        notify(self.raw().remove, device);
    }

    /// Tells the driver that the configuration changed; returns whether it wants to know.
    ///
    /// # Context
    ///
    /// Any.
    pub(super) fn config_changed(&self, device: &VirtioDevice) -> bool {
        notify(self.raw().config_changed, device)
    }

    /// Has the driver stop the device; returns whether it does that itself.
    pub(super) fn shutdown(&self, device: &VirtioDevice) -> bool {
        notify(self.raw().shutdown, device)
    }

    /// Has the driver prepare for sleep.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    #[cfg(CONFIG_PM_SLEEP)]
    pub(super) fn freeze(&self, device: &VirtioDevice) -> Result {
        call(self.raw().freeze, device).unwrap_or(Ok(()))
    }

    /// Has the driver go on after sleep.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    #[cfg(CONFIG_PM_SLEEP)]
    pub(super) fn restore(&self, device: &VirtioDevice) -> Result {
        call(self.raw().restore, device).unwrap_or(Ok(()))
    }

    /// Tells whether the driver can prepare for a reset that the transport makes.
    pub(super) fn can_prepare_reset(&self) -> bool {
        self.raw().reset_prepare.is_some()
    }

    /// Tells whether the driver can go on after such a reset.
    pub(super) fn can_finish_reset(&self) -> bool {
        self.raw().reset_done.is_some()
    }

    /// Has the driver prepare for a reset that the transport is about to make.
    ///
    /// # Errors
    ///
    /// Those of the driver; `EOPNOTSUPP` if it cannot.
    pub(super) fn reset_prepare(&self, device: &VirtioDevice) -> Result {
        call(self.raw().reset_prepare, device).unwrap_or(Err(EOPNOTSUPP))
    }

    /// Has the driver go on after such a reset.
    ///
    /// # Errors
    ///
    /// As for [`Self::reset_prepare`].
    pub(super) fn reset_done(&self, device: &VirtioDevice) -> Result {
        call(self.raw().reset_done, device).unwrap_or(Err(EOPNOTSUPP))
    }
}

/// A table of `len` features.
///
/// # Safety
///
/// `first` must point to as many, for `'a`, unless there are none.
unsafe fn table<'a>(first: *const c_uint, len: c_uint) -> &'a [FeatureBit] {
    if first.is_null() || len == 0 {
        return &[];
    }
    // CAST: Widening.
    let len = len as usize;
    // SAFETY: By the safety requirements.
    unsafe { slice::from_raw_parts(first, len) }
}

/// The features of a table, of which `bits` exist.
fn checked(table: &[FeatureBit], bits: FeatureBit) -> Features {
    warn_on!(table.iter().any(|bit| *bit >= bits));
    Features::of(table)
}

/// Calls a driver that can fail, if it has the callback.
fn call(step: Step, device: &VirtioDevice) -> Option<Result> {
    // SAFETY: By the type invariants of `VirtioDriver`, from which all callbacks come, and which is
    // bound to the device.
    step.map(|step| to_result(unsafe { step(device.as_raw()) }))
}

/// Calls a driver that cannot fail, if it has the callback; returns whether it has.
fn notify(notice: Notice, device: &VirtioDevice) -> bool {
    if let Some(notice) = notice {
        // SAFETY: As for `call`.
        unsafe { notice(device.as_raw()) };
    }
    notice.is_some()
}
