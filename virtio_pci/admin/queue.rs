// SPDX-License-Identifier: GPL-2.0

//! The administration virtqueue (Virtio 1.4, 2.13): commands go in, and those who sent them wait.
//!
//! Several commands can be under way. Whoever waits and is woken takes all answers out, those of
//! others as well. A command that is not answered in time stays in the queue, with all its memory,
//! until the device answers it or is reset; as long as there is one, no other is sent.
//!
//! # Locks
//!
//! The mutex protects everything, the virtqueue included. It is not held while anybody waits, and
//! not taken by the interrupt, which only wakes those who wait.

#![deny(unsafe_code)]

use super::command::Command;
use crate::{
    kernel_ext::wait::{
        self,
        Mode,
        WaitQueue, //
    },
    virtio::buffers::{
        Buffers,
        Quiet, //
    },
};

use kernel::{
    bindings,
    new_mutex,
    prelude::*,
    sync::Mutex,
    time::Msecs, //
};

/// How many commands can be under way.
const MOST: usize = 32;

/// What is known of one command.
enum Slot {
    /// There is none.
    Free,
    /// The device has it, somebody waits.
    Sent,
    /// The device has it, nobody waits any more.
    GivenUp,
    /// The device has answered it.
    Answered(KBox<Command>),
    /// The device will not answer it: it was reset.
    Lost,
}

/// What the mutex protects.
struct State {
    /// The virtqueue, as long as there is one.
    buffers: Option<Buffers<Command>>,
    /// The device may be sent commands.
    live: bool,
    slots: [Slot; MOST],
}

impl State {
    /// Sends a command; `None` if there is no room for it now.
    fn send(&mut self, command: &mut Option<KBox<Command>>) -> Result<Option<usize>> {
        let free = self
            .slots
            .iter()
            .position(|slot| matches!(slot, Slot::Free));
        let buffers = match &mut self.buffers {
            Some(buffers) if self.live => buffers,
            _ => return Err(ENODEV),
        };

        if self.slots.iter().any(|slot| matches!(slot, Slot::GivenUp)) {
            return Err(EIO);
        }
        let Some((place, mut sent)) = free.zip(command.take()) else {
            return Ok(None);
        };

        if sent.descriptors() > buffers.size() {
            return Err(ENOSPC);
        }
        sent.slot = place;
        match buffers.add(sent, bindings::GFP_KERNEL) {
            Ok(()) => {
                buffers.notify();
                self.set(place, Slot::Sent);
                Ok(Some(place))
            }
            Err((ENOSPC, back)) if self.is_busy() => {
                *command = Some(back);
                Ok(None)
            }
            Err((error, _)) => Err(error),
        }
    }

    /// Tells whether the device has a command.
    fn is_busy(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Sent))
    }

    /// Takes all answers out; returns whether there were any.
    fn take_answers(&mut self) -> bool {
        let mut any = false;

        while let Some(command) = self.next_answer() {
            let place = command.slot;

            any = true;
            match self.slots.get(place) {
                Some(Slot::Sent) => self.set(place, Slot::Answered(command)),
                _ => self.set(place, Slot::Free),
            }
        }
        any
    }

    fn next_answer(&mut self) -> Option<KBox<Command>> {
        match self.live {
            true => self.buffers.as_mut()?.take_used(),
            false => None,
        }
    }

    fn set(&mut self, place: usize, slot: Slot) {
        if let Some(old) = self.slots.get_mut(place) {
            *old = slot;
        }
    }

    /// What has become of a command that was sent; `None` if the device still has it.
    fn outcome(&mut self, place: usize) -> Option<Result<KBox<Command>>> {
        let slot = self.slots.get_mut(place)?;

        match core::mem::replace(slot, Slot::Free) {
            Slot::Answered(command) => Some(Ok(command)),
            Slot::Sent => {
                *slot = Slot::Sent;
                match self.is_broken() {
                    true => Some(Err(self.give_up(place))),
                    false => None,
                }
            }
            _ => Some(Err(EIO)),
        }
    }

    fn is_broken(&self) -> bool {
        self.buffers
            .as_ref()
            .is_none_or(|buffers| buffers.is_broken())
    }

    /// Nobody waits for a command any more.
    fn give_up(&mut self, place: usize) -> Error {
        self.set(place, Slot::GivenUp);
        EIO
    }

    /// Nothing is sent any more, and nobody gets an answer.
    fn stop(&mut self) {
        self.live = false;
        for slot in &mut self.slots {
            *slot = match slot {
                Slot::Sent | Slot::Answered(_) | Slot::Lost => Slot::Lost,
                Slot::Free | Slot::GivenUp => Slot::Free,
            };
        }
    }
}

