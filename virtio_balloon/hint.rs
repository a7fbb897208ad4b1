// SPDX-License-Identifier: GPL-2.0

//! Free page hints (Virtio 1.4, 5.5.6.5): the device learns which memory need not be migrated.
//!
//! A command id of the device begins a *round*: the driver opens it with that id, offers blocks of
//! free pages, and ends it with `STOP`. Blocks that came back are kept, so that nobody offers them
//! twice, until the device is done, the kernel wants them back, or nothing happens for a while.
//! Blocks that the device has are few; they stay aside until it gives them back or is reset.

use super::{
    layout::{
        COMMAND_ID,
        LEAVE_MIB, //
    },
    queues::HintQueue,
    shared::Shared, //
};
use crate::{
    kernel_ext::{
        page_block::{
            PageBlock,
            Pile, //
        },
        shrinker::{
            Cache,
            Shrinker, //
        },
        vm_stat::Memory, //
    },
    virtio::{
        payload::{
            OutBuf,
            Parts,
            Payload, //
        },
        Device, //
    },
};

use core::mem::replace;
use kernel::{
    device::Bound,
    new_mutex,
    num::casts::usize_as_u64,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Release, //
        },
        Arc,
        Mutex, //
    },
    task::might_sleep,
    time::{
        Instant,
        Monotonic,
        Msecs, //
    },
};

/// Command: end the round, another one may follow. Also what the driver ends its rounds with.
const STOP: u32 = 0;

/// Command: the migration is over.
const DONE: u32 = 1;

/// The most buffers that the device may have at a time.
const IN_FLIGHT: usize = 16;

/// Of all memory, the part that stays free while blocks are offered: a sixteenth.
const LEAVE_FREE: u64 = 16;

/// Shortest time between the beginnings of two rounds, in milliseconds.
const ROUND_MS: Msecs = 20;

/// How long blocks are kept without a round, in milliseconds.
const KEEP_MS: Msecs = 30_000;

/// How long to wait before looking whether blocks came back, in milliseconds: QEMU does not notify
/// about them. The first time this long, then twice as long each time, up to the limit.
const POLL_MS: (Msecs, Msecs) = (1, 1000);

/// What goes through the queue.
pub(super) enum Hint {
    /// A command id, in the byte order of the device.
    Id(KBox<OutBuf<[u8; 4], 1, ()>>),
    /// Pages that the driver does not use.
    Block(PageBlock),
}

impl Payload for Hint {
    fn parts(&mut self) -> Parts<'_> {
        match self {
            Self::Id(id) => Parts::new().readable(&**id),
            Self::Block(block) => Parts::new().writable(block),
        }
    }
}

/// The blocks that came back from the device, and the news from there.
#[pin_data]
pub(super) struct Store {
    #[pin]
    pile: Mutex<Pile>,
    /// The device may have another command.
    news: Atomic<bool>,
}

impl Store {
    /// Makes an empty store.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            pile <- new_mutex!(Pile::default()),
            news: Atomic::new(true),
        })
    }

    /// Makes the thread read the command when it looks next.
    ///
    /// # Context
    ///
    /// Any, interrupts included.
    pub(super) fn expect_command(&self) {
        self.news.store(true, Release);
    }

    /// Number of blocks.
    pub(super) fn kept(&self) -> usize {
        self.pile.lock().count()
    }

    /// Gives all blocks back to the kernel.
    pub(super) fn empty(&self) {
        loop {
            let block = self.pile.lock().pop();
            if block.is_none() {
                return;
            }
            might_sleep();
        }
    }
}

/// Gives blocks back when the kernel wants them, on behalf of [`Shared`].
pub(super) struct Reclaim(Arc<Shared>);

impl Cache for Reclaim {
    fn count(&self) -> usize {
        let pile = self.0.hints.pile.try_lock();

        pile.map_or(0, |pile| pile.count() * PageBlock::PAGES)
    }

    fn scan(&self, pages: usize) -> Option<usize> {
        let mut pile = self.0.hints.pile.try_lock()?;
        let mut freed = 0;

        while freed < pages && pile.pop().is_some() {
            freed += PageBlock::PAGES;
        }
        Some(freed)
    }
}

