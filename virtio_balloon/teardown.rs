// SPDX-License-Identifier: GPL-2.0

//! The end of a balloon: unbinding the driver, and shutdown.

use super::{
    engine::{
        Engine,
        Phase,
        Slot, //
    },
    layout::REQUEST_PAGES, //
};
use core::mem::replace;
use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta,
        Msecs, //
    },
};

/// How long the device may take for each answer, in milliseconds.
const ANSWER_MS: Msecs = 5000;

/// How long to wait for pages that compaction has isolated.
const ISOLATED: Delta = Delta::from_millis(1);

impl<'a> Engine<'a> {
    /// Returns all pages, with the device's consent if it answers, and gives the device up.
    ///
    /// # Context
    ///
    /// May sleep; the thread has ended.
    pub(super) fn end(&self) {
        self.state.lock().phase = Phase::Ended;
        self.shared.end();

        let emptied = self.deflate_all();
        let st = self.state.lock();
        if !emptied && (st.held > 0 || !st.is_idle()) {
            dev_warn!(
                self.dev,
                "the device does not answer: taking {} pages back by a reset\n",
                st.held
            );
        }
        drop(st);
        self.delete_queues();

        let mut st = self.state.lock();
        // The device is reset: whatever it had is ours again.
        st.drop_request();
        drop(st);
        self.release_all();
    }

    /// Stops the device for good; pages stay where they are.
    ///
    /// # Context
    ///
    /// May sleep; the thread may be frozen.
    pub(super) fn shut_down(&self) {
        let mut st = self.state.lock();

        st.phase = Phase::Ended;
        self.dev.shut_down();
        drop(st);
        self.shared.end();
    }

    /// Deflates page by page until nothing is left; returns whether the device went along.
    fn deflate_all(&self) -> bool {
        loop {
            let answered = self.wait_for_answer(ANSWER_MS, |st| !self.check_alive(st));
            let mut st = self.state.lock();

            if !answered || !self.check_alive(&mut st) {
                return false;
            }
            if st.held == 0 && st.is_idle() {
                self.tell_actual(&mut st, false);
                return true;
            }
            let went_on = match replace(&mut st.slot, Slot::Taken) {
                Slot::Parked(request) => {
                    self.send(&mut st, request);
                    matches!(st.slot, Slot::Sent(..))
                }
                Slot::Arrived(request) => {
                    self.deflate_arrived(&mut st, request);
                    true
                }
                slot => {
                    st.slot = slot;
                    self.deflate(&mut st, REQUEST_PAGES)
                }
            };
            drop(st);
            if !went_on {
                fsleep(ISOLATED);
            }
        }
    }

    /// Gives all pages back to the kernel; the device has none of them any more.
    ///
    /// Waits for those that compaction has isolated: it puts them back soon, as it can no longer
    /// migrate them.
    fn release_all(&self) {
        loop {
            let mut st = self.state.lock();

            if st.held == 0 {
                return;
            }
            let released = self.release(&mut st);
            drop(st);
            if released == 0 {
                fsleep(ISOLATED);
            }
        }
    }
}
