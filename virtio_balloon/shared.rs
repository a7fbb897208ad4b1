// SPDX-License-Identifier: GPL-2.0

//! What can be seen and said without the lock of the engine: events, orders, counters, debugfs.

use super::{
    hint::Store,
    informer::Bell,
    layout::PER_PAGE,
    oom::Cap,
    parameters,
    report::LetterBox, //
};
use crate::kernel_ext::{
    notifier::{
        PmEvent,
        PmHandler, //
    },
    wait::{
        new_wait_queue,
        Mode,
        WaitQueue, //
    },
    wakeup::Wakeup, //
};

use kernel::{
    device::Device,
    fmt,
    num::casts::usize_as_u64,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc, //
    },
    time::{
        Instant,
        Monotonic,
        Msecs, //
    },
};

/// How long a kernel that is about to be replaced by an image waits for the next bit of progress of
/// the deflation, in milliseconds.
const DEFLATION_STALLS_MS: Msecs = 3000;

/// How long a sleep transition waits for an allocation to end, in milliseconds.
const ALLOCATION_MS: Msecs = 1000;

/// What happened to the balloon at the last step of a sleep transition; 0 stands for none yet.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Transition {
    /// Queues taken down, pages kept.
    Frozen = 1,
    /// The same kernel goes on with the same pages.
    Held,
    /// A resumed kernel took its pages back from a device that knows nothing of them.
    Returned,
    /// A resumed kernel deflates page by page: the device is neither fresh nor the old one.
    Deflating,
}

impl Transition {
    /// The names in debugfs.
    const NAMES: [&str; 5] = ["none", "frozen", "held", "returned", "deflating"];
}

/// Why the balloon does not grow to the size that the device wants; 0 stands for no reason.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Limit {
    /// What is left to the guest would be less than its administrator wants.
    Floor = 1,
    /// The guest reads back what was swapped out for the balloon.
    Pressure,
    /// The kernel has no pages to give.
    Allocation,
}

impl Limit {
    /// The names in debugfs.
    const NAMES: [&str; 4] = ["none", "floor", "pressure", "allocation"];
}

/// Figures of one balloon, in kernel pages and nanoseconds; written under the lock of the engine,
/// read without.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) target: Counter,
    pub(super) held: Counter,
    pub(super) actual: Counter,
    pub(super) in_flight: Counter,
    pub(super) inflated: Counter,
    pub(super) deflated: Counter,
    pub(super) returned: Counter,
    pub(super) migrated: Counter,
    pub(super) alloc_failures: Counter,
    pub(super) limit: Counter,
    pub(super) statistics: Counter,
    pub(super) shortages: Counter,
    pub(super) hint_rounds: Counter,
    pub(super) hinted: Counter,
    pub(super) reports: Counter,
    pub(super) reported: Counter,
    pub(super) broken: Counter,
    pub(super) frozen: Counter,
    pub(super) transition: Counter,
    pub(super) freeze_ns: Counter,
    pub(super) thaw_ns: Counter,
    pub(super) restore_ns: Counter,
    pub(super) inflate_ns: Counter,
    pub(super) deflate_ns: Counter,
}

/// A number that one writer at a time changes.
pub(super) struct Counter(Atomic<u64>);

impl Default for Counter {
    fn default() -> Self {
        Self(Atomic::new(0))
    }
}

impl Counter {
    /// The present value.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Replaces the value.
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Replaces the value by a number of pages.
    pub(super) fn set_pages(&self, pages: usize) {
        self.set(usize_as_u64(pages));
    }

    /// Adds to the value.
    pub(super) fn add(&self, value: u64) {
        self.0.add(value, Relaxed);
    }