/// The hints of one balloon.
#[pin_data]
pub(super) struct Hints<'a> {
    dev: &'a Device<Bound>,
    shared: Arc<Shared>,
    _shrinker: Option<Shrinker<Reclaim>>,
    #[pin]
    state: Mutex<State>,
}

/// How far the present round is.
struct State {
    /// `None` on a device that wants no hints, and while it is reset.
    queue: Option<HintQueue>,
    /// Buffers that the device has.
    in_flight: usize,
    /// What the device has commanded.
    command: u32,
    /// The command id that the last round was opened with; [`STOP`] if there was none.
    last: u32,
    /// That round was not ended yet.
    open: bool,
    /// When the last round began, or ended.
    since: Instant<Monotonic>,
    /// How long to wait before looking for blocks again.
    poll: Msecs,
    /// The log mentioned that the queue is broken.
    said_broken: bool,
}

impl<'a> Hints<'a> {
    /// Prepares for the commands of the device, if it has a queue for hints.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        dev: &'a Device<Bound>,
        shared: Arc<Shared>,
        queue: Option<HintQueue>,
    ) -> impl PinInit<Self, Error> + use<'a> {
        pin_init::pin_init_scope(move || {
            let shrinker = match queue {
                Some(_) => Some(Shrinker::new(Reclaim(shared.clone()), c"virtio-balloon")?),
                None => None,
            };

            Ok(try_pin_init!(Self {
                dev,
                shared,
                _shrinker: shrinker,
                state <- new_mutex!(State {
                    queue,
                    in_flight: 0,
                    command: STOP,
                    last: STOP,
                    open: false,
                    since: Instant::now(),
                    poll: POLL_MS.0,
                    said_broken: false,
                }),
            }? Error))
        })
    }

    /// Begins anew with a queue of a device that was reset.
    pub(super) fn connect(&self, queue: Option<HintQueue>) {
        let mut st = self.state.lock();

        st.queue = queue;
        st.last = STOP;
        st.said_broken = false;
        self.shared.hints.expect_command();
    }

    /// Parts from the queue and gives all blocks back to the kernel.
    pub(super) fn disconnect(&self) {
        let mut st = self.state.lock();

        // Blocks that the device has go with the queue itself.
        st.queue = None;
        st.in_flight = 0;
        st.open = false;
        drop(st);
        self.shared.hints.empty();
    }

    /// Does what the device has commanded; returns after how many milliseconds to look again, if
    /// that is not to wait for a notification.
    ///
    /// # Context
    ///
    /// May sleep. The device is live.
    pub(super) fn step(&self) -> Option<Msecs> {
        let mut guard = self.state.lock();
        let st = &mut *guard;
        st.queue.as_ref()?;

        self.take_back(st);
        if self.is_broken(st) {
            return None;
        }
        let command = self.command(st);
        if st.open && command != st.last && !self.end_round(st) {
            return Some(st.poll);
        }
        match command {
            STOP => {}
            DONE => self.shared.hints.empty(),
            id if id != st.last => {
                if let Some(left) = time_left(st.since, ROUND_MS) {
                    return Some(left);
                }
                self.begin_round(st, id);
            }
            _ => {}
        }
        if st.open {
            self.offer(st);
        }
        self.next_look(st)
    }

    /// What to do.
    ///
    /// The device is asked only after it had said that something changed: QEMU's reads as [`STOP`]
    /// as soon as it has seen a round begin, without meaning that.
    fn command(&self, st: &mut State) -> u32 {
        if self.shared.hints.news.xchg(false, Full) {
            // The transport has a configuration space, or `probe` would have failed.
            st.command = self.dev.read(&COMMAND_ID).unwrap_or(DONE);
        }
        // While a sleep transition is under way all blocks go back.
        match self.shared.is_asleep() {
            true => DONE,
            false => st.command,
        }
    }

    /// Keeps the blocks that the device has seen.
    fn take_back(&self, st: &mut State) {
        st.poll = (st.poll * 2).min(POLL_MS.1);
        while let Some(hint) = st.queue.as_ref().and_then(|queue| queue.take_used()) {
            st.poll = POLL_MS.0;
            st.in_flight = st.in_flight.saturating_sub(1);
            if let Hint::Block(block) = KBox::into_inner(hint) {
                self.shared.hints.pile.lock().push(block);
            }
        }
    }

    /// Finds out whether the queue can still be used; if not, says so once.
    ///
    /// The blocks that the device has stay aside until it is reset.
    fn is_broken(&self, st: &mut State) -> bool {
        let broken = st.queue.as_ref().is_none_or(|queue| queue.is_broken());

        if broken && !replace(&mut st.said_broken, broken) {
            dev_err!(self.dev, "the virtqueue for free page hints is broken\n");
        }
        broken
    }

    /// Opens a round. If that fails it is not tried again: hints are a favour.
    fn begin_round(&self, st: &mut State, id: u32) {
        st.last = id;
        st.since = Instant::now();
        st.poll = POLL_MS.0;
        st.open = self.send_id(st, id);
        if st.open {
            self.shared.figures.hint_rounds.add(1);
        }
    }

    /// Ends the round; returns whether there was room for that in the queue.
    fn end_round(&self, st: &mut State) -> bool {
        st.open = !self.send_id(st, STOP);
        st.since = Instant::now();
        !st.open
    }

    /// Sends a command id; returns whether that worked.
    fn send_id(&self, st: &mut State, id: u32) -> bool {
        let Ok(mut buf) = OutBuf::new(()) else {
            return false;
        };
        // There is room for one.
        let _ = buf.push(self.dev.byte_order().bytes_of_u32(id));

        let sent = KBox::new(Hint::Id(buf), GFP_KERNEL).is_ok_and(|hint| st.add(hint));
        st.notify();
        sent
    }

    /// Offers blocks, as long as there are any that can be spared; then the round is over.
    fn offer(&self, st: &mut State) {
        let mut all = false;
        let mut count = 0;

        while st.may_offer() && !all {
            let block = can_spare().then(PageBlock::alloc_free).flatten();
            let hint = block.and_then(|block| KBox::new(Hint::Block(block), GFP_NOWAIT).ok());

            all = !hint.is_some_and(|hint| st.add(hint));
            count += usize::from(!all);
        }
        st.notify();
        self.shared.figures.hinted.add(usize_as_u64(count));
        if all {
            self.end_round(st);
        }
    }

    /// When to look again.
    fn next_look(&self, st: &State) -> Option<Msecs> {
        if st.open || st.in_flight > 0 {
            return Some(st.poll);
        }
        if self.shared.hints.kept() == 0 {
            return None;
        }
        let left = time_left(st.since, KEEP_MS);
        if left.is_none() {
            self.shared.hints.empty();
        }
        left
    }
}

