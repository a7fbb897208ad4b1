// SPDX-License-Identifier: GPL-2.0

//! The control registers (Virtio 1.4, 4.2.2 and 4.2.4), each with who may do what with it.
//!
//! A register is a type. That it may be read or written is a trait of it, so that an access the
//! device does not define does not compile. All have 32 bits and are little-endian. Registers of
//! queues and of shared memory regions are those of the one selected last.

#![deny(unsafe_code)]

/// A control register.
pub(crate) trait Register {
    /// Where it is, in bytes from the start of the device's memory.
    const OFFSET: usize;
}

/// A register that the driver may read.
pub(crate) trait Readable: Register {}

/// A register that the driver may write.
pub(crate) trait Writable: Register {}

/// Where the device configuration space begins; also the size of the window of all registers, in
/// bytes.
pub(crate) const CONFIG: usize = 0x100;

macro_rules! access {
    (R $name:ident) => {
        impl Readable for $name {}
    };
    (W $name:ident) => {
        impl Writable for $name {}
    };
    (RW $name:ident) => {
        impl Readable for $name {}
        impl Writable for $name {}
    };
}

macro_rules! registers {
    ($($(#[$doc:meta])* $name:ident @ $offset:literal: $access:ident, $versions:literal;)*) => {
        $(
            $(#[$doc])*
            #[doc = ""]
            #[doc = concat!("Access: ", stringify!($access), "; version ", $versions, ".")]
            pub(crate) struct $name;

            impl Register for $name {
                const OFFSET: usize = $offset;
            }
            access!($access $name);
        )*

        /// Name, offset, access and versions of all registers.
        #[cfg(test)]
        const ALL: &[(&str, usize, &str, &str)] =
            &[$((stringify!($name), $offset, stringify!($access), $versions),)*];
    };
}

registers! {
    /// [`MAGIC`].
    MagicValue @ 0x000: R, "1 on";
    /// Version of this interface: 1 is legacy.
    Version @ 0x004: R, "1 on";
    /// Type of the device; 0 if there is none.
    DeviceId @ 0x008: R, "1 on";
    /// Vendor of the device.
    VendorId @ 0x00c: R, "1 on";
    /// 32 of the features the device offers, as selected.
    DeviceFeatures @ 0x010: R, "1 on";
    /// Selects which.
    DeviceFeaturesSel @ 0x014: W, "1 on";
    /// 32 of the features the driver accepts, as selected.
    DriverFeatures @ 0x020: W, "1 on";
    /// Selects which.
    DriverFeaturesSel @ 0x024: W, "1 on";
    /// Unit of [`QueuePfn`] in bytes, a power of two; to be written before any queue is made.
    GuestPageSize @ 0x028: W, "1";
    /// Selects a queue.
    QueueSel @ 0x030: W, "1 on";
    /// The most descriptors the queue can have; 0 if there is no such queue.
    QueueSizeMax @ 0x034: R, "1 on";
    /// How many it has.
    QueueSize @ 0x038: W, "1 on";
    /// Alignment of its used ring in bytes, a power of two.
    QueueAlign @ 0x03c: W, "1";
    /// Where it is, in pages; not 0 while the device has it.
    QueuePfn @ 0x040: RW, "1";
    /// 1 while the device has the queue, else 0.
    QueueReady @ 0x044: RW, "2 on";
    /// Notifies the device: the queue's index, or what comes with `VIRTIO_F_NOTIFICATION_DATA`.
    QueueNotify @ 0x050: W, "1 on";
    /// Why the device interrupts: [`Causes`].
    InterruptStatus @ 0x060: R, "1 on";
    /// Acknowledges causes.
    InterruptAck @ 0x064: W, "1 on";
    /// The device status in 8 bits; writing 0 resets the device.
    Status @ 0x070: RW, "1 on";
    /// Descriptor area, low half of its address.
    QueueDescLow @ 0x080: W, "2 on";
    /// High half.
    QueueDescHigh @ 0x084: W, "2 on";
    /// Driver area, low half of its address.
    QueueDriverLow @ 0x090: W, "2 on";
    /// High half.
    QueueDriverHigh @ 0x094: W, "2 on";
    /// Device area, low half of its address.
    QueueDeviceLow @ 0x0a0: W, "2 on";
    /// High half.
    QueueDeviceHigh @ 0x0a4: W, "2 on";
    /// Selects a shared memory region.
    ShmSel @ 0x0ac: W, "2 on";
    /// Length in bytes, low half; all ones in both halves if there is no such region.
    ShmLenLow @ 0x0b0: R, "2 on";
    /// High half.
    ShmLenHigh @ 0x0b4: R, "2 on";
    /// Physical address, low half.
    ShmBaseLow @ 0x0b8: R, "2 on";
    /// High half.
    ShmBaseHigh @ 0x0bc: R, "2 on";
    /// 1 resets the queue, with `VIRTIO_F_RING_RESET`; 0 when that is done.
    QueueReset @ 0x0c0: RW, "2 on";
    /// Changes whenever the device changes its configuration.
    ConfigGeneration @ 0x0fc: R, "2 on";
}

/// What [`MagicValue`] reads as: "virt".
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"virt");

/// What a register of a device reads as that is not there any more.
pub(crate) const GONE: u32 = u32::MAX;

/// Why a device interrupts (Virtio 1.4, 4.2.2, `InterruptStatus`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Causes(u32);

impl Causes {
    /// The bit that says that a buffer of some queue was used.
    pub(crate) const USED_BUFFER: u32 = 1 << 0;
    const CONFIG_CHANGE: u32 = 1 << 1;

    /// What a value of [`InterruptStatus`] says, without bits that mean nothing. None if it says
    /// nothing: then the interrupt is another device's, or this one is gone.
    #[inline]
    pub(crate) const fn of(status: u32) -> Option<Self> {
        match status & (Self::USED_BUFFER | Self::CONFIG_CHANGE) {
            0 => None,
            _ if status == GONE => None,
            known => Some(Self(known)),
        }
    }

    /// What to write to [`InterruptAck`].
    #[inline]
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// A buffer of some queue was used.
    #[inline]
    pub(crate) const fn used_buffer(self) -> bool {
        self.0 & Self::USED_BUFFER != 0
    }

    /// The configuration changed.
    #[inline]
    pub(crate) const fn config_change(self) -> bool {
        self.0 & Self::CONFIG_CHANGE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_aligned_and_apart() {
        for pair in ALL.windows(2) {
            assert!(
                pair[0].1 + 4 <= pair[1].1,
                "{} and {}",
                pair[0].0,
                pair[1].0
            );
        }
        for (name, offset, _, _) in ALL {
            assert!(offset % 4 == 0 && offset + 4 <= CONFIG, "{name}");
        }
    }

    #[test]
    fn access_is_as_in_the_specification() {
        let of = |access| {
            let found = ALL.iter().filter(|register| register.2 == access);
            found.map(|register| register.1).collect::<Vec<_>>()
        };
        let legacy = ALL.iter().filter(|register| register.3 == "1");

        assert_eq!(
            of("R"),
            [0x00, 0x04, 0x08, 0x0c, 0x10, 0x34, 0x60, 0xb0, 0xb4, 0xb8, 0xbc, 0xfc]
        );
        assert_eq!(of("RW"), [0x40, 0x44, 0x70, 0xc0]);
        assert_eq!(
            legacy.map(|register| register.1).collect::<Vec<_>>(),
            [0x28, 0x3c, 0x40]
        );
    }

    #[test]
    fn magic_spells_virt() {
        assert_eq!(MAGIC, 0x7472_6976);
    }

    #[test]
    fn only_defined_causes_count() {
        assert_eq!(Causes::of(0), None);
        assert_eq!(Causes::of(!3), None);
        assert_eq!(Causes::of(GONE), None, "a device that is gone");
        for status in 1..4 {
            let causes = Causes::of(status | 0x5a00).unwrap();

            assert_eq!(causes.bits(), status);
            assert_eq!(causes.used_buffer(), status != 2);
            assert_eq!(causes.config_change(), status != 1);
        }
    }
}
