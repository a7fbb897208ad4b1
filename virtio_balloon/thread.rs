// SPDX-License-Identifier: GPL-2.0

//! Inflation and deflation towards the target: what the thread does.
//!
//! Each step looks at everything afresh and takes one decision, so it does not matter what happened
//! between two steps: a new target, a freeze and a thaw, a resumed kernel.

use super::{
    engine::{
        is_addressable,
        Engine,
        Phase,
        Slot,
        State, //
    },
    ladder::{
        Ladder,
        Rung, //
    },
    layout::{
        BLOCK_ORDER,
        LEAVE_AVAILABLE,
        NUM_PAGES,
        PER_PAGE,
        REQUEST_PAGES, //
    },
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

use core::mem::replace;
use kernel::{
    num::casts::u32_as_usize,
    prelude::*,
    sync::atomic::Relaxed,
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

/// What only the thread needs to know.
struct Worker {
    /// Pages on their way into the balloon.
    batch: KVec<BalloonPage>,
    ladder: Ladder,
    backoff: Backoff,
    /// The log mentioned that the device is slow to answer.
    said_slow: bool,
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
            said_slow: false,
        };

        // The target may have been set before the device was live.
        self.shared.wake();
        while !current.should_stop() {
            if let Next::Wait(timeout) = self.step(&mut worker) {
                self.shared.wait(Mode::Freezable, timeout, || {
                    self.shared.take_event() || current.should_stop()
                });
            }
        }
    }

    /// Takes one decision.
    fn step(&self, worker: &mut Worker) -> Next {
        let mut st = self.state.lock();

        if st.phase != Phase::Running || st.dead {
            return Next::Wait(None);
        }
        self.reap(&mut st);
        if !self.check_alive(&mut st) {
            return Next::Wait(None);
        }
        if self.shared.take_config_event() && self.dev.needs_reset() {
            self.declare_dead(&mut st, "the device asks for a reset");
            return Next::Wait(None);
        }
        if let Some(next) = self.tend_slot(&mut st, worker) {
            return next;
        }
        if st.stale {
            return self.release_stale(&mut st);
        }
        worker.said_slow = false;
        self.tell_actual(&mut st, false);

        let target = self.target(&mut st);
        let held = st.held;
        if held > target {
            return match self.deflate(&mut st, held - target) {
                true => Next::Step,
                false => Next::Wait(Some(ISOLATED_MS)),
            };
        }
        drop(st);
        if held == target {
            worker.backoff.succeed();
            return Next::Wait(None);
        }
        self.grow(worker, target - held, target)
    }

    /// Looks after a request that is under way; `None` if there is none.
    fn tend_slot(&self, st: &mut State<'a>, worker: &mut Worker) -> Option<Next> {
        match replace(&mut st.slot, Slot::Taken) {
            Slot::Idle(request) => {
                st.slot = Slot::Idle(request);
                return None;
            }
            Slot::Sent(kind, since) => {
                st.slot = Slot::Sent(kind, since);
                if since.elapsed() > PATIENCE && !worker.said_slow {
                    worker.said_slow = true;
                    dev_warn!(self.dev, "the device has not answered a request for 10 s\n");
                }
            }
            Slot::Arrived(request) if !st.migrating => {
                self.deflate_arrived(st, request);
                return Some(Next::Step);
            }
            Slot::Parked(request) => {
                self.send(st, request);
                if matches!(st.slot, Slot::Sent(..)) {
                    return Some(Next::Step);
                }
            }
            other => st.slot = other,
        }
        Some(Next::Wait(Some(POLL_MS)))
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
        // The transport has a configuration space, or `probe` would have failed.
        let wanted = u32_as_usize(self.dev.read(&NUM_PAGES).unwrap_or(0)).div_ceil(PER_PAGE);

        self.figures().target.set_pages(wanted);
        match st.drain || self.shared.must_be_empty() {
            true => 0,
            false => wanted,
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
