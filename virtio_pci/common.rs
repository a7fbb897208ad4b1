// SPDX-License-Identifier: GPL-2.0

//! Access to the common configuration of a device (Virtio 1.4, 4.1.4.3).

#![deny(unsafe_code)]

use super::regs::{
    self,
    Later,
    Readable,
    Writable, //
};
use crate::kernel_ext::pci_io::Mapping;

use kernel::{
    io::Io,
    prelude::*, //
};

/// The common configuration of a device.
pub(super) struct Common<'bound>(Mapping<'bound, { regs::COMMON }>);

impl<'bound> Common<'bound> {
    /// The one that is mapped there.
    pub(super) fn new(registers: Mapping<'bound, { regs::COMMON }>) -> Self {
        Self(registers)
    }

    /// Reads a register.
    #[inline(always)]
    pub(super) fn read<R>(&self, _register: R) -> R::Value
    where
        R: regs::Common + Readable,
        R::Value: Width,
    {
        R::Value::read(&self.0, R::OFFSET)
    }

    /// Writes a register.
    #[inline(always)]
    pub(super) fn write<R>(&self, _register: R, value: R::Value)
    where
        R: regs::Common + Writable,
        R::Value: Width,
    {
        value.write(&self.0, R::OFFSET);
    }

    /// Writes both halves of an address, the low one first.
    pub(super) fn write_halves<L, H>(&self, low: L, high: H, value: u64)
    where
        L: regs::Common + Writable<Value = u32>,
        H: regs::Common + Writable<Value = u32>,
    {
        // CAST: Each takes the half it names.
        self.write(low, value as u32);
        self.write(high, (value >> 32) as u32);
    }

    /// Reads a register that not all devices have.
    ///
    /// # Errors
    ///
    /// `EINVAL` if this one does not.
    pub(super) fn try_read<R: Later<Value = u16> + Readable>(&self, _register: R) -> Result<u16> {
        (&self.0).try_read16(R::OFFSET)
    }

    /// Writes a register that not all devices have; otherwise as [`Self::try_read`].
    pub(super) fn try_write<R>(&self, _register: R, value: u16) -> Result
    where
        R: Later<Value = u16> + Writable,
    {
        (&self.0).try_write16(value, R::OFFSET)
    }

    /// Tells whether there is a register that not all devices have.
    pub(super) fn has<R: Later>(&self, _register: R) -> bool {
        self.0.length() >= R::END
    }

    /// How long it is, in bytes.
    pub(super) fn length(&self) -> usize {
        self.0.length()
    }
}

/// The width of a register.
pub(super) trait Width: Sized {
    /// Reads the one at `offset`, which must be known when this is compiled.
    fn read<const SIZE: usize>(registers: &Mapping<'_, SIZE>, offset: usize) -> Self;

    /// Writes the one at `offset`, which must be known when this is compiled.
    fn write<const SIZE: usize>(self, registers: &Mapping<'_, SIZE>, offset: usize);
}

impl Width for u8 {
    #[inline(always)]
    fn read<const SIZE: usize>(registers: &Mapping<'_, SIZE>, offset: usize) -> Self {
        registers.read8(offset)
    }

    #[inline(always)]
    fn write<const SIZE: usize>(self, registers: &Mapping<'_, SIZE>, offset: usize) {
        registers.write8(self, offset);
    }
}

impl Width for u16 {
    #[inline(always)]
    fn read<const SIZE: usize>(registers: &Mapping<'_, SIZE>, offset: usize) -> Self {
        registers.read16(offset)
    }

    #[inline(always)]
    fn write<const SIZE: usize>(self, registers: &Mapping<'_, SIZE>, offset: usize) {
        registers.write16(self, offset);
    }
}

impl Width for u32 {
    #[inline(always)]
    fn read<const SIZE: usize>(registers: &Mapping<'_, SIZE>, offset: usize) -> Self {
        registers.read32(offset)
    }

    #[inline(always)]
    fn write<const SIZE: usize>(self, registers: &Mapping<'_, SIZE>, offset: usize) {
        registers.write32(self, offset);
    }
}
