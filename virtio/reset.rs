// SPDX-License-Identifier: GPL-2.0

//! How to wait for a device that was told to reset (Virtio 1.4, 2.4).
//!
//! Core and transports wait here and nowhere else. What a device can say, and what follows for the
//! memory that it has, is in `state.rs`.

pub mod state;

use state::Answer;

use kernel::time::{
    delay::fsleep,
    Delta,
    Instant,
    Monotonic, //
};

/// How often to look.
const INTERVAL: Delta = Delta::from_millis(1);

/// How many looks a device gets at least for each of [`INTERVAL`] that it may take: one in ten. A
/// guest that does not run, because its host has stopped it, cannot look, and time goes on.
const LEAST: i64 = 10;

/// Waits for an answer to a reset that was asked for at `asked`, for at most `patience`. `look`
/// tells what the device says now.
///
/// The last answer is [`Answer::Busy`] if there was none in time.
///
/// # Context
///
/// May sleep.
pub fn wait(
    asked: Instant<Monotonic>,
    patience: Delta,
    mut look: impl FnMut() -> Answer,
) -> Answer {
    let least = patience.as_millis() / (INTERVAL.as_millis() * LEAST);
    let mut looks = 0;

    loop {
        // Time is taken before the look: who was not running meanwhile gets one more.
        let over = looks >= least && asked.elapsed() >= patience;
        let answer = look();

        if answer != Answer::Busy || over {
            return answer;
        }
        looks += 1;
        fsleep(INTERVAL);
    }
}
