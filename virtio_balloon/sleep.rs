// SPDX-License-Identifier: GPL-2.0

//! The balloon over suspend and hibernation.
//!
//! No page moves when the balloon is frozen. The same kernel going on finds the same pages in it;
//! only a kernel that runs out of an image, on a device that knows nothing of those pages, takes
//! them back, by its own books alone.
//!
//! The thread is frozen through all of this, and nothing here waits for it or for the device.
//!
//! A reset of the device by its bus is the same without an image, and with a thread that runs.

use super::{
    engine::{
        to_balloon_pages,
        Engine,
        Phase,
        State, //
    },
    layout::ACTUAL,
    queues::PageQueues,
    shared::Transition, //
};
use crate::virtio::pm;

use kernel::{
    prelude::*,
    task::might_sleep,
    time::{
        Instant,
        Monotonic, //
    },
};

impl<'a> Engine<'a> {
    /// Takes a step of a sleep transition.
    ///
    /// # Errors
    ///
    /// None; the balloon vetoes nothing.
    ///
    /// # Context
    ///
    /// As for [`Driver::sleep`](crate::virtio::Driver::sleep).
    pub(super) fn sleep(&self, phase: pm::Phase) -> Result {
        let start = Instant::<Monotonic>::now();
        let figures = self.figures();

        match phase {
            pm::Phase::Suspend | pm::Phase::Freeze | pm::Phase::Poweroff => {
                figures.freeze_ns.set(0);
                self.quiesce(Phase::Frozen);
                self.note_transition(Transition::Frozen, true);
                figures.freeze_ns.add_elapsed(start);
            }
            pm::Phase::FreezeNoirq => self.detector.arm(),
            pm::Phase::ThawNoirq => self.detector.disarm(),
            pm::Phase::Resume => {
                self.go_on("suspend");
                figures.thaw_ns.add_elapsed(start);
            }
            pm::Phase::Thaw => {
                self.go_on("hibernation");
                figures.thaw_ns.add_elapsed(start);
            }
            pm::Phase::Restore => {
                match self.detector.is_resumed() {
                    true => self.meet_device("resume"),
                    false => self.go_on("an abandoned hibernation"),
                }
                figures.restore_ns.add_elapsed(start);
            }
        }
        Ok(())
    }

    /// The bus is about to reset the device.
    pub(super) fn begin_reset(&self) {
        self.quiesce(Phase::Resetting);
    }

    /// The device is live. If the bus had reset it, goes on with what it has left of the balloon.
    pub(super) fn finish_reset(&self) {
        if self.state.lock().phase == Phase::Resetting {
            self.meet_device("a reset");
        }
    }

    /// Makes no request from now on, and ends the waiting of migrations.
    ///
    /// A resumed kernel compares what the device was told with what it finds there: it must have
    /// been told all.
    fn quiesce(&self, phase: Phase) {
        let mut st = self.state.lock();

        self.reap(&mut st);
        self.tell_actual(&mut st);

        self.detector.disarm();
        st.phase = phase;
        drop(st);
        self.shared.wake();
    }

    /// Deletes the queues; the requests that the device had are kept, to be sent again.
    pub(super) fn disconnect(&self) {
        let start = Instant::<Monotonic>::now();

        self.delete_queues();
        if self.state.lock().phase == Phase::Frozen {
            self.figures().freeze_ns.add_elapsed(start);
        }
    }

    /// Takes over the queues of a device that was reset.
    pub(super) fn reconnect(&self, queues: PageQueues, start: Instant<Monotonic>) {
        let mut st = self.state.lock();
        let figures = self.figures();

        st.queues = Some(queues);
        st.dead = false;
        figures.broken.set(0);
        // Whether this is a thaw or a restore will turn out later.
        for counter in [&figures.thaw_ns, &figures.restore_ns] {
            counter.set(0);
            counter.add_elapsed(start);
        }
    }

    /// Goes on with the pages that were there before.
    fn go_on(&self, what: &str) {
        let mut st = self.state.lock();

        self.restart(&mut st);
        self.note_transition(Transition::Held, false);
        if st.held > 0 {
            dev_info!(self.dev, "held {} pages through {what}\n", st.held);
        }
    }

    /// Goes on after `what`, on a device of which all that is known is what it says.
    fn meet_device(&self, what: &str) {
        // Fails only if there is no configuration space, and then `probe` would have, too.
        let actual = self.dev.read(&ACTUAL).unwrap_or(0);
        let mut st = self.state.lock();
        let told = to_balloon_pages(st.told);
        // Not so if the device broke before it could be told: then `actual` proves nothing.
        let told_all = st.told == st.agreed;

        if told_all && (told == 0 || actual == told) {
            drop(st);
            // The device is the one that we left, or we left it with nothing that it had agreed to.
            return self.go_on(what);
        }
        if actual == 0 && told != 0 {
            let returned = self.take_back(&mut st);
            self.restart(&mut st);
            self.note_transition(Transition::Returned, false);
            dev_info!(self.dev, "returned {returned} pages after {what}\n");
        } else {
            Self::prepare_to_drain(&mut st);
            self.restart(&mut st);
            self.note_transition(Transition::Deflating, false);
            dev_info!(
                self.dev,
                "the device has {actual} pages in its balloon, we have {told}: deflating all\n"
            );
        }
    }

    /// Takes all pages back from a device that has none of them.
    ///
    /// Returns how many; those that compaction has isolated are left to the thread.
    fn take_back(&self, st: &mut State) -> usize {
        let had = st.held;

        st.requests.drop_all();
        while self.release(st) > 0 {
            might_sleep();
        }
        st.stale = st.held > 0;
        (st.agreed, st.told) = (0, 0);
        had - st.held
    }

    /// Makes the thread deflate everything, whatever the device knows of it.
    fn prepare_to_drain(st: &mut State) {
        st.drain = true;
        st.agreed = st.held + st.requests.forget_inflations();
    }

    /// Sends what a reset interrupted, says how large the balloon is, and lets the thread go on.
    fn restart(&self, st: &mut State) {
        if matches!(st.phase, Phase::Frozen | Phase::Resetting) {
            st.phase = Phase::Running;
        }
        st.wanted = None;
        if self.check_alive(st) {
            self.tell_again(st);
            self.send_leftovers(st);
            self.notify(st);
        }
        self.detector.disarm();
        self.shared.wake();
    }

    /// Publishes what became of the balloon.
    fn note_transition(&self, transition: Transition, frozen: bool) {
        // CAST: The discriminants are small.
        self.figures().transition.set(transition as u64);
        self.figures().frozen.set(u64::from(frozen));
    }
}
