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
    ladder::{
        Ladder,
        Rung, //
    },
    layout::{
        BLOCK_ORDER,
        BURST,
        LEAVE_AVAILABLE,
        NUM_PAGES,
        PER_PAGE,
        REQUEST_PAGES, //
    },
    requests::is_addressable, //
};
use crate::kernel_ext::{
    balloon_page::{
        self,
        BalloonPage,
        Effort, //
    },
    kthread,
    mem,
    wait::Mode, //
};

use kernel::{
    num::casts::u32_as_usize,
    prelude::*,
    sync::atomic::Relaxed,
    task::might_sleep,
    time::{
        Delta,
        Instant,
        Monotonic,
        Msecs, //
    },
};

/// How long to wait for a notification before looking for the answer without one, in milliseconds.
const POLL_MS: Msecs = 1000;

/// How long a device may take for an answer before the log mentions it.
const PATIENCE: Delta = Delta::from_secs(10);

/// How long to wait for pages that compaction has isolated, in milliseconds.
const ISOLATED_MS: Msecs = 2;

/// Shortest and longest time between two attempts to allocate when memory is short, in
/// milliseconds.
const RETRY_MS: (Msecs, Msecs) = (200, 5000);

/// How long the log stays silent about a shortage of memory that was mentioned.
const SILENCE: Delta = Delta::from_secs(60);

/// What to do after a step.
enum Next {
    /// Take the next one.
    Step,
    /// Wait until something happens, at most for the given time.
    Wait(Option<Msecs>),
}

/// The restraint of inflation when memory is short.
struct Backoff {
    /// No attempt before that.
    until: Option<(Instant<Monotonic>, Msecs)>,
    /// When the log last mentioned the shortage.
    said: Option<Instant<Monotonic>>,
}

impl Backoff {
    /// Time left until the next attempt, in milliseconds.
    fn left(&self) -> Option<Msecs> {
        let (since, ms) = self.until?;
        let passed = since.elapsed().as_millis();

        Msecs::try_from(i64::from(ms) - passed)
            .ok()
            .filter(|left| *left > 0)
    }

    /// An attempt failed: wait, longer each time.
    fn fail(&mut self) {
        let ms = self
            .until
            .map_or(RETRY_MS.0, |(_, ms)| (ms * 2).min(RETRY_MS.1));

        self.until = Some((Instant::now(), ms));
    }

    /// An attempt succeeded.
    fn succeed(&mut self) {
        self.until = None;
    }

    /// Tells whether it is time to mention the shortage in the log; it will be taken as done.
    fn may_say(&mut self) -> bool {
        let due = self.said.is_none_or(|since| since.elapsed() > SILENCE);

        if due {
            self.said = Some(Instant::now());
        }
        due
    }
}

/// How long the device has kept the thread waiting.
struct Patience {
    /// Answers so far, and since when no more have come although there are requests.
    answers: usize,
    since: Instant<Monotonic>,
    /// The log mentioned it.
    said: bool,
}

impl Patience {
    /// Tells whether it is time to mention it in the log; it will be taken as done.
    fn may_say(&mut self, st: &State<'_>) -> bool {
        let answers = st.requests.answers();

        if st.requests.sent() == 0 || answers != self.answers {
            *self = Self {
                answers,
                since: Instant::now(),
                said: false,
            };
        }
        let due = !self.said && self.since.elapsed() > PATIENCE;
        self.said |= due;
        due
    }
}

/// What only the thread needs to know.
struct Worker {
    /// Pages on their way into the balloon.
    batch: KVec<BalloonPage>,
    ladder: Ladder,
    backoff: Backoff,
    patience: Patience,
}

