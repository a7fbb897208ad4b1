// SPDX-License-Identifier: GPL-2.0

//! What a device says of its reset, and whether it may use memory.
//!
//! Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

use core::sync::atomic::{
    AtomicU8,
    Ordering, //
};

/// `FAILED` of the device status (Virtio 1.4, 2.1).
const FAILED: u8 = 128;

/// The status of a device that is not there: not all of these bits exist.
pub const GONE: u8 = 0xff;

/// What the status of a device says of the reset that it was told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing yet.
    Busy,
    /// It does not do it: it has set `FAILED`.
    Refused,
    /// There is no device.
    Gone,
    /// It has done it.
    Done,
}

impl Answer {
    /// What this status says.
    pub const fn of(status: u8) -> Self {
        match status {
            0 => Self::Done,
            GONE => Self::Gone,
            status if status & FAILED != 0 => Self::Refused,
            _ => Self::Busy,
        }
    }
}

/// What is known of the use that a device makes of memory.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It is live, or nobody knows what it was before.
    Live,
    /// It was told to reset.
    Asked,
    /// It was told to reset, and has not done it in time.
    Busy,
    /// It was told to reset, and does not do it.
    Refused,
    /// It has not reset, but cannot reach memory.
    Fenced,
    /// It is not there any more.
    Gone,
    /// It has reset, and was not live since.
    Done,
}

impl State {
    const ALL: [Self; 7] = [
        Self::Live,
        Self::Asked,
        Self::Busy,
        Self::Refused,
        Self::Fenced,
        Self::Gone,
        Self::Done,
    ];

    /// Tells whether the device can use no memory.
    pub const fn is_quiet(self) -> bool {
        matches!(self, Self::Fenced | Self::Gone | Self::Done)
    }

    /// Tells whether the device has not done what it was told, as far as is known.
    pub const fn is_unfinished(self) -> bool {
        matches!(
            self,
            Self::Asked | Self::Busy | Self::Refused | Self::Fenced
        )
    }

    /// What comes of it when the device is told to be live.
    const fn live(self) -> Self {
        match self {
            Self::Done | Self::Live => Self::Live,
            // It may do what it likes with memory that it could reach before.
            other => other,
        }
    }

    /// What comes of it when the device was told to reset and this was its last answer.
    const fn answered(answer: Answer) -> Self {
        match answer {
            Answer::Busy => Self::Busy,
            Answer::Refused => Self::Refused,
            Answer::Gone => Self::Gone,
            Answer::Done => Self::Done,
        }
    }
}

/// The [`State`] of a device. Its changes are serialised by who changes the device; it may be read
/// at any time.
pub struct Reset(AtomicU8);

impl Reset {
    /// That of a device of which nothing is known.
    pub const fn new() -> Self {
        Self(AtomicU8::new(State::Live as u8))
    }

    /// The state now.
    pub fn state(&self) -> State {
        let number = self.0.load(Ordering::Relaxed);

        // There is one of each number that is stored.
        State::ALL
            .into_iter()
            .find(|state| *state as u8 == number)
            .unwrap_or(State::Live)
    }

    fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    /// The device is being told to reset.
    pub fn ask(&self) {
        self.set(State::Asked);
    }

    /// The device has answered, or has not in time. Returns the state.
    pub fn answered(&self, answer: Answer) -> State {
        let state = State::answered(answer);

        self.set(state);
        state
    }

    /// The device cannot reach memory any more.
    pub fn fenced(&self) {
        self.set(State::Fenced);
    }

    /// The device is not there any more.
    pub fn gone(&self) {
        self.set(State::Gone);
    }

    /// The device is being told to be live.
    pub fn live(&self) {
        self.set(self.state().live());
    }

    /// What drivers and the core are told of a status. A device that is kept from memory is gone
    /// for them, as long as it has not reset.
    pub fn shown(&self, status: u8) -> u8 {
        match self.state() {
            State::Fenced if status != 0 => GONE,
            _ => status,
        }
    }
}

impl Default for Reset {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for status in 0..=u8::MAX {
            let expected = match status {
                0 => Answer::Done,
                0xff => Answer::Gone,
                128.. => Answer::Refused,
                _ => Answer::Busy,
            };
            assert_eq!(Answer::of(status), expected, "{status}");
        }
    }

    #[test]
    fn each_state_is_kept() {
        let reset = Reset::new();

        for state in State::ALL {
            reset.set(state);
            assert_eq!(reset.state(), state);
        }
    }

    #[test]
    fn memory_is_free_behind_a_fact_only() {
        let reset = Reset::new();
        assert!(!reset.state().is_quiet(), "nothing is known of it");

        for (answer, quiet) in [
            (Answer::Busy, false),
            (Answer::Refused, false),
            (Answer::Gone, true),
            (Answer::Done, true),
        ] {
            reset.ask();
            assert!(!reset.state().is_quiet(), "a reset takes time");
            assert_eq!(reset.answered(answer).is_quiet(), quiet, "{answer:?}");
        }
        reset.live();
        assert!(!reset.state().is_quiet(), "it is live");
        reset.fenced();
        assert!(reset.state().is_quiet());
    }

    #[test]
    fn a_device_that_has_not_reset_does_not_become_live() {
        for state in State::ALL {
            let reset = Reset::new();

            reset.set(state);
            reset.live();
            match state {
                State::Live | State::Done => assert_eq!(reset.state(), State::Live),
                _ => assert_eq!(reset.state(), state),
            }
        }
    }

    #[test]
    fn a_device_behind_a_fence_is_gone_until_it_has_reset() {
        let reset = Reset::new();

        for status in 0..=u8::MAX {
            assert_eq!(reset.shown(status), status);
        }
        reset.fenced();
        assert_eq!(reset.shown(0), 0);
        assert_eq!(reset.shown(15), GONE);
        assert!(reset.state().is_unfinished());
    }
}
