// SPDX-License-Identifier: GPL-2.0

//! Device configuration space and feature bits: what both sides of a virtio device agree on.
//!
//! Owns the typed description of configuration fields and the 128-bit feature set. It does not
//! access a device: `virtio/device.rs` does that with the types of this file. Everything here uses
//! only `core`, so that it can be tested on a host (`tests/units/`).
//!
//! Follows Virtio 1.4, 2.2 (feature bits) and 2.5 (device configuration space).

use crate::virtio::endian::{
    ByteOrder,
    Le16,
    Le32,
    Le64,
    Virtio16,
    Virtio32,
    Virtio64, //
};

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
///
/// # Examples
///
/// ```
/// use crate::config::{
///     Features,
///     VERSION_1, //
/// };
///
/// let offered = Features::of(&[3, 7, VERSION_1]);
/// let known = Features::of(&[3, 9, VERSION_1]);
/// let agreed = Features::negotiate(offered, known, None);
///
/// assert_eq!(agreed, Features::of(&[3, VERSION_1]));
/// assert!(agreed.has(3) && !agreed.without(3).has(3));
/// assert_eq!(offered.difference(agreed).iter().next(), Some(7));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features([u64; 2]);

impl Features {
    /// Number of feature bits that a set can hold.
    pub const BITS: FeatureBit = 128;

    /// The set without any bit.
    pub const EMPTY: Self = Self([0; 2]);

    /// The bits of rings and transports, 28 to 41: the transport decides on them, not the driver
    /// (`VIRTIO_TRANSPORT_F_START` and `_END` of `include/uapi/linux/virtio_config.h`).
    pub const TRANSPORT: Self = Self([(1 << 42) - (1 << 28), 0]);

    /// Makes a set of its two words, the low one first.
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// Makes a set of a list of bits; those beyond [`Self::BITS`] are left out.
    pub fn of(bits: &[FeatureBit]) -> Self {
        bits.iter().fold(Self::EMPTY, |set, bit| set.with(*bit))
    }

    /// Returns the two words, the low one first.
    pub const fn words(self) -> [u64; 2] {
        self.0
    }

    /// The set of one bit; empty for a bit beyond [`Self::BITS`].
    const fn only(bit: FeatureBit) -> Self {
        match bit {
            0..=63 => Self([1 << bit, 0]),
            64..=127 => Self([0, 1 << (bit - 64)]),
            _ => Self::EMPTY,
        }
    }

    /// Tells whether `bit` is in the set; a bit beyond [`Self::BITS`] never is.
    pub const fn has(self, bit: FeatureBit) -> bool {
        !self.intersection(Self::only(bit)).is_empty()
    }

    /// Returns the set with `bit`; a bit beyond [`Self::BITS`] changes nothing.
    pub const fn with(self, bit: FeatureBit) -> Self {
        self.union(Self::only(bit))
    }

    /// Returns the set without `bit`.
    pub const fn without(self, bit: FeatureBit) -> Self {
        self.difference(Self::only(bit))
    }

    /// The bits that are in either set.
    pub const fn union(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }

    /// The bits that are in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }

    /// The bits of this set that are not in the other.
    pub const fn difference(self, other: Self) -> Self {
        Self([self.0[0] & !other.0[0], self.0[1] & !other.0[1]])
    }

    /// Tells whether there is no bit in the set.
    pub const fn is_empty(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0
    }

    /// Tells whether all bits of this set are in the other, too.
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.difference(other).is_empty()
    }

    /// The bits of the set, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = FeatureBit> {
        (0..Self::BITS).filter(move |bit| self.has(*bit))
    }

    /// What a device that offers `offered` and a driver that can use `driver` agree on, before
    /// the transport and the driver have looked at it (Virtio 1.4, 2.2 and 6).
    ///
    /// A device without [`VERSION_1`] is a legacy device: it has 64 bits, and a driver may have
    /// another set for it, `legacy`. The bits of [`Self::TRANSPORT`] that the device offers stay
    /// in: what the transport does not know it takes out itself.
    pub fn negotiate(offered: Self, driver: Self, legacy: Option<Self>) -> Self {
        let common = match offered.has(VERSION_1) {
            true => driver.intersection(offered),
            false => {
                let [low, _] = legacy.unwrap_or(driver).intersection(offered).words();
                Self([low, 0])
            }
        };
        common.union(offered.intersection(Self::TRANSPORT))
    }
}

