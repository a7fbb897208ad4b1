// SPDX-License-Identifier: GPL-2.0

//! Device configuration space and feature bits: what both sides of a virtio device agree on.
//!
//! Owns the typed description of configuration fields and the 128-bit feature set. It does not
//! access a device: `virtio/device.rs` does that with the types of this file. Everything here uses
//! only `core`, so that it can be tested on a host.
//!
//! Follows Virtio 1.4, 2.2 (feature bits) and 2.5 (device configuration space).

use core::marker::PhantomData;

/// Bit number of a feature (Virtio 1.4, 2.2), in `0..Features::BITS`.
pub type FeatureBit = u32;

/// `VIRTIO_F_INDIRECT_DESC`: a buffer may be described in a table of its own (Virtio 1.4, 6).
pub const RING_INDIRECT_DESC: FeatureBit = 28;

/// `VIRTIO_F_VERSION_1`: the device follows Virtio 1.0 or later (Virtio 1.4, 6).
pub const VERSION_1: FeatureBit = 32;

/// `VIRTIO_F_ACCESS_PLATFORM`: device addresses are translated by the platform (Virtio 1.4, 6).
pub const ACCESS_PLATFORM: FeatureBit = 33;

/// A set of feature bits.
///
/// Bit `n` stands in word `n / 64`, as in `features_array` of `include/linux/virtio.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features([u64; 2]);

impl Features {
    /// Number of feature bits that a set can hold.
    pub const BITS: FeatureBit = 128;

    /// Makes a set of its two words, the low one first.
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// Returns the two words, the low one first.
    pub const fn words(self) -> [u64; 2] {
        self.0
    }

    /// Tells whether `bit` is in the set; a bit beyond [`Self::BITS`] never is.
    pub const fn has(self, bit: FeatureBit) -> bool {
        match bit {
            0..=63 => self.0[0] >> bit & 1 == 1,
            64..=127 => self.0[1] >> (bit - 64) & 1 == 1,
            _ => false,
        }
    }

    /// Returns the set without `bit`.
    pub const fn without(self, bit: FeatureBit) -> Self {
        match bit {
            0..=63 => Self([self.0[0] & !(1 << bit), self.0[1]]),
            64..=127 => Self([self.0[0], self.0[1] & !(1 << (bit - 64))]),
            _ => self,
        }
    }
}

/// A field of the device configuration space, `T` wide, at a fixed offset.
///
/// `T` names width and byte order: [`Le32`](crate::virtio::Le32) is little-endian on every device.
/// The first fields of a device exist always; one that depends on a feature is declared with
/// [`Field::gated`] and must not be touched unless the feature was negotiated (Virtio 1.4, 2.5.1).
#[derive(Clone, Copy)]
pub struct Field<T> {
    offset: u32,
    feature: Option<FeatureBit>,
    _width: PhantomData<T>,
}

impl<T> Field<T> {
    /// A field at `offset` bytes that every device of its type has.
    pub const fn new(offset: u32) -> Self {
        Self {
            offset,
            feature: None,
            _width: PhantomData,
        }
    }

    /// A field at `offset` bytes that exists if `feature` was negotiated.
    pub const fn gated(offset: u32, feature: FeatureBit) -> Self {
        Self {
            offset,
            feature: Some(feature),
            _width: PhantomData,
        }
    }

    /// Offset from the start of the device configuration space, in bytes.
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    /// Tells whether the field exists on a device that negotiated `features`.
    pub const fn exists(&self, features: Features) -> bool {
        match self.feature {
            None => true,
            Some(bit) => features.has(bit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fall_into_the_right_word() {
        let set = Features::from_words([1 << 32, 1 << 63]);

        for bit in 0..=Features::BITS {
            assert_eq!(set.has(bit), bit == VERSION_1 || bit == 127, "bit {bit}");
        }
        assert!(!set.has(FeatureBit::MAX));
    }

    #[test]
    fn without_takes_out_one_bit_only() {
        let all = Features::from_words([u64::MAX; 2]);

        assert_eq!(all.without(0).words(), [!1, u64::MAX]);
        assert_eq!(all.without(63).words(), [!(1 << 63), u64::MAX]);
        assert_eq!(all.without(64).words(), [u64::MAX, !1]);
        assert_eq!(all.without(127).words(), [u64::MAX, !(1 << 63)]);
        assert_eq!(all.without(Features::BITS), all);
        assert_eq!(all.without(5).without(5), all.without(5));
    }

    #[test]
    fn gated_field_exists_with_its_feature_only() {
        let none = Features::default();
        let field = Field::<u32>::gated(8, 70);

        assert!(Field::<u32>::new(0).exists(none));
        assert!(!field.exists(none));
        assert!(field.exists(Features::from_words([0, 1 << 6])));
        assert_eq!(field.offset(), 8);
    }
}
