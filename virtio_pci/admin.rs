// SPDX-License-Identifier: GPL-2.0

//! Administration of virtual functions by the physical one (Virtio 1.4, 2.12).
//!
//! `layout.rs` has what commands look like, `command.rs` one of them in memory, `queue.rs` sends
//! them. This file knows what the device can do and makes commands of what others want of it:
//! `exports.rs`, for modules that drive virtual functions. `owners.rs` finds the [`Admin`] of a
//! virtual function, `lease.rs` gives it the virtqueue while there is one.
//!
//! A device that answers nonsense, too little or not at all gets the caller an error and the log a
//! line; nothing that it says is used unchecked.

#![deny(unsafe_code)]

mod command;
pub(crate) mod layout;
#[allow(unsafe_code, reason = "has the queue for a time")]
mod lease;
mod objects;
#[allow(unsafe_code, reason = "has a global lock")]
mod owners;
mod queue;

pub(super) use lease::Lease;
pub(crate) use owners::{
    find,
    init,
    Listed, //
};

use crate::{
    kernel_ext::sg_pieces::ForeignList,
    virtio::buffers::Quiet, //
};
use command::Command;
use layout::{
    Holder,
    Notification,
    NotifyInfo,
    Object,
    Opcode,
    Opcodes,
    Status,
    Target, //
};
use objects::Objects;
use queue::AdminQueue;

use kernel::{
    dev_err,
    device::Device,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta,
        Msecs, //
    }, //
};

/// How long a device may take to do what it is told, in milliseconds.
const PATIENCE: Msecs = 30_000;

/// How long it may take to say what it can do, in milliseconds.
const FIRST_PATIENCE: Msecs = 5_000;

/// How often a device may ask to be told once more, and how long it is left alone before.
const TRIES: usize = 8;
const PAUSE: Delta = Delta::from_millis(20);

/// The commands for virtual functions that this driver uses.
const KNOWN: Opcodes = match cfg!(CONFIG_VIRTIO_PCI_ADMIN_LEGACY) {
    true => Opcodes::LEGACY.either(Opcodes::PARTS),
    false => Opcodes::PARTS,
};

/// What the device can do; nothing before it is live.
#[derive(Default)]
struct Abilities {
    /// With virtual functions.
    functions: Opcodes,
    /// With itself.
    own: Opcodes,
    objects: Objects,
}

/// What a device does for its virtual functions.
#[pin_data]
pub(crate) struct Admin {
    device: ARef<Device>,
    #[pin]
    queue: AdminQueue,
    #[pin]
    abilities: Mutex<Abilities>,
}

