// SPDX-License-Identifier: GPL-2.0

//! Administration of virtual functions by the physical one (Virtio 1.4, 2.12).
//!
//! `layout.rs` and `legacy_layout.rs` have what commands look like, `command.rs` one of them in
//! memory, `queue.rs` sends them. This file knows what the device can do and judges its answers;
//! `legacy.rs` and `parts.rs` make commands of what others want, which is what `exports.rs` passes
//! on. `owners.rs` finds the [`Admin`] of a virtual function, `lease.rs` gives it the virtqueue
//! while there is one.
//!
//! A device that answers nonsense, too little or not at all gets the caller an error and the log a
//! line, up to a number of them; nothing that it says is used unchecked.

#![deny(unsafe_code)]

mod command;
pub(crate) mod layout;
#[allow(unsafe_code, reason = "has the queue for a time")]
mod lease;
#[cfg(CONFIG_VIRTIO_PCI_ADMIN_LEGACY)]
mod legacy;
#[cfg(CONFIG_VIRTIO_PCI_ADMIN_LEGACY)]
pub(crate) mod legacy_layout;
mod objects;
#[allow(unsafe_code, reason = "has a global lock")]
mod owners;
mod parts;
mod queue;

pub(super) use lease::Lease;
pub(crate) use owners::{
    find,
    init,
    Listed, //
};

use crate::virtio::buffers::Quiet;
use command::Command;
use layout::{
    Opcode,
    Opcodes,
    Status,
    Target, //
};
use objects::Objects;
use queue::AdminQueue;

use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use kernel::{
    dev_err,
    device::Device,
    fmt,
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

/// How many lines the log gets about a device before it is reset.
const COMPLAINTS: u32 = 16;

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
    /// How often the log was told what is wrong with the device.
    complaints: AtomicU32,
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
                complaints: AtomicU32::new(0),
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
        if !self.queue.start() {
            return;
        }
        self.complaints.store(0, Ordering::Relaxed);
        if self.learn().is_err() {
            self.complain(fmt!("no administration commands"));
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
        let opcode = command.opcode.number();

        for _ in 0..TRIES {
            command = self.queue.run(command, patience).inspect_err(|error| {
                self.complain(fmt!(
                    "admin command {:#x} failed: {}",
                    opcode,
                    error.to_errno()
                ));
            })?;
            match command.status() {
                Some(status) if status.code == Status::EAGAIN => fsleep(PAUSE),
                _ => break,
            }
        }
        let Some(status) = command.status() else {
            self.complain(fmt!(
                "the answer to admin command {:#x} is too short",
                opcode
            ));
            return Err(EIO);
        };

        if status.code == Status::OK {
            return Ok(command);
        }
        self.complain(fmt!(
            "admin command {:#x} error: status({:#x}) qualifier({:#x})",
            opcode,
            status.code,
            status.qualifier
        ));
        Err(Error::from_errno(-c_int::from(status.errno())))
    }

    /// Sends a command that has a fixed length.
    fn order(&self, opcode: Opcode, member: u64, data: &[u8]) -> Result {
        let command = Command::new(opcode, Target::Function(member), &[data], 0)?;

        self.run(command).map(|_| ())
    }

    /// Copies a result that must have as many bytes as there is room for.
    fn whole(&self, command: KBox<Command>, bytes: &mut [u8]) -> Result {
        if command.result_len() < bytes.len() {
            let opcode = command.opcode.number();

            self.complain(fmt!(
                "the result of admin command {:#x} is too short",
                opcode
            ));
            return Err(EIO);
        }
        command.copy_result(bytes);
        Ok(())
    }

    /// Tells the log what is wrong with the device, unless it was told enough.
    fn complain(&self, what: fmt::Arguments<'_>) {
        match self.complaints.fetch_add(1, Ordering::Relaxed) {
            COMPLAINTS => dev_err!(self.device, "virtio_pci: no more of this until a reset\n"),
            0..COMPLAINTS => dev_err!(self.device, "virtio_pci: {}\n", what),
            _ => (),
        }
    }
}
