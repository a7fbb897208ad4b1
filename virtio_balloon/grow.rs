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
        DEFLATE_ON_OOM,
        REQUEST_PAGES, //
    },
    parameters,
    policy::{
        self,
        Policy,
        Pressure,
        Room, //
    },
    requests::is_addressable,
    shared::Limit,
    thread::Next, //
};
use crate::kernel_ext::{
    balloon_page::{
        self,
        BalloonPage,
        Effort, //
    },
    mem,
    vm_stat::{
        Memory,
        NodePages, //
    }, //
};

use kernel::{
    num::casts::usize_as_u64,
    page::PAGE_SHIFT,
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

/// Pages that are allocated at once while others are swapped out for them. Less than the kernel's
/// thread leaves free above the low mark, between which and the high one it goes on.
const SWAP_AT_ONCE: usize = 64;

/// An allocation of several pages gives no more than these when they would leave less free than the
/// low mark: one for its first and one for its last attempt.
const BELOW_LOW_MARK: usize = 2;

/// How long to wait for memory that is being reclaimed before looking again, and how long it is
/// worth while, in milliseconds.
const RECLAIM_MS: (Msecs, i64) = (2, 200);

/// What an attempt to allocate led to.
enum Supply {
    /// Pages.
    Some,
    /// Pages, but no more until the kernel has reclaimed some.
    Last,
    /// None so far, but not all was tried.
    Searching,
    /// None so far, but the kernel is reclaiming some.
    Reclaiming,
    /// None, for this reason.
    None(Limit),
}

/// The restraint of inflation when memory is short.
struct Backoff {
    /// No attempt before that.
    until: Option<(Instant<Monotonic>, Msecs)>,
    /// When the log last mentioned the shortage.
    said: Option<Instant<Monotonic>>,
    /// Since when reclaim has not led to a page.
    waiting: Option<Instant<Monotonic>>,
}

impl Backoff {
    /// There was a page that the kernel had reclaimed, or none. Tells whether it is no longer worth
    /// while to wait for one.
    fn stalled(&mut self, got: bool) -> bool {
        if got {
            self.waiting = None;
            return false;
        }
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let stalled = since.elapsed().as_millis() > RECLAIM_MS.1;

        if stalled {
            self.waiting = None;
        }
        stalled
    }

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
    pressure: Pressure,
    /// When time began to count for the pressure.
    start: Instant<Monotonic>,
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
                waiting: None,
            },
            moderation: Moderation { rest: None },
            pressure: Pressure::new(),
            start: Instant::now(),
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

    /// Fills the batch with up to `want` pages of a guest with `total` pages, as far as its memory
    /// and its administrator allow.
    fn fill(&mut self, want: usize, total: usize) -> Supply {
        let (policy, floor) = parameters::current();
        let want = want.min(REQUEST_PAGES);

        match policy::room(policy, floor.pages(total, PAGE_SHIFT), memory()) {
            Room::Available(spare) => self.take(want.min(spare)),
            Room::Swap(_) if policy == Policy::Pressure && self.is_under_pressure() => {
                Supply::None(Limit::Pressure)
            }
            Room::Swap(spare) => self.squeeze(want.min(spare)),
            Room::Nothing => Supply::None(Limit::Floor),
        }
    }

    /// Takes up to `want` pages that are available.
    ///
    /// Asks for compaction only at the beginning, and then for nothing else.
    fn take(&mut self, want: usize) -> Supply {
        while self.batch.len() < want {
            let (had, left) = (self.batch.len(), want - self.batch.len());
            let rung = self.ladder.rung(left);
            match rung {
                Rung::Block(order) => {
                    self.take_block(order, Effort::TakeFree);
                }
                Rung::Compaction(order) => {
                    if had == 0 {
                        self.compact(order);
                    }
                    return self.supply(Supply::Searching);
                }
                Rung::Singles => {
                    self.take_singles(left, Effort::Reclaim);
                }
            }
            if self.batch.len() > had {
                self.ladder.got(rung, self.batch.len() - had);
            } else if !self.ladder.step_down(rung, self.moderation.allows()) {
                break;
            }
        }
        self.supply(Supply::None(Limit::Allocation))
    }

    /// Takes up to `want` pages for which others are swapped out, as fast as the kernel does that.
    ///
    /// Leaves the swapping to the kernel's own thread, and all that is below the low mark to it and
    /// to others: without some pages for what it writes nothing can be swapped out, and a process
    /// is killed beside a swap area that is empty.
    fn squeeze(&mut self, want: usize) -> Supply {
        let want = want.min(SWAP_AT_ONCE);
        let mut got = self.take_singles(want, Effort::Background);

        if got <= BELOW_LOW_MARK.min(want - 1) {
            self.batch.clear();
            got = 0;
        }
        self.pressure.note_taken(usize_as_u64(got));
        match self.backoff.stalled(got > 0) {
            _ if got >= want => Supply::Some,
            _ if got > 0 => Supply::Last,
            false => Supply::Reclaiming,
            true => Supply::None(Limit::Allocation),
        }
    }

    /// Takes a block, if it can be had and the device can be told of its pages; returns whether.
    fn take_block(&mut self, order: u32, effort: Effort) -> bool {
        let had = self.batch.len();

        if !balloon_page::alloc_block(order, effort, &mut self.batch) {
            return false;
        }
        // Its last page has the highest number.
        let usable = self.batch.last().is_some_and(is_addressable);
        if !usable {
            self.batch.truncate(had);
        }
        usable
    }

    /// Takes up to `max` single pages of which the device can be told; returns how many.
    fn take_singles(&mut self, max: usize, effort: Effort) -> usize {
        let had = self.batch.len();

        balloon_page::alloc_singles(max, effort, &mut self.batch);
        let usable = |pages: &[BalloonPage]| pages.iter().all(is_addressable);
        if !self.batch.get(had..).is_some_and(usable) {
            self.batch.retain(|page| is_addressable(page));
        }
        self.batch.len() - had
    }

    /// [`Supply::Some`] if there are pages in the batch, else `otherwise`.
    fn supply(&self, otherwise: Supply) -> Supply {
        match self.batch.is_empty() {
            true => otherwise,
            false => Supply::Some,
        }
    }

    /// Whether the guest reads back what was swapped out.
    fn is_under_pressure(&mut self) -> bool {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(0);
        let refaults = NodePages::RefaultedAnonymous.read() + NodePages::RefaultedFile.read();

        self.pressure.is_high(now, refaults)
    }

    /// Takes a block that is made by compaction, if that succeeds.
    fn compact(&mut self, order: u32) {
        let rung = Rung::Compaction(order);
        let start = Instant::<Monotonic>::now();
        let got = self.take_block(order, Effort::Compact);

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
        let total = self.guest_pages(held);
        let supply = self.shared.grow(|| source.fill(target - held, total));
        let Some(supply) = supply else {
            return Next::Wait(None);
        };
        let next = match supply {
            Supply::Some | Supply::Searching => Next::Step,
            Supply::Last | Supply::Reclaiming => Next::Wait(Some(RECLAIM_MS.0)),
            Supply::None(limit) => return self.go_without(source, limit, held, target),
        };
        if source.batch.is_empty() {
            return next;
        }
        source.relax();

        let mut st = self.state.lock();
        if st.phase == Phase::Running && !st.dead && !self.shared.must_be_empty() {
            self.inflate(&mut st, &mut source.batch);
            self.go_on_in_bursts(&mut st);
        }
        drop(st);
        // Empty, unless the world changed while we were allocating: then the pages go back.
        balloon_page::free_all(&mut source.batch);
        next
    }

    /// Size of the guest's memory if `held` pages of it are in the balloon.
    fn guest_pages(&self, held: usize) -> usize {
        let total = usize::try_from(Memory::read().total).unwrap_or(0);

        match self.dev.features().has(DEFLATE_ON_OOM) {
            // They still count.
            true => total,
            false => total + held,
        }
    }

    /// There are no pages to get on the way from `held` to `target`: waits, and says so once.
    fn go_without(&self, source: &mut Source, limit: Limit, held: usize, target: usize) -> Next {
        source.backoff.fail();
        self.shared.note_limit(Some(limit));
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

/// What the policy looks at.
fn memory() -> policy::Memory {
    let anonymous = NodePages::InactiveAnonymous.read() + NodePages::ActiveAnonymous.read();

    policy::Memory {
        available: mem::available_pages(),
        swap: mem::free_swap_pages(),
        anonymous: usize::try_from(anonymous).unwrap_or(0),
    }
}
