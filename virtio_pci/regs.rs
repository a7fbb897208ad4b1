// SPDX-License-Identifier: GPL-2.0

//! The registers of the common configuration (Virtio 1.4, 4.1.4.3), each with its width and with
//! who may do what with it.
//!
//! A register is a type. That it may be read or written is a trait of it, so that an access the
//! device does not define does not compile. All are little-endian. Those of queues are of the queue
//! selected last. Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

/// A register.
pub(crate) trait Register {
    /// Its width.
    type Value;
    /// Where it is, in bytes from the start of the structure.
    const OFFSET: usize;
}

/// A register that every device has.
pub(crate) trait Common: Register {}

/// A register that a device has if its structure is long enough.
pub(crate) trait Later: Register {
    /// How long it is then, in bytes.
    const END: usize;
}

/// A register that the driver may read.
pub(crate) trait Readable: Register {}

/// A register that the driver may write.
pub(crate) trait Writable: Register {}

/// How long the structure is at least, in bytes.
pub(crate) const COMMON: usize = 56;

/// How long it is with all that is known, in bytes.
pub(crate) const ALL_KNOWN: usize = 64;

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

macro_rules! presence {
    (Common $name:ident $offset:literal $value:ident) => {
        impl Common for $name {}
    };
    (Later $name:ident $offset:literal $value:ident) => {
        impl Later for $name {
            const END: usize = $offset + core::mem::size_of::<$value>();
        }
    };
    (Legacy $name:ident $offset:literal $value:ident) => {
        impl Legacy for $name {}
    };
}

macro_rules! registers {
    ($(
        $(#[$doc:meta])*
        $name:ident: $value:ident @ $offset:literal: $access:ident, $has:ident;
    )*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl Register for $name {
                type Value = $value;
                const OFFSET: usize = $offset;
            }
            access!($access $name);
            presence!($has $name $offset $value);
        )*

        /// Name, offset, width in bytes, access and presence of all registers.
        #[cfg(test)]
        const ALL: &[(&str, usize, usize, &str, &str)] = &[$((
            stringify!($name),
            $offset,
            core::mem::size_of::<$value>(),
            stringify!($access),
            stringify!($has),
        ),)*];
    };
}
pub(crate) use {
    access,
    presence,
    registers, //
};

registers! {
    /// Selects 32 of the features the device offers.
    DeviceFeatureSelect: u32 @ 0: RW, Common;
    /// Those.
    DeviceFeature: u32 @ 4: R, Common;
    /// Selects 32 of the features the driver accepts.
    DriverFeatureSelect: u32 @ 8: RW, Common;
    /// Those.
    DriverFeature: u32 @ 12: RW, Common;
    /// The vector of configuration changes.
    ConfigVector: u16 @ 16: RW, Common;
    /// How many queues there are, without those for administration.
    NumQueues: u16 @ 18: R, Common;
    /// The device status; writing 0 resets the device.
    Status: u8 @ 20: RW, Common;
    /// Changes whenever the device changes its configuration.
    ConfigGeneration: u8 @ 21: R, Common;
    /// Selects a queue.
    QueueSelect: u16 @ 22: RW, Common;
    /// How many descriptors it can have, then how many it has; 0 if there is no such queue.
    QueueSize: u16 @ 24: RW, Common;
    /// Its vector.
    QueueVector: u16 @ 26: RW, Common;
    /// 1 gives it to the device; 0 must not be written.
    QueueEnable: u16 @ 28: RW, Common;
    /// Where its notifications go, in units of the multiplier.
    QueueNotifyOff: u16 @ 30: R, Common;
    /// Descriptor area, low half of its address.
    QueueDescLow: u32 @ 32: RW, Common;
    /// High half.
    QueueDescHigh: u32 @ 36: RW, Common;
    /// Driver area, low half of its address.
    QueueDriverLow: u32 @ 40: RW, Common;
    /// High half.
    QueueDriverHigh: u32 @ 44: RW, Common;
    /// Device area, low half of its address.
    QueueDeviceLow: u32 @ 48: RW, Common;
    /// High half.
    QueueDeviceHigh: u32 @ 52: RW, Common;
    /// 1 resets the queue, with `VIRTIO_F_RING_RESET`; 0 when that is done.
    QueueReset: u16 @ 58: RW, Later;
    /// The first queue for administration, with `VIRTIO_F_ADMIN_VQ`.
    AdminQueueIndex: u16 @ 60: R, Later;
    /// How many of them there are.
    AdminQueueNum: u16 @ 62: R, Later;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_aligned_and_apart() {
        let mut end = 0;

        for (name, offset, width, _, _) in ALL {
            assert!(*offset >= end, "{name}");
            assert_eq!(offset % width, 0, "{name}");
            end = offset + width;
        }
        assert!(end <= ALL_KNOWN);
    }

    #[test]
    fn only_later_ones_are_beyond_the_minimum() {
        for (name, offset, width, _, has) in ALL {
            assert_eq!(offset + width <= COMMON, *has == "Common", "{name}");
        }
        assert_eq!(QueueReset::END, 60);
        assert_eq!(AdminQueueNum::END, ALL_KNOWN);
    }

    #[test]
    fn what_belongs_to_the_device_is_not_written() {
        let of = |access| {
            let found = ALL.iter().filter(|register| register.3 == access);
            found.map(|register| register.1).collect::<Vec<_>>()
        };

        assert_eq!(of("R"), [4, 18, 21, 30, 60, 62]);
    }
}