impl State {
    /// Whether the device may have one more block; if there can be, a place is left for a command
    /// id.
    fn may_offer(&self) -> bool {
        let size = self.queue.as_ref().map_or(1, |queue| queue.size());

        self.in_flight < size.saturating_sub(1).clamp(1, IN_FLIGHT)
    }

    /// Makes a hint available; returns whether the queue took it.
    fn add(&mut self, hint: KBox<Hint>) -> bool {
        let added = self
            .queue
            .as_mut()
            .is_some_and(|queue| queue.add(hint).is_ok());

        self.in_flight += usize::from(added);
        added
    }

    /// Notifies the device.
    fn notify(&mut self) {
        if let Some(queue) = &self.queue {
            // If that fails the queue is broken, which shows.
            let _ = queue.notify();
        }
    }
}

/// Whether there is so much free memory that a block can be set aside.
fn can_spare() -> bool {
    let memory = Memory::read();
    let blocks = u64::from(LEAVE_MIB << 20) + usize_as_u64(PageBlock::BYTES);
    let leave = memory.total / LEAVE_FREE + (blocks >> PAGE_SHIFT);

    memory.free > leave
}

/// Milliseconds that are left of `ms` since a moment.
fn time_left(since: Instant<Monotonic>, ms: Msecs) -> Option<Msecs> {
    let left = i64::from(ms) - since.elapsed().as_millis();

    Msecs::try_from(left).ok().filter(|left| *left > 0)
}
