// SPDX-License-Identifier: GPL-2.0

//! The state of a balloon and the requests that it has under way.
//!
//! A page belongs to exactly one of: the kernel; the page list (`held`); a request for deflation or
//! migration. It changes hands only when the device has answered, or after a reset.
//!
//! No page is deflated before the device has agreed to all inflations, and none is inflated again
//! before it has agreed to the deflation: only then does the kernel get it.
//!
//! Lock order: the page locks of compaction, then [`Engine::state`], then the locks of the ring and
//! of the balloon core. Nobody waits for the device, allocates, creates or deletes queues, or is
//! frozen with the lock held.

use super::{
    layout::{
        ACTUAL,
        DEFLATE_ON_OOM,
        PER_PAGE,
        REQUEST_PAGES, //
    },
    queues::PageQueues,
    requests::{
        Kind,
        Request,
        Requests, //
    },
    shared::{
        Figures,
        Shared, //
    },
    snapshot::Detector, //
};
use crate::{
    kernel_ext::{
        balloon_page::{
            free_all,
            BalloonPage, //
        },
        page_list::{
            impl_has_page_list,
            PageList, //
        },
        wait::Mode, //
    },
    virtio::Device, //
};

use kernel::{
    device::Bound,
    new_mutex,
    num::casts::usize_as_u64,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::{
        Delta,
        Instant,
        Monotonic,
        Msecs, //
    },
};

/// How long a waiter relies on a notification before it looks for the answer, in milliseconds.
const LOOK_MS: Msecs = 100;

/// How often the device is told of progress while there is some.
const PROGRESS: Delta = Delta::from_millis(250);

/// Whether requests may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Yes.
    Running,
    /// A sleep transition is under way.
    Frozen,
    /// The bus is resetting the device.
    Resetting,
    /// The driver is being unbound, or was shut down.
    Ended,
}

/// All that the lock protects.
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) queues: Option<PageQueues>,
    pub(super) requests: Requests,
    /// Holds pages on their way back to the kernel; otherwise empty.
    leaving: KVec<BalloonPage>,
    /// Pages on the list, isolated ones included.
    pub(super) held: usize,
    /// Pages in the balloon as far as the device has agreed, those on their way out included.
    pub(super) agreed: usize,
    /// `actual` as the device was last told, and when that was.
    pub(super) told: usize,
    pub(super) told_at: Instant<Monotonic>,
    /// The size that the device wants, if it need not be asked.
    pub(super) wanted: Option<usize>,
    /// The device knows nothing of the pages on the list.
    pub(super) stale: bool,
    /// All pages must go through the deflate queue before anything else.
    pub(super) drain: bool,
    /// A migration waits for its answer.
    pub(super) migrating: bool,
    /// How many wait until they may begin a migration.
    pub(super) movers: usize,
    /// The device is of no more use; it was said in the log.
    pub(super) dead: bool,
}

/// One balloon.
#[pin_data]
pub(crate) struct Engine<'a> {
    pub(super) dev: &'a Device<Bound>,
    pub(super) shared: Arc<Shared>,
    pub(super) detector: Detector,
    #[pin]
    pub(super) pages: PageList<Self>,
    #[pin]
    pub(super) state: Mutex<State>,
}

impl_has_page_list! {
    impl<'a> for Engine<'a> { self.pages }
}