/// The type of a configuration field: how wide it is, and its byte order.
///
/// - `u8` and `[u8; N]`: bytes.
/// - [`Le16`], [`Le32`], [`Le64`]: little-endian on every device; all devices that came with or
///   after Virtio 1.0, and the traditional balloon (Virtio 1.4, 5.5.4).
/// - [`Virtio16`], [`Virtio32`], [`Virtio64`]: little-endian, but in the byte order of the CPU on
///   legacy devices (Virtio 1.4, 2.5.3): the devices that are older.
pub trait Value {
    /// What the field is for the driver.
    type Cpu;

    /// The bytes as they stand in the configuration space.
    type Bytes: AsRef<[u8]> + AsMut<[u8]> + PartialEq;

    /// So many zero bytes.
    const ZERO: Self::Bytes;

    /// The width of one access in bytes (Virtio 1.4, 4.1.3.1 and 4.2.2.2): that of the field, or
    /// 1 for an array of bytes.
    const ACCESS: usize;

    /// Converts what was read from a device with buffers in `order`.
    fn from_bytes(bytes: Self::Bytes, order: ByteOrder) -> Self::Cpu;

    /// Converts to what such a device wants to be written.
    fn to_bytes(value: Self::Cpu, order: ByteOrder) -> Self::Bytes;
}

impl<const N: usize> Value for [u8; N] {
    type Cpu = [u8; N];
    type Bytes = [u8; N];
    const ZERO: [u8; N] = [0; N];
    const ACCESS: usize = 1;

    fn from_bytes(bytes: [u8; N], _order: ByteOrder) -> [u8; N] {
        bytes
    }

    fn to_bytes(value: [u8; N], _order: ByteOrder) -> [u8; N] {
        value
    }
}

impl Value for u8 {
    type Cpu = u8;
    type Bytes = [u8; 1];
    const ZERO: [u8; 1] = [0];
    const ACCESS: usize = 1;

    fn from_bytes([byte]: [u8; 1], _order: ByteOrder) -> u8 {
        byte
    }

    fn to_bytes(value: u8, _order: ByteOrder) -> [u8; 1] {
        [value]
    }
}

macro_rules! integers {
    ($($cpu:ident, $bits:literal: $little:ident, $virtio:ident;)*) => {$(
        impl Value for $little {
            type Cpu = $cpu;
            type Bytes = [u8; $bits / 8];
            const ZERO: Self::Bytes = [0; $bits / 8];
            const ACCESS: usize = $bits / 8;

            fn from_bytes(bytes: Self::Bytes, _order: ByteOrder) -> $cpu {
                Self::from_bytes(bytes).to_cpu()
            }

            fn to_bytes(value: $cpu, _order: ByteOrder) -> Self::Bytes {
                Self::from_cpu(value).to_bytes()
            }
        }

        impl Value for $virtio {
            type Cpu = $cpu;
            type Bytes = [u8; $bits / 8];
            const ZERO: Self::Bytes = [0; $bits / 8];
            const ACCESS: usize = $bits / 8;

            fn from_bytes(bytes: Self::Bytes, order: ByteOrder) -> $cpu {
                Self::from_bytes(bytes).to_cpu(order)
            }

            fn to_bytes(value: $cpu, order: ByteOrder) -> Self::Bytes {
                Self::from_cpu(value, order).to_bytes()
            }
        }
    )*};
}

integers! {
    u16, 16: Le16, Virtio16;
    u32, 32: Le32, Virtio32;
    u64, 64: Le64, Virtio64;
}

