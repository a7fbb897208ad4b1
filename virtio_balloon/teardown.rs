// SPDX-License-Identifier: GPL-2.0

//! The end of a balloon: unbinding the driver, and shutdown.

use super::{
    engine::{
        Engine,
        Phase, //
    },
    layout::REQUEST_PAGES, //
};

use crate::virtio::Device;

use kernel::{
    device::Core,
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
        if !emptied && (st.held > 0 || st.requests.in_use() > 0) {
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
        st.requests.drop_all();
        drop(st);
        self.release_all();
    }

    /// Stops the device for good; pages stay where they are.
    ///
    /// # Context
    ///
    /// May sleep; the thread may be frozen.
    pub(super) fn shut_down(&self, dev: &Device<Core<'_>>) {
        let mut st = self.state.lock();

        st.phase = Phase::Ended;
        dev.shut_down();
        drop(st);
        self.shared.end();
    }

    /// Deflates until nothing is left; returns whether the device went along.
    fn deflate_all(&self) -> bool {
        loop {
            let mut st = self.state.lock();

            self.reap(&mut st);
            if !self.check_alive(&mut st) {
                return false;
            }
            if self.send_leftovers(&mut st) && !st.stale {
                while self.deflate(&mut st, REQUEST_PAGES) {}
            }
            self.notify(&mut st);
            if (st.held == 0 || st.stale) && st.requests.in_use() == 0 {
                self.correct_actual(&mut st);
                return true;
            }
            self.tell_progress(&mut st);
            let (sent, answers) = (st.requests.sent(), st.requests.answers());
            drop(st);
            if sent == 0 {
                fsleep(ISOLATED);
            } else if !self.wait_until(ANSWER_MS, |st| {
                st.requests.answers() != answers || !self.check_alive(st)
            }) {
                return false;
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