    /// The value's name in a list of names.
    fn name(&self, names: &[&'static str]) -> &'static str {
        let found = usize::try_from(self.get()).ok().and_then(|i| names.get(i));

        found.unwrap_or(&"")
    }

    /// Adds the time since `start`, in nanoseconds.
    pub(super) fn add_elapsed(&self, start: Instant<Monotonic>) {
        self.add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(0));
    }
}

/// Orders from outside the device, and the place where everybody waits.
#[pin_data]
pub(super) struct Shared {
    #[pin]
    queue: WaitQueue,
    /// Something happened that the thread must look at.
    event: Atomic<bool>,
    /// The device configuration changed.
    config_event: Atomic<bool>,
    /// An image is about to replace this kernel: stay at 0.
    hold_at_zero: Atomic<bool>,
    /// A sleep transition is under way: do not inflate, nor wait for the device in a migration.
    pause: Atomic<bool>,
    /// The thread is allocating pages: not the time to move those that are in the balloon, nor to
    /// freeze the thread.
    growing: Atomic<bool>,
    /// The driver is being unbound.
    ended: Atomic<bool>,
    pub(super) wakeup: Wakeup,
    #[pin]
    pub(super) cap: Cap,
    #[pin]
    pub(super) info: Bell,
    #[pin]
    pub(super) hints: Store,
    #[pin]
    pub(super) reports: LetterBox,
    pub(super) figures: Figures,
}

/// Why the system should not go to sleep, if user space wants to know.
pub(super) struct Reason;

impl Reason {
    /// The balloon may not have the size that the device wants.
    pub(super) const ADJUSTMENT: u32 = 1;
    /// The device asks for statistics.
    pub(super) const STATISTICS: u32 = 2;
}

impl Shared {
    /// Creates the shared state of the balloon of `dev`.
    pub(super) fn new(dev: &Device) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                queue <- new_wait_queue!("virtio_balloon"),
                event: Atomic::new(false),
                config_event: Atomic::new(false),
                hold_at_zero: Atomic::new(false),
                pause: Atomic::new(false),
                growing: Atomic::new(false),
                ended: Atomic::new(false),
                wakeup: Wakeup::new(dev),
                cap <- Cap::new(),
                info <- Bell::new(),
                hints <- Store::new(),
                reports <- LetterBox::new(),
                figures: Figures::default(),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes the thread look at the device, and all waiters at their conditions.
    ///
    /// # Context
    ///
    /// Any, interrupts included.
    pub(super) fn wake(&self) {
        self.event.store(true, Release);
        self.queue.wake_all();
    }

    /// As [`Self::wake`], because the device configuration changed.
    pub(super) fn wake_for_config(&self) {
        self.wakeup.begin(Reason::ADJUSTMENT);
        self.config_event.store(true, Release);
        self.wake();
    }

    /// The thread has nothing to do at present.
    pub(super) fn rest(&self) {
        if self.figures.in_flight.get() == 0 {
            self.wakeup.end(Reason::ADJUSTMENT);
        }
        // An event may have come meanwhile.
        if self.config_event.load(Acquire) {
            self.wakeup.begin(Reason::ADJUSTMENT);
        }
    }

    /// Tells whether the device configuration changed since the last call.
    pub(super) fn take_config_event(&self) -> bool {
        self.config_event.xchg(false, Full)
    }

    /// Takes the event that [`Self::wake`] left, if any.
    pub(super) fn take_event(&self) -> bool {
        self.event.xchg(false, Full)
    }

    /// Waits until `condition` holds; see [`WaitQueue::wait`].
    pub(super) fn wait(
        &self,
        mode: Mode,
        timeout: Option<Msecs>,
        condition: impl FnMut() -> bool,
    ) -> bool {
        self.queue.wait(mode, timeout, condition)
    }

    /// Whether the balloon must be empty whatever the device wants.
    pub(super) fn must_be_empty(&self) -> bool {
        self.hold_at_zero.load(Acquire)
    }

    /// Whether a sleep transition is under way.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.load(Acquire)
    }

    /// Calls `allocate`, unless a sleep transition is under way.
    ///
    /// [`Self::pause`] waits for its end: an allocation that reclaims or compacts memory cannot be
    /// interrupted, and would hold up the freezing of tasks.
    pub(super) fn grow<R>(&self, allocate: impl FnOnce() -> R) -> Option<R> {
        // Either this sees `pause`, or `pause` sees this.
        self.growing.xchg(true, Full);
        let result = (!self.is_paused()).then(allocate);

        self.growing.store(false, Release);
        if self.is_paused() {
            self.wake_waiters();
        }
        result
    }

    /// Whether the thread is allocating pages.
    pub(super) fn is_growing(&self) -> bool {
        self.growing.load(Acquire)
    }

    /// Begins a sleep transition: when this returns, the thread allocates nothing.
    fn pause(&self) {
        self.pause.xchg(true, Full);
        self.wait(Mode::Brief, Some(ALLOCATION_MS), || !self.is_growing());
    }

    /// Whether a sleep transition of any kind is under way.
    pub(super) fn is_asleep(&self) -> bool {
        self.is_paused() || self.must_be_empty()
    }

