// SPDX-License-Identifier: GPL-2.0

//! What driver and device agree on: the structures of both ring formats and where they lie.
//!
//! Uses only `core`. Follows Virtio 1.4, 2.7 (split virtqueues) and 2.8 (packed virtqueues).

#![deny(unsafe_code)]

use crate::virtio::endian::{
    Le16,
    Le32,
    Le64, //
};

/// The largest queue that either format allows (Virtio 1.4, 2.7 and 2.8.10.1), in descriptors.
pub(crate) const MAX_SIZE: u32 = 32768;

/// Flags of a descriptor (Virtio 1.4, 2.7.5 and 2.8.14).
pub(crate) mod desc {
    /// The buffer goes on in another descriptor.
    pub(crate) const NEXT: u16 = 1;
    /// The device writes this part; without it, it reads it.
    pub(crate) const WRITE: u16 = 2;
    /// The descriptor points at a table of descriptors.
    pub(crate) const INDIRECT: u16 = 4;
    /// Packed ring: equals the driver's wrap counter when the descriptor is available.
    pub(crate) const AVAIL: u16 = 1 << 7;
    /// Packed ring: equals [`AVAIL`] when the descriptor was used.
    pub(crate) const USED: u16 = 1 << 15;
}

/// Flags of the rings of a split virtqueue (Virtio 1.4, 2.7.6 and 2.7.8).
pub(crate) mod split_flags {
    /// In the available ring: the driver does not want to be notified.
    pub(crate) const NO_INTERRUPT: u16 = 1;
    /// In the used ring: the device does not want to be notified.
    pub(crate) const NO_NOTIFY: u16 = 1;
}

/// Values of `flags` in an event suppression structure (Virtio 1.4, 2.8.14).
pub(crate) mod event_flags {
    /// Notify always.
    pub(crate) const ENABLE: u16 = 0;
    /// Notify never.
    pub(crate) const DISABLE: u16 = 1;
    /// Notify when the descriptor named in `off_wrap` is reached.
    pub(crate) const DESC: u16 = 2;
}

/// One piece of a buffer, as the ring describes it to the device.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    /// Address for the device.
    pub(crate) addr: u64,
    /// Length in bytes.
    pub(crate) len: u32,
    /// [`desc::WRITE`] if the device writes it.
    pub(crate) flags: u16,
    /// Whether the ring maps it, and so has to unmap it; of no meaning when the queue does not map.
    pub(crate) mapped: bool,
}

impl Piece {
    /// Whether the device writes it.
    #[inline(always)]
    pub(crate) fn writable(&self) -> bool {
        self.flags & desc::WRITE != 0
    }

    /// How many bytes the device may write.
    #[inline(always)]
    pub(crate) fn writable_len(&self) -> u32 {
        // No branch, and the same for all pieces of a list.
        let mask = u32::from(self.writable()).wrapping_neg();
        self.len & mask
    }
}

/// A descriptor of a split virtqueue (Virtio 1.4, 2.7.5); the driver writes all of it.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub(crate) struct Desc {
    /// Address for the device.
    pub(crate) addr: Le64,
    /// Length in bytes.
    pub(crate) len: Le32,
    /// See [`desc`].
    pub(crate) flags: Le16,
    /// With [`desc::NEXT`]: where the buffer goes on.
    pub(crate) next: Le16,
}

impl Desc {
    /// Describes `len` bytes at `addr`.
    #[inline(always)]
    pub(crate) fn new(addr: u64, len: u32, flags: u16, next: u16) -> Self {
        Self {
            addr: Le64::from_cpu(addr),
            len: Le32::from_cpu(len),
            flags: Le16::from_cpu(flags),
            next: Le16::from_cpu(next),
        }
    }
}

/// A descriptor of a packed virtqueue (Virtio 1.4, 2.8.14); the device writes it back when used.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub(crate) struct PackedDesc {
    /// Address for the device.
    pub(crate) addr: Le64,
    /// Length in bytes.
    pub(crate) len: Le32,
    /// Number of the buffer.
    pub(crate) id: Le16,
    /// See [`desc`].
    pub(crate) flags: Le16,
}

