// SPDX-License-Identifier: GPL-2.0

//! Integers as a device sees them: little-endian, naturally aligned, without arithmetic.
//!
//! A value must be converted by name before it can be used, so that a missing conversion does not
//! compile. Follows Virtio 1.4, 1.4 (all multi-byte fields are little-endian). Legacy devices use
//! the byte order of the CPU instead: [`Virtio32`] and its like need a [`ByteOrder`] to convert.
//! Uses only `core`.
//!
//! # Examples
//!
//! ```
//! use crate::virtio::endian::{
//!     ByteOrder,
//!     Le32,
//!     Virtio32, //
//! };
//!
//! assert_eq!(Le32::from_cpu(0x1234).to_bytes(), [0x34, 0x12, 0, 0]);
//! assert_eq!(Le32::from_bytes([0x34, 0x12, 0, 0]).to_cpu(), 0x1234);
//!
//! let legacy = Virtio32::from_cpu(0x1234, ByteOrder::Native);
//!
//! assert_eq!(legacy.to_bytes(), 0x1234_u32.to_ne_bytes());
//! ```

macro_rules! little_endian {
    ($(#[$doc:meta] $name:ident($int:ty);)*) => {$(
        #[$doc]
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct $name($int);

        impl $name {
            /// Converts from the byte order of the CPU.
            pub const fn from_cpu(value: $int) -> Self {
                Self(value.to_le())
            }

            /// Converts to the byte order of the CPU.
            pub const fn to_cpu(self) -> $int {
                <$int>::from_le(self.0)
            }

            /// The bytes as they stand in memory.
            pub const fn to_bytes(self) -> [u8; size_of::<$int>()] {
                self.0.to_ne_bytes()
            }

            /// Takes the bytes as they stand in memory.
            pub const fn from_bytes(bytes: [u8; size_of::<$int>()]) -> Self {
                Self(<$int>::from_ne_bytes(bytes))
            }
        }
    )*};
}

little_endian! {
    /// A 16-bit little-endian integer in memory that a device reads or writes.
    Le16(u16);
    /// A 32-bit little-endian integer in memory that a device reads or writes.
    Le32(u32);
    /// A 64-bit little-endian integer in memory that a device reads or writes.
    Le64(u64);
}

macro_rules! by_device {
    ($(#[$doc:meta] $name:ident($int:ty);)*) => {$(
        #[$doc]
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct $name($int);

        impl $name {
            /// Converts from the byte order of the CPU.
            pub const fn from_cpu(value: $int, order: ByteOrder) -> Self {
                match order {
                    ByteOrder::Little => Self(value.to_le()),
                    ByteOrder::Native => Self(value),
                }
            }

            /// Converts to the byte order of the CPU.
            pub const fn to_cpu(self, order: ByteOrder) -> $int {
                match order {
                    ByteOrder::Little => <$int>::from_le(self.0),
                    ByteOrder::Native => self.0,
                }
            }

            /// The bytes as they stand in memory.
            pub const fn to_bytes(self) -> [u8; size_of::<$int>()] {
                self.0.to_ne_bytes()
            }

            /// Takes the bytes as they stand in memory.
            pub const fn from_bytes(bytes: [u8; size_of::<$int>()]) -> Self {
                Self(<$int>::from_ne_bytes(bytes))
            }
        }
    )*};
}

by_device! {
    /// A 16-bit integer in memory that a device reads or writes, little-endian or legacy.
    Virtio16(u16);
    /// A 32-bit integer in memory that a device reads or writes, little-endian or legacy.
    Virtio32(u32);
    /// A 64-bit integer in memory that a device reads or writes, little-endian or legacy.
    Virtio64(u64);
}

/// The byte order of a device's buffers where the specification leaves it to the kind of interface
/// (Virtio 1.4, 2.5.3 and the legacy sections of chapter 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteOrder {
    /// Little-endian: devices with `VERSION_1`.
    Little,
    /// That of the CPU: legacy devices.
    Native,
}

impl ByteOrder {
    /// The bytes of a 16-bit integer as the device wants them.
    pub const fn bytes_of_u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Native => value.to_ne_bytes(),
        }
    }

    /// The bytes of a 32-bit integer as the device wants them.
    pub const fn bytes_of_u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Native => value.to_ne_bytes(),
        }
    }

    /// The bytes of a 64-bit integer as the device wants them.
    pub const fn bytes_of_u64(self, value: u64) -> [u8; 8] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Native => value.to_ne_bytes(),
        }
    }
}