    /// Says that the driver is being unbound: nobody need wait for the thread any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Release);
        self.wake();
    }

    /// Whether the driver is being unbound.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Acquire)
    }

    /// Makes all waiters but an idle thread look at their conditions.
    pub(super) fn wake_waiters(&self) {
        self.queue.wake_all();
    }

    /// Waits until the device has agreed that the balloon is empty, or makes no progress.
    fn wait_until_empty(&self) {
        let figures = &self.figures;
        let ended = || self.is_ended();
        let empty = || figures.held.get() + figures.in_flight.get() + figures.actual.get() == 0;

        while !empty() && !ended() {
            let before = figures.actual.get();
            let moved = || figures.actual.get() != before || empty() || ended();

            if !self.wait(Mode::Brief, Some(DEFLATION_STALLS_MS), moved) {
                return;
            }
        }
    }

    /// Publishes why the balloon does not grow.
    pub(super) fn note_limit(&self, limit: Option<Limit>) {
        // CAST: The discriminants are small.
        let number = limit.map_or(0, |limit| limit as u64);

        self.figures.limit.set(number);
    }

    /// Writes the contents of the debugfs file.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = &self.figures;
        let pages = |counter: &Counter| counter.get() * usize_as_u64(PER_PAGE);
        let transition = x.transition.name(&Transition::NAMES);
        let (policy, floor) = parameters::current();
        let (number, unit) = floor.number_and_unit();
        let phase = if x.frozen.get() != 0 {
            "frozen"
        } else {
            "running"
        };

        writeln!(f, "target_pages: {}", pages(&x.target))?;
        writeln!(f, "actual_pages: {}", pages(&x.actual))?;
        writeln!(f, "held_pages: {}", pages(&x.held))?;
        writeln!(f, "in_flight: {}", pages(&x.in_flight))?;
        writeln!(f, "inflated_total: {}", pages(&x.inflated))?;
        writeln!(f, "deflated_total: {}", pages(&x.deflated))?;
        writeln!(f, "returned_total: {}", pages(&x.returned))?;
        writeln!(f, "migrated_total: {}", pages(&x.migrated))?;
        writeln!(f, "alloc_failures: {}", x.alloc_failures.get())?;
        writeln!(f, "policy: {}", policy.name())?;
        writeln!(f, "floor: {number}{unit}")?;
        writeln!(f, "limited_by: {}", x.limit.name(&Limit::NAMES))?;
        writeln!(f, "statistics: {}", x.statistics.get())?;
        writeln!(f, "shortages: {}", x.shortages.get())?;
        writeln!(f, "hint_rounds: {}", x.hint_rounds.get())?;
        writeln!(f, "hinted_blocks: {}", x.hinted.get())?;
        writeln!(f, "hint_blocks_kept: {}", self.hints.kept())?;
        writeln!(f, "reports: {}", x.reports.get())?;
        writeln!(f, "reported_blocks: {}", x.reported.get())?;
        writeln!(f, "broken: {}", x.broken.get())?;
        writeln!(f, "phase: {phase}")?;
        writeln!(f, "last_transition: {transition}")?;
        writeln!(f, "freeze_ns: {}", x.freeze_ns.get())?;
        writeln!(f, "thaw_ns: {}", x.thaw_ns.get())?;
        writeln!(f, "restore_ns: {}", x.restore_ns.get())?;
        writeln!(f, "inflate_ns: {}", x.inflate_ns.get())?;
        writeln!(f, "deflate_ns: {}", x.deflate_ns.get())
    }
}

/// Listens for sleep transitions on behalf of [`Shared`].
pub(super) struct Listener(pub(super) Arc<Shared>);

impl PmHandler for Listener {
    fn notify(&self, event: PmEvent) {
        let shared = &*self.0;

        match event {
            PmEvent::SleepPrepare => shared.pause(),
            PmEvent::PostSleep => shared.pause.store(false, Release),
            PmEvent::RestorePrepare => shared.hold_at_zero.store(true, Release),
            PmEvent::PostRestore => shared.hold_at_zero.store(false, Release),
        }
        shared.wake();
        shared.info.ring();
        if shared.is_asleep() {
            // An image may need the memory.
            shared.hints.empty();
            shared.end_reports();
        }
        if event == PmEvent::RestorePrepare {
            shared.wait_until_empty();
        }
    }
}
