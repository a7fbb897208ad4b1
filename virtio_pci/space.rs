// SPDX-License-Identifier: GPL-2.0

//! The device configuration space of a modern device (Virtio 1.4, 4.1.4.6).
//!
//! Fields are accessed in their natural width, 64 bits in two halves (4.1.3.1).

#![deny(unsafe_code)]

use super::{
    caps::Place,
    structures, //
};
use crate::kernel_ext::pci_io::{
    Mapping,
    Regions, //
};

use kernel::{
    device::Bound,
    page::PAGE_SIZE,
    pci,
    prelude::*,
    sync::Arc, //
};

/// A device configuration space.
pub(super) struct Space<'bound>(Mapping<'bound>);

impl<'bound> Space<'bound> {
    /// The one at `place`, up to the size of a page, which is more than any device has.
    ///
    /// # Errors
    ///
    /// As for [`structures::map`].
    pub(super) fn new(
        pci: &pci::Device<Bound>,
        regions: &Arc<Regions<'bound>>,
        place: Place,
    ) -> Result<Self> {
        Ok(Self(structures::map(pci, regions, place, PAGE_SIZE)?))
    }

    /// Reads from `offset` on, in the width of `bytes` if that is the one of a field, else in
    /// bytes. Two halves of a field may be from different generations.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are no such bytes.
    pub(super) fn read(&self, offset: usize, bytes: &mut [u8]) -> Result {
        match bytes.len() {
            2 if offset % 2 == 0 => bytes.copy_from_slice(&self.0.get16(offset)?.to_le_bytes()),
            4 | 8 if offset % 4 == 0 => {
                for (word, offset) in bytes.chunks_exact_mut(4).zip((offset..).step_by(4)) {
                    word.copy_from_slice(&self.0.get32(offset)?.to_le_bytes());
                }
            }
            _ => {
                for (byte, offset) in bytes.iter_mut().zip(offset..) {
                    *byte = self.0.get8(offset)?;
                }
            }
        }
        Ok(())
    }

    /// Writes; otherwise as [`Self::read`].
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) -> Result {
        match *bytes {
            [a, b] if offset % 2 == 0 => self.0.put16(u16::from_le_bytes([a, b]), offset),
            [a, b, c, d] if offset % 4 == 0 => {
                self.0.put32(u32::from_le_bytes([a, b, c, d]), offset)
            }
            [a, b, c, d, e, f, g, h] if offset % 4 == 0 => {
                self.0.put32(u32::from_le_bytes([a, b, c, d]), offset)?;
                self.0.put32(u32::from_le_bytes([e, f, g, h]), offset + 4)
            }
            _ => {
                for (byte, offset) in bytes.iter().zip(offset..) {
                    self.0.put8(*byte, offset)?;
                }
                Ok(())
            }
        }
    }
}
