// SPDX-License-Identifier: GPL-2.0

//! The state of a balloon and the one request that it has under way.
//!
//! A page belongs to exactly one of: the kernel; the page list (`held`); a deflation request. It
//! changes hands only when the device has answered, or after a reset.
//!
//! Lock order: the page locks of compaction, then [`Engine::state`], then the locks of the ring and
//! of the balloon core. Nobody waits for the device, allocates, creates or deletes queues, or is
//! frozen with the lock held.

use super::{
    layout::{
        ACTUAL,
        DEFLATE,
        INFLATE,
        PER_PAGE,
        REQUEST_LEN,
        REQUEST_PAGES, //
    },
    queues::PageQueues,
    shared::{
        Figures,
        Shared, //
    },
    snapshot::Detector, //
};
use crate::{
    kernel_ext::{
        balloon_page::{
            self,
            impl_has_page_list,
            BalloonPage,
            PageList, //
        },
        wait::Mode, //
    },
    virtio::{
        payload::OutBuf,
        Device,
        Le32, //
    },
};

use core::mem::replace;
use kernel::{
    device::Bound,
    new_mutex,
    num::casts::usize_as_u64,
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc,
        Mutex, //
    },
    time::{
        Instant,
        Monotonic,
        Msecs, //
    },
};

/// How long a waiter relies on a notification before it looks for the answer, in milliseconds.
const LOOK_MS: Msecs = 100;

/// What a request is for, and what becomes of its pages when the device has answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pages on the list; they stay there.
    Inflate,
    /// Pages in the request; they go back to the kernel.
    Deflate,
    /// The one page in the request shall take the place of another on the list.
    MigrateIn,
}

/// The driver's side of a request.
pub(super) struct Job {
    pub(super) kind: Kind,
    /// Never grows beyond the [`REQUEST_PAGES`] it was made with.
    pub(super) pages: KVec<BalloonPage>,
}

/// A request: page numbers for the device, a [`Job`] for us.
pub(super) type Request = OutBuf<Le32, REQUEST_LEN, Job>;

/// Where the one request is.
pub(super) enum Slot {
    /// Not in use, empty.
    Idle(KBox<Request>),
    /// The device has it, since then.
    Sent(Kind, Instant<Monotonic>),
    /// To be sent as soon as the device is live: taken back by a reset, or refused by the queue.
    Parked(KBox<Request>),
    /// The device has answered a [`Kind::MigrateIn`].
    Arrived(KBox<Request>),
    /// In somebody's hands, under the lock.
    Taken,
}

/// Whether requests may be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Yes.
    Running,
    /// A sleep transition is under way.
    Frozen,
    /// The driver is being unbound, or was shut down.
    Ended,
}

/// All that the lock protects.
pub(super) struct State<'a> {
    pub(super) phase: Phase,
    pub(super) queues: Option<PageQueues<'a>>,
    pub(super) slot: Slot,
    /// Pages on the list, isolated ones included.
    pub(super) held: usize,
    /// `actual` as the device was last told.
    pub(super) told: usize,
    /// The device knows nothing of the pages on the list.
    pub(super) stale: bool,
    /// All pages must go through the deflate queue before anything else.
    pub(super) drain: bool,
    /// A migration waits for its answer.
    pub(super) migrating: bool,
    /// The device is of no more use; it was said in the log.
    pub(super) dead: bool,
}

/// One balloon.
#[pin_data]
pub(crate) struct Engine<'a> {
    pub(super) dev: &'a Device<Bound>,
    pub(super) shared: Arc<Shared>,
    /// The thread is allocating pages: not the time to move those that are in the balloon.
    pub(super) growing: Atomic<bool>,
    pub(super) detector: Detector,
    #[pin]
    pub(super) pages: PageList<Self>,
    #[pin]
    pub(super) state: Mutex<State<'a>>,
}

impl_has_page_list! {
    impl<'a> for Engine<'a> { self.pages }
}