impl<'a> Engine<'a> {
    /// Serves the device until the driver is unbound.
    pub(super) fn serve(&self, current: &kthread::Current) {
        let Ok(batch) = KVec::with_capacity(REQUEST_PAGES, GFP_KERNEL) else {
            dev_err!(
                self.dev,
                "no memory for the list of pages: the balloon stays empty\n"
            );
            self.shared
                .wait(Mode::Freezable, None, || current.should_stop());
            return;
        };
        let mut worker = Worker {
            batch,
            ladder: Ladder::new(BLOCK_ORDER),
            backoff: Backoff {
                until: None,
                said: None,
            },
            patience: Patience {
                answers: 0,
                since: Instant::now(),
                said: false,
            },
        };

        // The target may have been set before the device was live.
        self.shared.wake();
        while !current.should_stop() {
            // A large balloon must not keep others from running.
            might_sleep();
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
        if worker.patience.may_say(&st) {
            dev_warn!(self.dev, "the device has not answered a request for 10 s\n");
        }
        if !self.send_leftovers(&mut st) {
            return Next::Wait(Some(POLL_MS));
        }
        if st.stale {
            return self.release_stale(&mut st);
        }
        self.tell_progress(&mut st);

        let target = self.target(&mut st);
        let held = st.held;
        if held > target {
            return self.shrink(&mut st, held - target);
        }
        if held == target {
            worker.backoff.succeed();
            return Next::Wait(self.shared.cap.left());
        }
        if !st.requests.has_idle() {
            return Next::Wait(None);
        }
        drop(st);
        self.grow(worker, target - held, target)
    }

    /// Looks at the configuration again if it changed; returns whether the device can be used.
    fn heed_config(&self, st: &mut State<'a>) -> bool {
        if self.shared.take_config_event() {
            st.wanted = None;
            if self.dev.needs_reset() {
                self.declare_dead(st, "the device asks for a reset");
            }
        }
        !st.dead
    }

    /// Starts the deflation of up to `surplus` pages.
    fn shrink(&self, st: &mut State<'a>, surplus: usize) -> Next {
        if !st.requests.has_idle() || st.requests.is_inflating() {
            return Next::Wait(None);
        }
        match self.deflate(st, surplus) {
            true => self.go_on_in_bursts(st),
            false => Next::Wait(Some(ISOLATED_MS)),
        }
    }

    /// Notifies the device if there is enough for it to do.
    fn go_on_in_bursts(&self, st: &mut State<'a>) -> Next {
        if st.queues.as_ref().is_some_and(|q| q.unnoticed() >= BURST) {
            self.notify(st);
        }
        Next::Step
    }

    /// Gives back what the device knows nothing of, as far as compaction has not isolated it.
    fn release_stale(&self, st: &mut State<'a>) -> Next {
        if st.held > 0 && self.release(st) == 0 {
            return Next::Wait(Some(ISOLATED_MS));
        }
        st.stale = st.held > 0;
        Next::Step
    }

    /// The size that the balloon should have, in kernel pages.
    fn target(&self, st: &mut State<'a>) -> usize {
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

    /// Allocates up to `want` pages and starts their inflation.
    fn grow(&self, worker: &mut Worker, want: usize, target: usize) -> Next {
        if self.shared.is_paused() {
            return Next::Wait(None);
        }
        if let Some(left) = worker.backoff.left() {
            return Next::Wait(Some(left));
        }
        self.growing.store(true, Relaxed);
        self.allocate(worker, want);
        self.growing.store(false, Relaxed);
        if worker.batch.is_empty() {
            worker.backoff.fail();
            self.figures().alloc_failures.add(1);
            if worker.backoff.may_say() {
                dev_info!(
                    self.dev,
                    "memory is short: holding {} of {target} pages, will go on trying\n",
                    self.figures().held.get()
                );
            }
            return Next::Wait(worker.backoff.left());
        }
        worker.backoff.succeed();

        let mut st = self.state.lock();
        if st.phase == Phase::Running && !st.dead && !self.shared.must_be_empty() {
            self.inflate(&mut st, &mut worker.batch);
            self.go_on_in_bursts(&mut st);
        }
        drop(st);
        // Empty, unless the world changed while we were allocating: then the pages go back.
        balloon_page::free_all(&mut worker.batch);
        Next::Step
    }

    /// Fills the batch with up to `want` pages, as far as memory allows.
    fn allocate(&self, worker: &mut Worker, want: usize) {
        let spare = mem::available_pages().saturating_sub(LEAVE_AVAILABLE);
        let want = want.min(spare).min(REQUEST_PAGES);
        let Worker { batch, ladder, .. } = worker;

        while batch.len() < want {
            let (had, left) = (batch.len(), want - batch.len());
            let rung = ladder.rung(left);
            match rung {
                Rung::Block { order, compact } => {
                    let effort = match compact {
                        true => Effort::Compact,
                        false => Effort::TakeFree,
                    };
                    balloon_page::alloc_block(order, effort, batch);
                }
                Rung::Singles => {
                    balloon_page::alloc_singles(left, batch);
                }
            }
            if batch.len() > had {
                ladder.got(rung, batch.len() - had);
            } else if !ladder.step_down(rung) {
                break;
            }
        }
        batch.retain(|page| is_addressable(page));
    }
}
