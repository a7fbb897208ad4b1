// SPDX-License-Identifier: GPL-2.0

//! One administration command and its answer, as they lie in memory.

#![deny(unsafe_code)]

use super::layout::{
    self,
    Opcode,
    Status,
    Target,
    STATUS_BYTES, //
};
use crate::{
    kernel_ext::sg_pieces::{
        ForeignList,
        Pieces, //
    },
    virtio::payload::{
        Parts,
        Payload, //
    },
};

use kernel::prelude::*;

/// A command. The memory that the device has of it belongs to it.
///
/// The device reads a header and data, then writes a status and a result; each begins in a
/// descriptor of its own.
pub(super) struct Command {
    pub(super) opcode: Opcode,
    pub(super) target: Target,
    asked: Pieces,
    answered: Pieces,
    /// How many bytes the device says it wrote.
    written: usize,
    /// Who waits for it; the queue's business.
    pub(super) slot: usize,
}

impl Command {
    /// A command with data, and room for a result of `room` bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn new(
        opcode: Opcode,
        target: Target,
        data: &[&[u8]],
        room: usize,
    ) -> Result<KBox<Self>> {
        let mut command = Self {
            opcode,
            target,
            asked: Pieces::NOTHING,
            answered: Pieces::NOTHING,
            written: 0,
            slot: 0,
        };
        let mut joined = KVec::new();

        for part in data {
            joined.extend_from_slice(part, GFP_KERNEL)?;
        }
        command.asked.push(&layout::header(opcode, target))?;
        command.asked.push(&joined)?;
        command.answered.push_zeroes(STATUS_BYTES)?;
        command.answered.push_zeroes(room)?;
        Ok(KBox::new(command, GFP_KERNEL)?)
    }

    /// Appends a copy of what a list names to the data.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn push_list(&mut self, data: &ForeignList) -> Result {
        self.asked.push_list(data)
    }

    /// How many descriptors it takes.
    pub(super) fn descriptors(&self) -> usize {
        self.asked.count() + self.answered.count()
    }

    /// What the device made of it; nothing if the answer is too short to say so.
    pub(super) fn status(&self) -> Option<Status> {
        match self.written >= STATUS_BYTES {
            true => Status::from_bytes(self.answered.first()),
            false => None,
        }
    }

    /// How long the result is, in bytes.
    pub(super) fn result_len(&self) -> usize {
        self.written.saturating_sub(STATUS_BYTES)
    }

    /// Copies the result; what the device did not write is 0.
    pub(super) fn copy_result(&self, to: &mut [u8]) {
        self.answered.copy_rest(self.result_len(), to);
    }

    /// Copies the result to what a list names; returns its length.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is longer than can be counted.
    pub(super) fn copy_result_to_list(&self, to: &ForeignList) -> Result<usize> {
        self.answered.copy_rest_to_list(self.result_len(), to)
    }
}

impl Payload for Command {
    fn parts(&mut self) -> Parts<'_> {
        self.written = 0;
        Parts::new()
            .readable(&self.asked)
            .writable(&mut self.answered)
    }

    fn used(&mut self, len: usize) {
        // It may say anything.
        self.written = len.min(self.answered.bytes());
    }
}
