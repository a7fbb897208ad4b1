// SPDX-License-Identifier: GPL-2.0

//! Integers as a device sees them: little-endian, naturally aligned, without arithmetic.
//!
//! A value must be converted by name before it can be used, so that a missing conversion does not
//! compile. Follows Virtio 1.4, 1.4 (all multi-byte fields are little-endian).

use kernel::transmute::AsBytes;

/// A 32-bit little-endian integer in memory that a device reads or writes.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Le32(u32);

impl Le32 {
    /// Converts from the byte order of the CPU.
    pub const fn from_cpu(value: u32) -> Self {
        Self(value.to_le())
    }

    /// Converts to the byte order of the CPU.
    pub const fn to_cpu(self) -> u32 {
        u32::from_le(self.0)
    }

    /// The four bytes as they stand in memory.
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// Takes the four bytes as they stand in memory.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }
}

// SAFETY: `Le32` is a transparent `u32`, all of whose bytes are initialised.
unsafe impl AsBytes for Le32 {}
