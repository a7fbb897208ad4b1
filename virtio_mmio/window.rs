// SPDX-License-Identifier: GPL-2.0

//! Access to a device's registers and to its configuration space.
//!
//! Owns the rules of single accesses (Virtio 1.4, 4.2.2.2): control registers as aligned words of
//! 32 bits, configuration fields in their natural width, 64 bits in two halves, and bytes only on
//! legacy devices.

#![deny(unsafe_code)]

use super::{
    regs::{
        self,
        Readable,
        Writable, //
    },
    transport::Version, //
};
use crate::kernel_ext::mmio;

use kernel::{
    io::{
        Io,
        Mmio,
        Region, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// The size of a page, as registers of legacy devices take it, in bytes.
// CAST: Page sizes are far below 2^32.
pub(crate) const PAGE_BYTES: u32 = PAGE_SIZE as u32;

/// The memory of a device: its registers and behind them its configuration space.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a>(Mmio<'a, Region<{ regs::CONFIG }>>);

impl<R: regs::Register> mmio::Register<{ regs::CONFIG }> for R {
    const OFFSET: usize = R::OFFSET;
}

impl<'a> Window<'a> {
    /// The window on a device.
    pub(crate) fn new(memory: Mmio<'a, Region<{ regs::CONFIG }>>) -> Self {
        Self(memory)
    }

    /// Reads a register.
    #[inline(always)]
    pub(crate) fn read<R: Readable>(&self, _register: R) -> u32 {
        mmio::read::<R, _>(self.0)
    }

    /// Writes a register.
    #[inline(always)]
    pub(crate) fn write<R: Writable>(&self, _register: R, value: u32) {
        mmio::write::<R, _>(self.0, value);
    }

    /// Writes both halves of an address or of a set, the low one first.
    pub(crate) fn write_halves<L: Writable, H: Writable>(&self, low: L, high: H, value: u64) {
        let (low_half, high_half) = halves(value);

        self.write(low, low_half);
        self.write(high, high_half);
    }

    /// Reads both halves of an address or of a length.
    pub(crate) fn read_halves<L: Readable, H: Readable>(&self, low: L, high: H) -> u64 {
        u64::from(self.read(low)) | u64::from(self.read(high)) << 32
    }

    /// Says to a legacy device in which pages queues are described; before any of them is made.
    pub(crate) fn set_page_size(&self, version: Version) {
        if version == Version::Legacy {
            self.write(regs::GuestPageSize, PAGE_BYTES);
        }
    }

    /// Tells whether the device is not there any more: no register reads as anything else.
    pub(crate) fn is_gone(&self) -> bool {
        self.read(regs::MagicValue) == regs::GONE
    }

    /// Reads the configuration space from `offset` on, in the width of `bytes` if that is the one
    /// of a field, else in bytes. Two halves of a field may be from different generations.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the device has no memory there.
    pub(crate) fn read_config(&self, offset: usize, bytes: &mut [u8]) -> Result {
        let place = place(offset, bytes.len())?;

        match bytes.len() {
            2 if place % 2 == 0 => {
                bytes.copy_from_slice(&self.0.try_read16(place)?.to_le_bytes());
            }
            4 | 8 if place % 4 == 0 => {
                for (word, place) in bytes.chunks_exact_mut(4).zip((place..).step_by(4)) {
                    word.copy_from_slice(&self.0.try_read32(place)?.to_le_bytes());
                }
            }
            _ => return self.read_bytes(offset, bytes),
        }
        Ok(())
    }

    /// Writes the configuration space; otherwise as [`Self::read_config`].
    pub(crate) fn write_config(&self, offset: usize, bytes: &[u8]) -> Result {
        let place = place(offset, bytes.len())?;

        match *bytes {
            [a, b] if place % 2 == 0 => self.0.try_write16(u16::from_le_bytes([a, b]), place),
            [a, b, c, d] if place % 4 == 0 => {
                self.0.try_write32(u32::from_le_bytes([a, b, c, d]), place)
            }
            [a, b, c, d, e, f, g, h] if place % 4 == 0 => {
                self.0
                    .try_write32(u32::from_le_bytes([a, b, c, d]), place)?;
                self.0
                    .try_write32(u32::from_le_bytes([e, f, g, h]), place + 4)
            }
            _ => self.write_bytes(offset, bytes),
        }
    }

    /// Reads the configuration space byte by byte, as legacy devices want it.
    ///
    /// # Errors
    ///
    /// As for [`Self::read_config`].
    pub(crate) fn read_bytes(&self, offset: usize, bytes: &mut [u8]) -> Result {
        let place = place(offset, bytes.len())?;

        for (byte, place) in bytes.iter_mut().zip(place..) {
            *byte = self.0.try_read8(place)?;
        }
        Ok(())
    }

    /// Writes the configuration space byte by byte; otherwise as [`Self::read_bytes`].
    pub(crate) fn write_bytes(&self, offset: usize, bytes: &[u8]) -> Result {
        let place = place(offset, bytes.len())?;

        for (byte, place) in bytes.iter().zip(place..) {
            self.0.try_write8(*byte, place)?;
        }
        Ok(())
    }
}

/// Where `len` bytes at `offset` of the configuration space begin in the window.
fn place(offset: usize, len: usize) -> Result<usize> {
    let place = regs::CONFIG.checked_add(offset).ok_or(EINVAL)?;

    place.checked_add(len).ok_or(EINVAL)?;
    Ok(place)
}

/// The low and the high 32 bits.
pub(crate) const fn halves(value: u64) -> (u32, u32) {
    // CAST: Each takes the half it names.
    (value as u32, (value >> 32) as u32)
}
