// SPDX-License-Identifier: GPL-2.0

//! The legacy interface of virtual functions, through the physical one (Virtio 1.4, 2.12.1.1).

#![deny(unsafe_code)]

use super::{
    command::Command,
    layout::{
        Opcode,
        Opcodes,
        Target, //
    },
    legacy_layout::{
        self,
        Holder,
        Notification,
        NotifyInfo, //
    },
    Admin, //
};

use kernel::prelude::*;

impl Admin {
    /// Tells whether the device reaches the legacy interface of its virtual functions.
    pub(crate) fn has_legacy(&self) -> bool {
        self.abilities.lock().functions.has_all(Opcodes::LEGACY)
    }

    /// Writes to a register.
    ///
    /// # Errors
    ///
    /// `EINVAL` for no bytes; else as for all commands: `EOPNOTSUPP` if the device does not know
    /// it, `ENODEV`, `EIO` or `ETIMEDOUT` if it does not answer, `EINVAL` or what else the device
    /// says; `ENOMEM`, `ENOSPC`.
    ///
    /// # Context
    ///
    /// May sleep, as for all commands.
    pub(crate) fn write_legacy(
        &self,
        opcode: Opcode,
        member: u64,
        offset: u8,
        bytes: &[u8],
    ) -> Result {
        if bytes.is_empty() {
            return Err(EINVAL);
        }
        let head = legacy_layout::legacy_write(offset);
        // Its length says how much is written.
        let command = Command::new(opcode, Target::Function(member), &[&head, bytes], 0)?;

        self.run(command).map(|_| ())
    }

    /// Reads a register; otherwise as [`Self::write_legacy`].
    ///
    /// # Errors
    ///
    /// As for it; `EIO` if the device reads less.
    pub(crate) fn read_legacy(
        &self,
        opcode: Opcode,
        member: u64,
        offset: u8,
        bytes: &mut [u8],
    ) -> Result {
        if bytes.is_empty() {
            return Err(EINVAL);
        }
        let head = legacy_layout::legacy_read(offset);
        // The length of the result says how much is read.
        let command = Command::new(opcode, Target::Function(member), &[&head], bytes.len())?;

        self.whole(self.run(command)?, bytes)
    }

    /// Where notifications of a member go, in a BAR of `holder`; `bar_len` says how long one is.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no good place; else as for [`Self::write_legacy`].
    pub(crate) fn notification(
        &self,
        member: u64,
        holder: Holder,
        bar_len: impl Fn(u8) -> u64,
    ) -> Result<Notification> {
        let mut info = NotifyInfo::default();
        let command = Command::new(
            Opcode::LegacyNotifyInfo,
            Target::Function(member),
            &[],
            info.as_flattened().len(),
        )?;

        self.run(command)?.copy_result(info.as_flattened_mut());
        legacy_layout::notification(&info, holder, bar_len).ok_or(ENOENT)
    }
}
