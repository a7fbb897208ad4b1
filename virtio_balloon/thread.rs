// SPDX-License-Identifier: GPL-2.0

//! Inflation and deflation towards the target: what the thread does.
//!
//! Each step looks at everything afresh and takes one decision, so it does not matter what happened
//! between two steps: a new target, a freeze and a thaw, a resumed kernel.

use super::{
    engine::{
        Engine,
        Phase,
        State, //
    },
    grow::Source,
    layout::{
        BURST,
        NUM_PAGES,
        PER_PAGE, //
    },
};
use crate::kernel_ext::{
    kthread,
    wait::Mode, //
};

use kernel::{
    num::casts::u32_as_usize,
    prelude::*,
    time::{
        Delta,
        Msecs, //
    },
};

/// How long to wait for a notification before looking for the answer without one, in milliseconds.
const POLL_MS: Msecs = 1000;

/// How long a device may take for an answer before the log mentions it.
const PATIENCE: Delta = Delta::from_secs(10);

/// How long to wait for pages that compaction has isolated, in milliseconds.
const ISOLATED_MS: Msecs = 2;

/// What to do after a step.
pub(super) enum Next {
    /// Take the next one.
    Step,
    /// Wait until something happens, at most for the given time.
    Wait(Option<Msecs>),
}

/// What only the thread needs to know.
struct Worker {
    source: Source,
    /// The log has mentioned that the device does not answer what it has.
    complained: bool,
}

impl<'a> Engine<'a> {
    /// Serves the device until the driver is unbound.
    pub(super) fn serve(&self, current: &kthread::Current) {
        self.correct_actual(&mut self.state.lock());
        let Ok(source) = Source::new() else {
            dev_err!(
                self.dev,
                "no memory for the list of pages: the balloon stays empty\n"
            );
            self.shared
                .wait(Mode::Freezable, None, || current.should_stop());
            return;
        };
        let mut worker = Worker {
            source,
            complained: false,
        };

        // The target may have been set before the device was live.
        self.shared.wake();
        // A large balloon keeps neither others from running nor the system from going to sleep.
        while !current.should_stop_or_freeze() {
            if let Next::Wait(timeout) = self.step(&mut worker) {
                self.shared.rest();
                self.shared.wait(Mode::Freezable, timeout, || {
                    self.shared.take_event() || current.should_stop()
                });
            }
        }
    }

    /// Takes one decision, and sees to it that nobody waits for what was not said.
    fn step(&self, worker: &mut Worker) -> Next {
        let Next::Wait(timeout) = self.decide(worker) else {
            return Next::Step;
        };
        let mut st = self.state.lock();

        if st.phase != Phase::Running || st.dead {
            return Next::Wait(timeout);
        }
        let answers = st.requests.answers();
        self.notify(&mut st);
        if st.requests.answers() != answers {
            return Next::Step;
        }
        match st.requests.sent() {
            0 => {
                self.tell_actual(&mut st);
                Next::Wait(timeout)
            }
            _ => Next::Wait(Some(
                timeout.map_or(POLL_MS, |timeout| timeout.min(POLL_MS)),
            )),
        }
    }

    /// Takes one decision.
    fn decide(&self, worker: &mut Worker) -> Next {
        let mut st = self.state.lock();

        if st.phase != Phase::Running || st.dead {
            return Next::Wait(None);
        }
        self.reap(&mut st);
        if !self.check_alive(&mut st) || !self.heed_config(&mut st) {
            return Next::Wait(None);
        }
        self.watch(&st, worker);
        if !self.send_leftovers(&mut st) {
            return Next::Wait(Some(POLL_MS));
        }
        if st.stale {
            return self.release_stale(&mut st);
        }
        if st.movers > 0 {
            // They have to wait for what the device has already, and begin as soon as it has not.
            self.shared.wake_waiters();
            return Next::Wait(None);
        }
        self.tell_progress(&mut st);

        let target = self.target(&mut st);
        let held = st.held;
        if held > target {
            self.shared.note_limit(None);
            return self.shrink(&mut st, held - target);
        }
        if held == target {
            worker.source.relax();
            self.shared.note_limit(None);
            return Next::Wait(self.shared.cap.left());
        }
        if !st.requests.has_idle() {
            return Next::Wait(None);
        }
        // Compaction may take a while, in which nobody should wait to hear from us.
        if worker.source.compacts_next(target - held) {
            if st.requests.sent() > 0 {
                return Next::Wait(None);
            }
            self.tell_actual(&mut st);
        }
        drop(st);
        self.grow(&mut worker.source, held, target)
    }

    /// Mentions in the log, once, that the device has not answered for long.
    fn watch(&self, st: &State, worker: &mut Worker) {
        let mute = st.requests.waiting().is_some_and(|time| time > PATIENCE);

        if mute && !worker.complained {
            dev_warn!(self.dev, "the device has not answered a request for 10 s\n");
        }
        worker.complained = mute;
    }

    /// Looks at the configuration again if it changed; returns whether the device can be used.
    fn heed_config(&self, st: &mut State) -> bool {
        if self.shared.take_config_event() {
            st.wanted = None;
            if self.dev.needs_reset() {
                self.declare_dead(st, "the device asks for a reset");
            }
        }
        !st.dead
    }

    /// Starts the deflation of up to `surplus` pages.
    fn shrink(&self, st: &mut State, surplus: usize) -> Next {
        if !st.requests.has_idle() || st.requests.is_inflating() {
            return Next::Wait(None);
        }
        match self.deflate(st, surplus) {
            true => self.go_on_in_bursts(st),
            false => Next::Wait(Some(ISOLATED_MS)),
        }
    }

    /// Notifies the device if there is enough for it to do.
    pub(super) fn go_on_in_bursts(&self, st: &mut State) -> Next {
        if st.queues.as_ref().is_some_and(|q| q.unnoticed() >= BURST) {
            self.notify(st);
        }
        Next::Step
    }

    /// Gives back what the device knows nothing of, as far as compaction has not isolated it.
    fn release_stale(&self, st: &mut State) -> Next {
        if st.held > 0 && self.release(st) == 0 {
            return Next::Wait(Some(ISOLATED_MS));
        }
        st.stale = st.held > 0;
        Next::Step
    }

    /// The size that the balloon should have, in kernel pages.
    fn target(&self, st: &mut State) -> usize {
        st.drain &= st.held > 0;
        let wanted = match st.wanted {
            Some(wanted) => wanted,
            // The transport has a configuration space, or `probe` would have failed.
            None => u32_as_usize(self.dev.read(&NUM_PAGES).unwrap_or(0)).div_ceil(PER_PAGE),
        };

        st.wanted = Some(wanted);
        self.figures().target.set_pages(wanted);
        match st.drain || self.shared.must_be_empty() {
            true => 0,
            false => wanted.min(self.shared.cap.get()),
        }
    }
}
