// SPDX-License-Identifier: GPL-2.0

//! Where the pages of an inflation come from, and what if there are none.

use super::{
    engine::{
        Engine,
        Phase, //
    },
    ladder::{
        Ladder,
        Rung, //
    },
    layout::{
        BLOCK_ORDER,
        LEAVE_AVAILABLE,
        REQUEST_PAGES, //
    },
    requests::is_addressable,
    thread::Next, //
};
use crate::kernel_ext::{
    balloon_page::{
        self,
        BalloonPage,
        Effort, //
    },
    mem, //
};

use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic,
        Msecs, //
    },
};

/// Shortest and longest time between two attempts to allocate when memory is short, in
/// milliseconds.
const RETRY_MS: (Msecs, Msecs) = (200, 5000);

/// How long the log stays silent about a shortage of memory that was mentioned.
const SILENCE: Delta = Delta::from_secs(60);

/// How long one compaction may take before others have to wait.
const DEAR: Delta = Delta::from_millis(100);

/// For how many times as long they wait.
const REST: i64 = 8;

/// What an attempt to allocate led to.
enum Supply {
    /// Pages.
    Some,
    /// None so far, but not all was tried.
    Searching,
    /// None, and nothing is left to try.
    None,
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

    /// Tells whether it is time to mention the shortage in the log; it will be taken as done.
    fn may_say(&mut self) -> bool {
        let due = self.said.is_none_or(|since| since.elapsed() > SILENCE);

        if due {
            self.said = Some(Instant::now());
        }
        due
    }
}

/// The restraint of compaction, whose time grows with the memory that it looks through.
struct Moderation {
    /// When the last compaction ended, and how long none may follow it.
    rest: Option<(Instant<Monotonic>, Delta)>,
}

impl Moderation {
    /// Whether compaction may be asked for now.
    fn allows(&self) -> bool {
        self.rest
            .is_none_or(|(since, rest)| since.elapsed() >= rest)
    }

    /// A compaction that began at `start` has ended.
    fn note(&mut self, start: Instant<Monotonic>) {
        let took = start.elapsed();

        self.rest = (took > DEAR).then(|| (Instant::now(), took * REST));
    }
}

/// Where one balloon gets its pages from. Only the thread knows it.
pub(super) struct Source {
    /// Pages on their way into the balloon.
    batch: KVec<BalloonPage>,
    ladder: Ladder,
    backoff: Backoff,
    moderation: Moderation,
}

impl Source {
    /// Creates one that has not allocated anything.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            batch: KVec::with_capacity(REQUEST_PAGES, GFP_KERNEL)?,
            ladder: Ladder::new(BLOCK_ORDER),
            backoff: Backoff {
                until: None,
                said: None,
            },
            moderation: Moderation { rest: None },
        })
    }

    /// Whether the next attempt to get up to `want` pages begins with compaction.
    pub(super) fn compacts_next(&self, want: usize) -> bool {
        matches!(self.ladder.rung(want), Rung::Compaction(_))
    }

    /// An attempt succeeded, or none is needed: the next need not wait.
    pub(super) fn relax(&mut self) {
        self.backoff.until = None;
    }

    /// Fills the batch with up to `want` pages, as far as memory allows.
    ///
    /// Asks for compaction only at the beginning, and then for nothing else.
    fn fill(&mut self, want: usize) -> Supply {
        let spare = mem::available_pages().saturating_sub(LEAVE_AVAILABLE);
        let want = want.min(spare).min(REQUEST_PAGES);
        let mut supply = Supply::None;

        while self.batch.len() < want {
            let (had, left) = (self.batch.len(), want - self.batch.len());
            let rung = self.ladder.rung(left);
            match rung {
                Rung::Block(order) => {
                    balloon_page::alloc_block(order, Effort::TakeFree, &mut self.batch);
                }
                Rung::Compaction(order) => {
                    supply = Supply::Searching;
                    if had == 0 {
                        self.compact(order);
                    }
                    break;
                }
                Rung::Singles => {
                    balloon_page::alloc_singles(left, &mut self.batch);
                }
            }
            if self.batch.len() > had {
                self.ladder.got(rung, self.batch.len() - had);
            } else if !self.ladder.step_down(rung, self.moderation.allows()) {
                break;
            }
        }
        let had = self.batch.len();
        self.batch.retain(|page| is_addressable(page));
        match (self.batch.len(), had) {
            (0, 0) => supply,
            (0, _) => Supply::None,
            _ => Supply::Some,
        }
    }

    /// Takes a block that is made by compaction, if that succeeds.
    fn compact(&mut self, order: u32) {
        let rung = Rung::Compaction(order);
        let start = Instant::<Monotonic>::now();
        let got = balloon_page::alloc_block(order, Effort::Compact, &mut self.batch);

        self.moderation.note(start);
        if got {
            self.ladder.got(rung, self.batch.len());
        }
        if !got || !self.moderation.allows() {
            self.ladder.step_down(rung, false);
        }
    }
}

impl<'a> Engine<'a> {
    /// Allocates pages for a balloon that holds `held`, less than `target`, and starts their
    /// inflation.
    pub(super) fn grow(&self, source: &mut Source, held: usize, target: usize) -> Next {
        if let Some(left) = source.backoff.left() {
            return Next::Wait(Some(left));
        }
        let supply = self.shared.grow(|| source.fill(target - held));
        let Some(supply) = supply else {
            return Next::Wait(None);
        };
        match supply {
            Supply::Some => source.relax(),
            Supply::Searching => return Next::Step,
            Supply::None => return self.go_without(source, held, target),
        }

        let mut st = self.state.lock();
        if st.phase == Phase::Running && !st.dead && !self.shared.must_be_empty() {
            self.inflate(&mut st, &mut source.batch);
            self.go_on_in_bursts(&mut st);
        }
        drop(st);
        // Empty, unless the world changed while we were allocating: then the pages go back.
        balloon_page::free_all(&mut source.batch);
        Next::Step
    }

    /// There are no pages to get on the way from `held` to `target`: waits, and says so once.
    fn go_without(&self, source: &mut Source, held: usize, target: usize) -> Next {
        source.backoff.fail();
        self.figures().alloc_failures.add(1);
        if source.backoff.may_say() {
            dev_info!(
                self.dev,
                "memory is short: holding {held} of {target} pages, will go on trying\n"
            );
        }
        Next::Wait(source.backoff.left())
    }
}