impl<'a> Engine<'a> {
    /// Creates an empty balloon on a device that is not live yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what [`PageQueues::new`] says.
    pub(super) fn new(
        dev: &'a Device<Bound>,
        shared: Arc<Shared>,
    ) -> impl PinInit<Self, Error> + use<'a> {
        pin_init::pin_init_scope(move || {
            let request = Request::new(Job {
                kind: Kind::Inflate,
                pages: KVec::with_capacity(REQUEST_PAGES, GFP_KERNEL)?,
            })?;
            let detector = Detector::new()?;
            let queues = PageQueues::new(dev)?;
            let state = State {
                phase: Phase::Running,
                queues: Some(queues),
                slot: Slot::Idle(request),
                held: 0,
                told: 0,
                stale: false,
                drain: false,
                migrating: false,
                dead: false,
            };

            Ok(try_pin_init!(Self {
                dev,
                shared,
                growing: Atomic::new(false),
                detector,
                pages <- PageList::new(true),
                state <- new_mutex!(state),
            }? Error))
        })
    }

    /// Resets the device and deletes its queues; a request that it had is parked.
    ///
    /// To be called without the lock, when nobody makes requests any more.
    pub(super) fn delete_queues(&self) {
        let mut st = self.state.lock();
        self.reap(&mut st);
        let queues = st.queues.take();
        drop(st);

        let mut unanswered = None;
        if let Some(queues) = queues {
            queues.close(|request| unanswered = Some(request));
        }
        let mut st = self.state.lock();
        if let Some(request) = unanswered {
            st.slot = Slot::Parked(request);
        }
        self.note_held(&st);
    }

    /// The figures of this balloon.
    pub(super) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Takes back what the device has used. To be called before each look at the slot.
    pub(super) fn reap(&self, st: &mut State<'a>) {
        let Some(queues) = &mut st.queues else {
            return;
        };

        for index in [INFLATE, DEFLATE] {
            while let Some(request) = queues.take_used(index) {
                st.slot = self.answered(&st.slot, request);
            }
        }
        self.note_held(st);
    }

    /// Waits up to `limit` milliseconds for the answer to the request that is under way, if there
    /// is one, or until `give_up` says that it makes no sense. Looks for it without a notification,
    /// too.
    ///
    /// Returns whether the device has nothing to answer.
    pub(super) fn wait_for_answer(
        &self,
        limit: Msecs,
        give_up: impl Fn(&mut State<'a>) -> bool,
    ) -> bool {
        let look = || {
            let mut st = self.state.lock();

            self.reap(&mut st);
            (!matches!(st.slot, Slot::Sent(..)), give_up(&mut st))
        };

        for _ in 0..=limit / LOOK_MS {
            let done = || matches!(look(), (true, _) | (_, true));
            if self.shared.wait(Mode::Brief, Some(LOOK_MS), done) {
                break;
            }
        }
        look().0
    }

    /// Does what the answer to a request allows.
    fn answered(&self, slot: &Slot, request: KBox<Request>) -> Slot {
        let (count, time) = match request.meta.kind {
            Kind::Inflate => (&self.figures().inflated, &self.figures().inflate_ns),
            Kind::Deflate => (&self.figures().deflated, &self.figures().deflate_ns),
            Kind::MigrateIn => return Slot::Arrived(request),
        };

        count.add(usize_as_u64(request.elements().len() / PER_PAGE));
        if let Slot::Sent(_, since) = slot {
            time.add_elapsed(*since);
        }
        Self::emptied(request)
    }

    /// Lets go of the pages of a request and makes it ready for the next use.
    pub(super) fn emptied(mut request: KBox<Request>) -> Slot {
        balloon_page::free_all(&mut request.meta.pages);
        request.clear();
        Slot::Idle(request)
    }

    /// Sends a request that has its page numbers, or parks it if the device cannot have it now.
    pub(super) fn send(&self, st: &mut State<'a>, request: KBox<Request>) {
        let kind = request.meta.kind;
        let index = if kind == Kind::Deflate {
            DEFLATE
        } else {
            INFLATE
        };
        let Some(queues) = &mut st.queues else {
            st.slot = Slot::Parked(request);
            return;
        };

        st.slot = match queues.send(index, request) {
            Ok(()) => Slot::Sent(kind, Instant::now()),
            Err((_, request)) => Slot::Parked(request),
        };
        self.note_held(st);
    }

    /// Puts all pages of `pages` on the list and asks the device to take them.
    ///
    /// Does nothing unless the slot is idle.
    pub(super) fn inflate(&self, st: &mut State<'a>, pages: &mut KVec<BalloonPage>) {
        let Some(mut request) = st.take_idle(Kind::Inflate) else {
            return;
        };

        for page in pages.iter() {
            push_page(&mut request, page);
        }
        st.held += pages.len();
        self.pages.enqueue(pages);
        self.send(st, request);
    }

    /// Takes up to `max` pages off the list and asks the device to give them up.
    ///
    /// Returns whether there was any, which may be not so while compaction has some isolated. Does
    /// nothing unless the slot is idle.
    pub(super) fn deflate(&self, st: &mut State<'a>, max: usize) -> bool {
        let Some(mut request) = st.take_idle(Kind::Deflate) else {
            return false;
        };
        let taken = self.pages.dequeue(&mut request.meta.pages, max);

        if taken == 0 {
            st.slot = Slot::Idle(request);
            return false;
        }
        name_own_pages(&mut request);
        st.held -= taken;
        self.send(st, request);
        true
    }

    /// Asks the device to give up a page that it took for a migration nobody waits for any more, or
    /// that is done with.
    pub(super) fn deflate_arrived(&self, st: &mut State<'a>, mut request: KBox<Request>) {
        request.meta.kind = Kind::Deflate;
        name_own_pages(&mut request);
        self.send(st, request);
    }

    /// Gives up to [`REQUEST_PAGES`] pages of the list back to the kernel without asking the
    /// device.
    ///
    /// Returns how many. Does nothing unless the slot is idle.
    pub(super) fn release(&self, st: &mut State<'a>) -> usize {
        let Some(mut request) = st.take_idle(Kind::Deflate) else {
            return 0;
        };
        let taken = self.pages.dequeue(&mut request.meta.pages, REQUEST_PAGES);

        st.held -= taken;
        st.slot = Self::emptied(request);
        self.figures().returned.add(usize_as_u64(taken));
        self.note_held(st);
        taken
    }

    /// Tells the device the size of the balloon if it changed, or in any case if `again`.
    ///
    /// Only with an idle slot is the size the one that the device agrees to.
    pub(super) fn tell_actual(&self, st: &mut State<'a>, again: bool) {
        let settled = matches!(st.slot, Slot::Idle(_)) && !st.stale;
        let actual = if settled { st.held } else { st.told };

        if (actual != st.told || again) && !st.dead && st.queues.is_some() {
            st.told = actual;
            self.figures().actual.set_pages(actual);
            // The transport has a configuration space, or `probe` would have failed.
            let _ = self.dev.write(&ACTUAL, to_balloon_pages(actual));
            self.shared.wake_waiters();
        }
    }

    /// Finds out whether the device can still be used; if not, says so once.
    pub(super) fn check_alive(&self, st: &mut State<'a>) -> bool {
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
    pub(super) fn declare_dead(&self, st: &mut State<'a>, why: &str) {
        st.dead = true;
        self.figures().broken.set(1);
        dev_err!(
            self.dev,
            "{why}: the balloon stays at {} pages until the driver is unbound\n",
            st.held
        );
    }

    /// Publishes how much the balloon holds.
    pub(super) fn note_held(&self, st: &State<'a>) {
        let in_flight = match &st.slot {
            Slot::Idle(_) | Slot::Taken => 0,
            _ => 1,
        };

        self.figures().held.set_pages(st.held);
        self.figures().in_flight.set(in_flight);
    }
}

impl State<'_> {
    /// Takes the request out of an idle slot, for a use.
    pub(super) fn take_idle(&mut self, kind: Kind) -> Option<KBox<Request>> {
        match replace(&mut self.slot, Slot::Taken) {
            Slot::Idle(mut request) => {
                request.meta.kind = kind;
                Some(request)
            }
            other => {
                self.slot = other;
                None
            }
        }
    }

    /// Lets go of a request that the device does not have, with its pages.
    pub(super) fn drop_request(&mut self) {
        self.slot = match replace(&mut self.slot, Slot::Taken) {
            Slot::Parked(request) | Slot::Arrived(request) => Engine::emptied(request),
            other => other,
        };
    }

    /// Whether a new request can be made.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.slot, Slot::Idle(_))
    }
}