/// The queue, which may not be there at times.
#[pin_data]
pub(super) struct AdminQueue {
    #[pin]
    state: Mutex<State>,
    /// Something of the state has changed, or perhaps.
    #[pin]
    changed: WaitQueue,
}

impl AdminQueue {
    /// There is none yet.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_mutex!(State {
                buffers: None,
                live: false,
                slots: [const { Slot::Free }; MOST],
            }),
            changed <- wait::new_wait_queue!("virtio_pci_admin"),
        })
    }

    /// The device has a queue, but is not live yet.
    pub(super) fn open(&self, buffers: Buffers<Command>) {
        self.state.lock().buffers = Some(buffers);
    }

    /// The queue goes. What the device still has in it is lost.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();

        state.stop();
        state.buffers = None;
        drop(state);
        self.changed.wake_all();
    }

    /// The device is live; returns whether that is news, and there is a queue.
    pub(super) fn start(&self) -> bool {
        let mut state = self.state.lock();

        match &state.buffers {
            Some(_) if !state.live => {
                state.live = true;
                true
            }
            _ => false,
        }
    }

    /// The device was reset, or is gone: all commands end with an error. With the proof that it
    /// uses no memory, theirs is freed; without it the queue is not used again.
    pub(super) fn stop(&self, quiet: Option<&Quiet>) {
        let mut state = self.state.lock();

        state.stop();
        match (quiet, &mut state.buffers) {
            (Some(quiet), Some(buffers)) => while buffers.take_unused(quiet).is_some() {},
            _ => state.buffers = None,
        }
        drop(state);
        self.changed.wake_all();
    }

    /// The device may have used buffers.
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    pub(super) fn wake(&self) {
        self.changed.wake_all();
    }

    /// Sends a command and waits until it is answered, for at most `patience` milliseconds.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no queue, or the device is not live; `ETIMEDOUT` if there is no
    /// answer; `EIO` if there will be none, because the device was reset or has broken the queue,
    /// or if it owes others an answer; `ENOSPC` if the command is too long for the queue; `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn run(&self, command: KBox<Command>, patience: Msecs) -> Result<KBox<Command>> {
        let mut command = Some(command);
        let mut place = None;
        let mut outcome = Err(ETIMEDOUT);

        let ended = self.changed.wait(Mode::Brief, Some(patience), || {
            match self.look(&mut command, &mut place) {
                Ok(None) => false,
                Ok(Some(answer)) => {
                    outcome = Ok(answer);
                    true
                }
                Err(error) => {
                    outcome = Err(error);
                    true
                }
            }
        });

        if let (false, Some(place)) = (ended, place) {
            let mut state = self.state.lock();

            state.take_answers();
            match state.outcome(place) {
                Some(late) => return late,
                None => state.give_up(place),
            };
        }
        outcome
    }

    /// Sends a command if it was not sent yet, then looks whether it was answered.
    fn look(
        &self,
        command: &mut Option<KBox<Command>>,
        place: &mut Option<usize>,
    ) -> Result<Option<KBox<Command>>> {
        let mut state = self.state.lock();
        let others = state.take_answers();

        if place.is_none() {
            *place = state.send(command)?;
        }
        let outcome = match *place {
            Some(place) => state.outcome(place),
            None => None,
        };

        drop(state);
        if others || outcome.is_some() {
            // Others have their answers, or there is room for what they want to send.
            self.changed.wake_all();
        }
        outcome.transpose()
    }
}