impl PackedDesc {
    /// Describes `len` bytes at `addr`.
    #[inline(always)]
    pub(crate) fn new(addr: u64, len: u32, id: u16, flags: u16) -> Self {
        Self {
            addr: Le64::from_cpu(addr),
            len: Le32::from_cpu(len),
            id: Le16::from_cpu(id),
            flags: Le16::from_cpu(flags),
        }
    }
}

/// Bytes from the start of a split queue to the parts of it (Virtio 1.4, 2.7 and 2.7.2).
///
/// The descriptor table comes first: 16 bytes each. The available ring follows: `flags`, `idx`, one
/// 16-bit entry each, `used_event`. The used ring begins at the next multiple of the alignment:
/// `flags`, `idx`, 8 bytes each (`id`, `len`), `avail_event`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SplitLayout {
    /// Number of descriptors, a power of two.
    pub(crate) size: u16,
    /// Where the available ring begins.
    pub(crate) avail: usize,
    /// Where the used ring begins.
    pub(crate) used: usize,
    /// Size of the whole queue.
    pub(crate) bytes: usize,
}

impl SplitLayout {
    /// The layout of a queue of `size` descriptors whose used ring is aligned to `align` bytes.
    ///
    /// `None` unless `size` is a power of two up to [`MAX_SIZE`] and `align` one of at least 4.
    pub(crate) fn new(size: u32, align: usize) -> Option<Self> {
        if !size.is_power_of_two() || size > MAX_SIZE || !align.is_power_of_two() || align < 4 {
            return None;
        }
        let size = u16::try_from(size).ok()?;
        let count = usize::from(size);
        let avail = count.checked_mul(16)?;
        let used = avail
            .checked_add(6)?
            .checked_add(count.checked_mul(2)?)?
            .checked_next_multiple_of(align)?;
        let bytes = used.checked_add(6)?.checked_add(count.checked_mul(8)?)?;
        Some(Self {
            size,
            avail,
            used,
            bytes,
        })
    }
}

/// Bytes from the start of a packed queue to the parts of it (Virtio 1.4, 2.8).
///
/// The descriptor ring comes first: 16 bytes each. The event suppression structures of the driver
/// and of the device follow, in cache lines of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PackedLayout {
    /// Number of descriptors.
    pub(crate) size: u16,
    /// Where the driver's event suppression structure is.
    pub(crate) driver: usize,
    /// Where the device's event suppression structure is.
    pub(crate) device: usize,
    /// Size of the whole queue.
    pub(crate) bytes: usize,
}

impl PackedLayout {
    /// The layout of a queue of `size` descriptors; `None` unless that is 1 to [`MAX_SIZE`].
    pub(crate) fn new(size: u32) -> Option<Self> {
        const LINE: usize = 64;
        if size == 0 || size > MAX_SIZE {
            return None;
        }
        let size = u16::try_from(size).ok()?;
        let driver = usize::from(size)
            .checked_mul(16)?
            .checked_next_multiple_of(LINE)?;
        let device = driver.checked_add(LINE)?;
        let bytes = device.checked_add(LINE)?;
        Some(Self {
            size,
            driver,
            device,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_specification() {
        assert_eq!(size_of::<Desc>(), 16);
        assert_eq!(size_of::<PackedDesc>(), 16);
        let one = SplitLayout::new(1, 4).unwrap();
        assert_eq!((one.avail, one.used, one.bytes), (16, 24, 38));
        let legacy = SplitLayout::new(256, 4096).unwrap();
        assert_eq!(
            (legacy.avail, legacy.used, legacy.bytes),
            (4096, 8192, 10246)
        );
        assert!(SplitLayout::new(32768, 64).is_some());
        let odd = PackedLayout::new(3).unwrap();
        assert_eq!((odd.driver, odd.device, odd.bytes), (64, 128, 192));
        assert!(PackedLayout::new(32768).is_some());
    }

    #[test]
    fn sizes_no_queue_has() {
        for size in [0, 3, 65535, 65536, u32::MAX] {
            assert_eq!(SplitLayout::new(size, 64), None);
        }
        for size in [0, 32769, 65536, u32::MAX] {
            assert_eq!(PackedLayout::new(size), None);
        }
        assert_eq!(SplitLayout::new(256, 0), None);
        assert_eq!(SplitLayout::new(256, 3), None);
    }
}