/// Converts a number of kernel pages for the device.
pub(super) fn to_balloon_pages(pages: usize) -> u32 {
    u32::try_from(pages.saturating_mul(PER_PAGE)).unwrap_or(u32::MAX)
}

/// Adds the balloon pages of `page` to a request.
///
/// A page number that does not fit 32 bits cannot be said to the device; such a page, beyond 16
/// TiB, is never inflated, because [`is_addressable`] filters it out.
fn push_page(request: &mut Request, page: &BalloonPage) {
    let first = first_balloon_pfn(page).unwrap_or(0);

    for pfn in (first..).take(PER_PAGE) {
        // Never full: the pages of a request are at most `REQUEST_PAGES`.
        let _ = request.push(Le32::from_cpu(pfn));
    }
}

/// Makes a request name the pages that it owns.
pub(super) fn name_own_pages(request: &mut Request) {
    let pages = replace(&mut request.meta.pages, KVec::new());

    request.clear();
    for page in &pages {
        push_page(request, page);
    }
    request.meta.pages = pages;
}

/// Number of the first balloon page in `page`.
fn first_balloon_pfn(page: &BalloonPage) -> Option<u32> {
    u32::try_from(page.pfn().checked_mul(PER_PAGE)?).ok()
}

/// Whether the device can be told of `page`.
pub(super) fn is_addressable(page: &BalloonPage) -> bool {
    first_balloon_pfn(page).is_some()
}