impl<'a> Engine<'a> {
    /// Creates an empty balloon on a device that is not live yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        dev: &'a Device<Bound>,
        shared: Arc<Shared>,
        queues: PageQueues,
    ) -> impl PinInit<Self, Error> + use<'a> {
        pin_init::pin_init_scope(move || {
            let requests = Requests::new()?;
            let leaving = KVec::with_capacity(REQUEST_PAGES, GFP_KERNEL)?;
            let detector = Detector::new()?;
            let state = State {
                phase: Phase::Running,
                queues: Some(queues),
                requests,
                leaving,
                held: 0,
                agreed: 0,
                told: 0,
                told_at: Instant::now(),
                wanted: None,
                stale: false,
                drain: false,
                migrating: false,
                movers: 0,
                dead: false,
            };

            Ok(try_pin_init!(Self {
                dev,
                shared,
                detector,
                pages <- PageList::new(!dev.features().has(DEFLATE_ON_OOM)),
                state <- new_mutex!(state),
            }? Error))
        })
    }

    /// Resets the device and parts from its queues; the requests that it had are parked.
    ///
    /// To be called without the lock, when nobody makes requests any more.
    pub(super) fn delete_queues(&self) {
        let mut st = self.state.lock();
        self.reap(&mut st);
        self.tell_actual(&mut st);
        let queues = st.queues.take();
        let mut parked = st.requests.begin_reset();
        drop(st);

        if let Some(queues) = queues {
            // The requests of a device that is not reset are lost.
            if let Ok(reset) = self.dev.reset() {
                while let Some(request) = queues.take_unused(&reset) {
                    // There is room for all requests.
                    drop(parked.push_within_capacity(request));
                }
            }
        }
        let mut st = self.state.lock();
        st.requests.end_reset(parked);
        self.note_held(&st);
    }

    /// The figures of this balloon.
    pub(super) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Takes back what the device has used. To be called before each look at the state.
    pub(super) fn reap(&self, st: &mut State) {
        while let Some(request) = st.queues.as_ref().and_then(PageQueues::take_used) {
            st.requests.note_answer();
            self.answered(st, request);
        }
        self.note_held(st);
    }

    /// Does what the answer to a request allows.
    fn answered(&self, st: &mut State, request: KBox<Request>) {
        let (kind, since) = (request.meta.kind, request.meta.since);
        let figures = self.figures();
        let pages = request.elements().len() / PER_PAGE;

        if kind == Kind::MigrateIn {
            return st.requests.arrive(request);
        }
        // Whoever reads the figures finds the pages that they count.
        st.requests.finish(request);
        match kind {
            Kind::Inflate => {
                st.agreed += pages;
                figures.inflated.add(usize_as_u64(pages));
                figures.inflate_ns.add_elapsed(since);
            }
            Kind::Deflate => {
                st.agreed -= pages;
                figures.deflated.add(usize_as_u64(pages));
                figures.deflate_ns.add_elapsed(since);
            }
            // Another page is in the balloon for it: nobody gained one.
            Kind::MigrateIn | Kind::MigrateOut | Kind::MigrateBack => {}
        }
    }

    /// Waits up to `limit` milliseconds until `done`. Looks for answers without a notification,
    /// too.
    ///
    /// Returns whether `done` holds.
    pub(super) fn wait_until(&self, limit: Msecs, done: impl Fn(&mut State) -> bool) -> bool {
        let look = || {
            let mut st = self.state.lock();

            self.reap(&mut st);
            done(&mut st)
        };

        for _ in 0..=limit / LOOK_MS {
            if self.shared.wait(Mode::Brief, Some(LOOK_MS), look) {
                return true;
            }
        }
        look()
    }

    /// Makes a request available that has its page numbers, or parks it if the device cannot have
    /// it now. Returns whether it can.
    ///
    /// [`Self::notify`] must follow, before anybody waits.
    pub(super) fn add(&self, st: &mut State, mut request: KBox<Request>) -> bool {
        request.meta.since = Instant::now();
        let refused = match &mut st.queues {
            Some(queues) => queues.add(request).err().map(|(_, request)| request),
            None => Some(request),
        };
        let added = refused.is_none();

        match refused {
            Some(request) => st.requests.park(request),
            None => st.requests.note_sent(),
        }
        self.note_held(st);
        added
    }

    /// Notifies the device of new requests, and takes back what it has answered at once.
    ///
    /// Returns whether there were any new ones.
    pub(super) fn notify(&self, st: &mut State) -> bool {
        let notified = st.queues.as_mut().is_some_and(PageQueues::notify);

        if notified {
            self.reap(st);
        }
        notified
    }

    /// Puts all pages of `pages` on the list and asks the device to take them.
    ///
    /// Does nothing unless a request is idle.
    pub(super) fn inflate(&self, st: &mut State, pages: &mut KVec<BalloonPage>) {
        let Some(mut request) = st.requests.take_idle(Kind::Inflate) else {
            return;
        };

        st.requests.name_pages(&mut request, pages);
        st.held += pages.len();
        self.pages.enqueue(pages);
        self.add(st, request);
    }

    /// Takes up to `max` pages off the list and asks the device to give them up.
    ///
    /// Returns whether there was any, which may be not so while compaction has some isolated. Does
    /// nothing unless a request is idle and the device has agreed to all inflations.
    pub(super) fn deflate(&self, st: &mut State, max: usize) -> bool {
        if st.requests.is_inflating() {
            return false;
        }
        let Some(mut request) = st.requests.take_idle(Kind::Deflate) else {
            return false;
        };
        let taken = self.pages.dequeue(&mut request.meta.pages, max);

        st.held -= taken;
        if taken == 0 {
            st.requests.finish(request);
            return false;
        }
        st.requests.name_own_pages(&mut request);
        self.add(st, request)
    }

    /// Sends what waits for that: requests that were parked, and one for a page that arrived for a
    /// migration that nobody waits for any more.
    ///
    /// Returns whether the device can have them all.
    pub(super) fn send_leftovers(&self, st: &mut State) -> bool {
        while let Some(request) = st.requests.take_parked() {
            if !self.add(st, request) {
                return false;
            }
        }
        if st.migrating {
            return true;
        }
        match st.requests.take_arrived(Kind::MigrateBack) {
            Some(request) => self.give_back(st, request),
            None => true,
        }
    }

    /// Asks the device to give up the page that is in a request for a migration.
    ///
    /// Returns whether it can have the request.
    pub(super) fn give_back(&self, st: &mut State, mut request: KBox<Request>) -> bool {
        st.requests.name_own_pages(&mut request);
        self.add(st, request)
    }

    /// Gives up to [`REQUEST_PAGES`] pages of the list back to the kernel without asking the
    /// device.
    ///
    /// Returns how many. Needs no request: a device that does not finish a reset may keep them all.
    pub(super) fn release(&self, st: &mut State) -> usize {
        let taken = self.pages.dequeue(&mut st.leaving, REQUEST_PAGES);

        st.held -= taken;
        free_all(&mut st.leaving);
        self.figures().returned.add(usize_as_u64(taken));
        self.note_held(st);
        taken
    }

    /// Tells the device the size of the balloon that it agreed to, if it was told another.
    pub(super) fn tell_actual(&self, st: &mut State) {
        if st.agreed != st.told {
            self.tell_again(st);
        }
    }

    /// As [`Self::tell_actual`], but not more often than need be to show progress.
    pub(super) fn tell_progress(&self, st: &mut State) {
        if st.told_at.elapsed() >= PROGRESS {
            self.tell_actual(st);
        }
    }

    /// As [`Self::tell_actual`], whatever the device was told: it may remember a balloon that it
    /// had with another kernel.
    pub(super) fn correct_actual(&self, st: &mut State) {
        // Fails only if there is no configuration space, and then `probe` would have, too.
        if self.dev.read(&ACTUAL) != Ok(to_balloon_pages(st.agreed)) {
            self.tell_again(st);
        }
    }

    /// Tells the device the size of the balloon that it agreed to.
    pub(super) fn tell_again(&self, st: &mut State) {
        if st.dead || st.queues.is_none() {
            return;
        }
        st.told = st.agreed;
        st.told_at = Instant::now();
        self.figures().actual.set_pages(st.told);
        // The transport has a configuration space, or `probe` would have failed.
        let _ = self.dev.write(&ACTUAL, to_balloon_pages(st.told));
        self.shared.wake_waiters();
    }

    /// Finds out whether the device can still be used; if not, says so once.
    pub(super) fn check_alive(&self, st: &mut State) -> bool {
        let broken = match &st.queues {
            None => true,
            Some(queues) => queues.is_broken(),
        };

        if broken && !st.dead {
            self.declare_dead(st, "a virtqueue is broken or missing");
        }
        !st.dead
    }

    /// Stops using the device.
    pub(super) fn declare_dead(&self, st: &mut State, why: &str) {
        st.dead = true;
        self.figures().broken.set(1);
        dev_err!(
            self.dev,
            "{why}: the balloon stays at {} pages until the driver is unbound\n",
            st.held
        );
    }

    /// Publishes how much the balloon holds.
    pub(super) fn note_held(&self, st: &State) {
        let figures = self.figures();

        figures.held.set_pages(st.held);
        figures.in_flight.set_pages(st.requests.pages());
    }
}

/// Converts a number of kernel pages for the device.
pub(super) fn to_balloon_pages(pages: usize) -> u32 {
    u32::try_from(pages.saturating_mul(PER_PAGE)).unwrap_or(u32::MAX)
}
