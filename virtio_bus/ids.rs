// SPDX-License-Identifier: GPL-2.0

//! Which device is for which driver (`struct virtio_device_id` of `mod_devicetable.h`).
//!
//! Uses only `core`.

#![deny(unsafe_code)]

/// The id of a device, or an entry in the table of a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id {
    /// The type of device (Virtio 1.4, chapter 5); 0 ends a table.
    pub(crate) device: u32,
    /// Who made it, as its transport says.
    pub(crate) vendor: u32,
}

impl Id {
    /// `VIRTIO_DEV_ANY_ID`: in a table, any type or any vendor.
    pub(crate) const ANY: u32 = 0xffff_ffff;

    /// Tells whether this entry of a table takes a device.
    pub(crate) const fn takes(self, device: Self) -> bool {
        (self.device == device.device || self.device == Self::ANY)
            && (self.vendor == device.vendor || self.vendor == Self::ANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(device: u32, vendor: u32) -> Id {
        Id { device, vendor }
    }

    #[test]
    fn entries_take_what_they_name() {
        let device = id(5, 0x1af4);

        assert!(id(5, 0x1af4).takes(device));
        assert!(id(5, Id::ANY).takes(device));
        assert!(id(Id::ANY, 0x1af4).takes(device));
        assert!(id(Id::ANY, Id::ANY).takes(device));
        assert!(!id(5, 0x1af5).takes(device));
        assert!(!id(4, Id::ANY).takes(device));
        assert!(!id(Id::ANY, 0).takes(device));
    }

    #[test]
    fn a_device_is_no_wildcard() {
        assert!(!id(5, 0x1af4).takes(id(Id::ANY, Id::ANY)));
    }
}