impl Admin {
    /// Nothing yet, of a device that has no queue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(device: &Device) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                device: device.into(),
                queue <- AdminQueue::new(),
                abilities <- new_mutex!(Abilities::default()),
            }),
            GFP_KERNEL,
        )
    }

    /// The device is live: asks what it can do, if it has a queue. If it does not say so, that is
    /// nothing.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn start(&self) {
        if self.queue.start() && self.learn().is_err() {
            dev_err!(self.device, "virtio_pci: no administration commands\n");
        }
    }

    /// The device was reset, or is gone: all commands end with an error.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn stop(&self, quiet: Option<&Quiet>) {
        let mut abilities = self.abilities.lock();

        abilities.functions = Opcodes::NONE;
        abilities.own = Opcodes::NONE;
        abilities.objects.reset();
        drop(abilities);
        self.queue.stop(quiet);
    }

    /// The device may have answered.
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    pub(super) fn wake(&self) {
        self.queue.wake();
    }

    // What the device can do

    /// Asks which commands there are, says which ones will be used, and prepares what they need.
    fn learn(&self) -> Result {
        let functions = self.agree(Target::Functions, KNOWN)?;
        // A device may speak of virtual functions alone and still take commands for itself.
        let own = match functions.has_all(Opcodes::CAPABILITY) {
            true => self
                .agree(Target::Own, Opcodes::CAPABILITY)
                .unwrap_or(Opcodes::CAPABILITY),
            false => Opcodes::NONE,
        };
        let objects = match own.has_all(Opcodes::CAPABILITY) {
            true => self.objects().unwrap_or(0),
            false => 0,
        };

        let mut abilities = self.abilities.lock();

        abilities.functions = functions;
        abilities.own = own;
        abilities.objects.allow(objects);
        Ok(())
    }

    /// Agrees with the device on the commands for `target`, at most those `wanted`.
    fn agree(&self, target: Target, wanted: Opcodes) -> Result<Opcodes> {
        let mut listed = [0; 8];

        self.ask(Opcode::ListQuery, target, &[], &mut listed)?;
        let used = Opcodes::from_bytes(listed).both(wanted);

        self.ask(Opcode::ListUse, target, &used.to_bytes(), &mut [])?;
        Ok(used)
    }

    /// Agrees with the device on the number of objects for parts of states.
    fn objects(&self) -> Result<u8> {
        let (mut capabilities, mut most) = ([0; 8], [0; 8]);

        self.ask(Opcode::CapabilityList, Target::Own, &[], &mut capabilities)?;
        if u64::from_le_bytes(capabilities) & layout::PARTS_CAPABILITY_BIT == 0 {
            return Ok(0);
        }
        self.ask(
            Opcode::CapabilityGet,
            Target::Own,
            &layout::capability_get(),
            &mut most,
        )?;
        // Objects of both kinds have numbers from one set.
        let [reading, writing, ..] = most;
        let most = reading.min(writing);

        self.ask(
            Opcode::CapabilitySet,
            Target::Own,
            &layout::capability_set(most),
            &mut [],
        )?;
        Ok(most)
    }

    /// Sends a command before it is known what the device can do.
    fn ask(&self, opcode: Opcode, target: Target, data: &[u8], result: &mut [u8]) -> Result {
        let command = Command::new(opcode, target, &[data], result.len())?;

        self.complete(command, FIRST_PATIENCE)?.copy_result(result);
        Ok(())
    }

    /// Sends a command that the device knows.
    fn run(&self, command: KBox<Command>) -> Result<KBox<Command>> {
        let known = {
            let abilities = self.abilities.lock();

            match command.target.is_own() {
                true => abilities.own,
                false => abilities.functions,
            }
        };

        match known.has(command.opcode) {
            true => self.complete(command, PATIENCE),
            false => Err(EOPNOTSUPP),
        }
    }

    /// Sends a command, again if the device wants that, until it is done or has failed.
    fn complete(&self, mut command: KBox<Command>, patience: Msecs) -> Result<KBox<Command>> {
        let opcode = command.opcode;

        for _ in 0..TRIES {
            command = self.queue.run(command, patience).inspect_err(|error| {
                dev_err!(
                    self.device,
                    "virtio_pci: admin command {:#x} failed: {}\n",
                    opcode as u16,
                    error.to_errno()
                );
            })?;
            match command.status() {
                Some(status) if status.code == Status::EAGAIN => fsleep(PAUSE),
                _ => break,
            }
        }
        let Some(status) = command.status() else {
            dev_err!(
                self.device,
                "virtio_pci: the answer to admin command {:#x} is too short\n",
                opcode as u16
            );
            return Err(EIO);
        };

        if status.code == Status::OK {
            return Ok(command);
        }
        dev_err!(
            self.device,
            "admin command error: opcode({:#x}) status({:#x}) qualifier({:#x})\n",
            opcode as u16,
            status.code,
            status.qualifier
        );
        Err(Error::from_errno(-c_int::from(status.errno())))
    }

    /// Sends a command that has a fixed length.
    fn order(&self, opcode: Opcode, member: u64, data: &[u8]) -> Result {
        let command = Command::new(opcode, Target::Function(member), &[data], 0)?;

        self.run(command).map(|_| ())
    }

    // Legacy interface of members

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
    /// says; `ENOMEM`.
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
        let head = layout::legacy_write(offset);
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
        let head = layout::legacy_read(offset);
        // The length of the result says how much is read.
        let command = Command::new(opcode, Target::Function(member), &[&head], bytes.len())?;

        self.whole(self.run(command)?, bytes)
    }

    /// Copies a result that must have as many bytes as there is room for.
    fn whole(&self, command: KBox<Command>, bytes: &mut [u8]) -> Result {
        if command.result_len() < bytes.len() {
            dev_err!(
                self.device,
                "virtio_pci: the result of admin command {:#x} is too short\n",
                command.opcode as u16
            );
            return Err(EIO);
        }
        command.copy_result(bytes);
        Ok(())
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
        layout::notification(&info, holder, bar_len).ok_or(ENOENT)
    }

    // Parts of members' states

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
