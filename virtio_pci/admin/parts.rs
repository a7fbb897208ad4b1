// SPDX-License-Identifier: GPL-2.0

//! Parts of the states of virtual functions, read and written through the physical one (Virtio 1.4,
//! 2.12.1.3 and 2.12.1.4).

#![deny(unsafe_code)]

use super::{
    command::Command,
    layout::{
        self,
        Object,
        Opcode,
        Opcodes,
        Target, //
    },
    Admin, //
};
use crate::kernel_ext::sg_pieces::ForeignList;

use kernel::prelude::*;

impl Admin {
    /// Tells whether the device can read and write parts of the states of its virtual functions.
    pub(crate) fn has_parts(&self) -> bool {
        let abilities = self.abilities.lock();

        abilities.functions.has_all(Opcodes::PARTS) && abilities.objects.most() != 0
    }

    /// Stops a member, or lets it go on: bits of the device mode (Virtio 1.4, 2.12.1.4).
    ///
    /// # Errors
    ///
    /// As for [`Self::write_legacy`].
    pub(crate) fn set_mode(&self, member: u64, flags: u8) -> Result {
        self.order(Opcode::ModeSet, member, &layout::mode_set(flags))
    }

    /// Creates an object to read parts of a member's state, or, with `writes` 1, to write them;
    /// returns its number.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for another kind of object, or a device that has none; `EINVAL` for `writes`
    /// above 1; `ENOSPC` if there are as many as can be; else as for [`Self::write_legacy`].
    pub(crate) fn create_object(&self, member: u64, kind: u16, writes: u8) -> Result<u32> {
        if kind != Object::PARTS {
            return Err(EOPNOTSUPP);
        }
        if writes > 1 {
            return Err(EINVAL);
        }
        let number = {
            let objects = &mut self.abilities.lock().objects;

            if objects.most() == 0 {
                return Err(EOPNOTSUPP);
            }
            objects.take().ok_or(ENOSPC)?
        };
        let id = number.id;
        let object = Object { kind, id };
        let created = self.order(Opcode::ObjectCreate, member, &object.create(writes));

        if let Err(error) = created {
            // One that may have been created after all keeps its number.
            if !matches!(error, ETIMEDOUT | EIO) {
                self.abilities.lock().objects.give_back(number);
            }
            return Err(error);
        }
        Ok(id)
    }

    /// Destroys an object.
    ///
    /// # Errors
    ///
    /// `EINVAL` for another kind of object; else as for [`Self::write_legacy`].
    pub(crate) fn destroy_object(&self, member: u64, kind: u16, id: u32) -> Result {
        if kind != Object::PARTS {
            return Err(EINVAL);
        }
        let number = self.abilities.lock().objects.number(id);

        self.order(
            Opcode::ObjectDestroy,
            member,
            &Object { kind, id }.to_bytes(),
        )?;
        self.abilities.lock().objects.give_back(number);
        Ok(())
    }

    /// How large all parts of a member's state are, in bytes.
    ///
    /// # Errors
    ///
    /// As for [`Self::write_legacy`]; `EIO` if the device does not say.
    pub(crate) fn parts_size(&self, member: u64, object: Object) -> Result<u32> {
        let mut size = [0; 4];
        let command = Command::new(
            Opcode::PartsMetadata,
            Target::Function(member),
            &[&object.select(layout::METADATA_SIZE)],
            8,
        )?;

        self.whole(self.run(command)?, &mut size)?;
        Ok(u32::from_le_bytes(size))
    }

    /// Reads all parts of a member's state; returns how many bytes they are, at most those that
    /// `to` has room for.
    ///
    /// # Errors
    ///
    /// As for [`Self::write_legacy`].
    pub(crate) fn read_parts(
        &self,
        member: u64,
        object: Object,
        to: &ForeignList,
    ) -> Result<usize> {
        let command = Command::new(
            Opcode::PartsGet,
            Target::Function(member),
            &[&object.select(layout::PARTS_ALL)],
            to.bytes(),
        )?;

        self.run(command)?.copy_result_to_list(to)
    }

    /// Writes parts of a member's state: an object, then the parts, as the specification has them.
    ///
    /// # Errors
    ///
    /// As for [`Self::write_legacy`].
    pub(crate) fn write_parts(&self, member: u64, from: &ForeignList) -> Result {
        let mut command = Command::new(Opcode::PartsSet, Target::Function(member), &[], 0)?;

        command.push_list(from)?;
        self.run(command).map(|_| ())
    }
}