/// A field of the device configuration space, of type `T`, at a fixed offset.
///
/// `T` names width and byte order, see [`Value`]. The first fields of a device exist always; one
/// that depends on a feature is declared with [`Field::gated`], and reading or writing it without
/// the feature is an error that does not reach the device (Virtio 1.4, 2.5.1).
///
/// Declare fields as constants: an offset that is not aligned then does not compile.
///
/// # Examples
///
/// Some of a disk's fields (Virtio 1.4, 5.2.4):
///
/// ```
/// use crate::{
///     config::Features,
///     virtio::prelude::*, //
/// };
///
/// const SEG_MAX: FeatureBit = 2;
///
/// const CAPACITY: Field<Virtio64> = Field::new(0);
/// const SEGMENTS: Field<Virtio32> = Field::gated(12, SEG_MAX);
///
/// /// How many bytes the disk has, and of how many parts a request may be.
/// fn size(dev: &Device<Bound>) -> Result<(u64, Option<u32>)> {
///     let sectors = dev.read(&CAPACITY)?;
///
///     Ok((sectors.saturating_mul(512), dev.read(&SEGMENTS).ok()))
/// }
///
/// assert!(CAPACITY.tears() && !SEGMENTS.tears());
/// assert!(!SEGMENTS.exists(Features::EMPTY));
/// assert!(SEGMENTS.exists(Features::of(&[SEG_MAX])));
/// ```
#[derive(Clone, Copy)]
pub struct Field<T> {
    offset: u32,
    feature: Option<FeatureBit>,
    _type: PhantomData<T>,
}

impl<T: Value> Field<T> {
    /// A field at `offset` bytes that every device of its type has.
    pub const fn new(offset: u32) -> Self {
        // PANIC: Fields are constants, so this happens when they are compiled.
        // CAST: An offset fits.
        assert!(offset as usize % T::ACCESS == 0, "a field must be aligned");
        Self {
            offset,
            feature: None,
            _type: PhantomData,
        }
    }

    /// A field at `offset` bytes that exists if `feature` was negotiated.
    pub const fn gated(offset: u32, feature: FeatureBit) -> Self {
        Self {
            feature: Some(feature),
            ..Self::new(offset)
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

    /// Reads the field by accesses of the width that its type asks for.
    ///
    /// `get` reads as many bytes as it is given, from an offset in the space.
    pub fn read_by(&self, mut get: impl FnMut(u32, &mut [u8])) -> T::Bytes {
        let mut bytes = T::ZERO;
        let parts = bytes.as_mut().chunks_exact_mut(T::ACCESS);

        for (offset, part) in (self.offset..).step_by(T::ACCESS).zip(parts) {
            get(offset, part);
        }
        bytes
    }

    /// Writes the field by accesses of the width that its type asks for.
    ///
    /// `set` writes the bytes that it is given, to an offset in the space.
    pub fn write_by(&self, bytes: &T::Bytes, mut set: impl FnMut(u32, &[u8])) {
        let parts = bytes.as_ref().chunks_exact(T::ACCESS);

        for (offset, part) in (self.offset..).step_by(T::ACCESS).zip(parts) {
            set(offset, part);
        }
    }

    /// Tells whether the device may change the field while it is read (Virtio 1.4, 2.5.1).
    pub const fn tears(&self) -> bool {
        size_of::<T::Bytes>() > T::ACCESS || T::ACCESS > 4
    }
}

/// How often a device may change its configuration while it is read: more often, and it will be
/// doing so for ever.
pub const MAX_CHANGES: usize = 64;

/// Reads something that takes several accesses until it is sure that all of it belongs together
/// (Virtio 1.4, 2.5.1 and 2.5.4).
///
/// `generation` reads the generation counter of the configuration, `None` on devices that have
/// none, legacy ones: there two results in a row must agree. `None` if the device changed its
/// configuration [`MAX_CHANGES`] times.
///
/// # Examples
///
/// ```
/// use crate::config::consistent;
/// use core::cell::Cell;
///
/// // The device changes its configuration once, between the two parts.
/// let generation = Cell::new(0);
/// let mut parts = [(1, 2), (3, 4)].into_iter();
/// let read = || {
///     let read = parts.next().ok_or(ENOENT)?;
///
///     generation.set(1);
///     Ok::<_, Error>(read)
/// };
///
/// assert_eq!(consistent(|| Some(generation.get()), read)?, Some((3, 4)));
/// ```
///
/// # Errors
///
/// What `read` says.
pub fn consistent<R: PartialEq, E>(
    mut generation: impl FnMut() -> Option<u32>,
    mut read: impl FnMut() -> Result<R, E>,
) -> Result<Option<R>, E> {
    let mut before = (generation(), None);

    for _ in 0..=MAX_CHANGES {
        let value = Some(read()?);
        let now = generation();
        let same = match now {
            Some(_) => now == before.0,
            None => value == before.1,
        };
        if same {
            return Ok(value);
        }
        before = (now, value);
    }
    Ok(None)
}
