// SPDX-License-Identifier: GPL-2.0

//! Device ids: which devices a driver takes, and the module alias that loads it for them.

use super::bindings;

use kernel::device_id::{
    IdTable as IdTableTrait,
    RawDeviceId, //
};

/// The id of a virtio device: device type and vendor (`struct virtio_device_id`).
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct DeviceId(bindings::virtio_device_id);

impl DeviceId {
    /// A network card (Virtio 1.4, 5.1.1).
    pub const NET: u32 = bindings::VIRTIO_ID_NET;

    /// A disk (Virtio 1.4, 5.2.1).
    pub const BLOCK: u32 = bindings::VIRTIO_ID_BLOCK;

    /// Consoles and serial ports (Virtio 1.4, 5.3.1).
    pub const CONSOLE: u32 = bindings::VIRTIO_ID_CONSOLE;

    /// An entropy source (Virtio 1.4, 5.4.1).
    pub const RNG: u32 = bindings::VIRTIO_ID_RNG;

    /// The traditional memory balloon (Virtio 1.4, 5.5.1).
    pub const BALLOON: u32 = bindings::VIRTIO_ID_BALLOON;

    /// Devices of type `device` of any vendor (Virtio 1.4, chapter 5 lists the types).
    pub const fn any_vendor(device: u32) -> Self {
        Self(bindings::virtio_device_id {
            device,
            vendor: bindings::VIRTIO_DEV_ANY_ID,
        })
    }

    /// The id that a device says it has.
    pub(super) const fn of_device(id: bindings::virtio_device_id) -> Self {
        Self(id)
    }

    /// The type of the device.
    pub const fn device(self) -> u32 {
        self.0.device
    }

    /// The vendor of the device; for PCI devices the subsystem vendor.
    pub const fn vendor(self) -> u32 {
        self.0.vendor
    }
}

// SAFETY: `DeviceId` is a transparent wrapper of `struct virtio_device_id`.
unsafe impl RawDeviceId for DeviceId {
    type RawType = bindings::virtio_device_id;
}

/// The table of ids that a driver takes.
pub type IdTable = &'static dyn IdTableTrait<DeviceId, ()>;

/// Creates a virtio id table together with its alias for modpost.
macro_rules! virtio_device_table {
    ($name:ident, [$($id:expr),* $(,)?]) => {
        ::kernel::module_device_table!(
            "virtio", $crate::virtio::DeviceId, $name, @none, [$($id),*]
        );
    };
}
pub(crate) use virtio_device_table;
