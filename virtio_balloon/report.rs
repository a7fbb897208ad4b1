// SPDX-License-Identifier: GPL-2.0

//! Free page reporting (Virtio 1.4, 5.5.6.7): the device may drop what free pages hold.
//!
//! The kernel takes pages off its free lists and waits until the device has seen them. They pass
//! through a letter box to the second thread, which works the queue. Nobody else may use them
//! before the device has answered or was reset; so a device that does not answer is reset.

use super::{
    layout::PAGE_REPORTING,
    queues::ReportQueue,
    shared::Shared, //
};
use crate::{
    kernel_ext::{
        page_reporting::{
            PageReporting,
            Pages,
            Reporter, //
        },
        wait::Mode, //
    },
    virtio::{
        payload::{
            Parts,
            Payload, //
        },
        Device,
        Negotiation, //
    },
};

use core::mem::take;
use kernel::{
    device::Bound,
    new_mutex,
    num::casts::usize_as_u64,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
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

/// How long the device may take for an answer.
const PATIENCE: Delta = Delta::from_secs(30);

/// How long it may take when the system goes to sleep, in milliseconds.
const SLEEP_PATIENCE_MS: Msecs = 2000;

/// How long to wait for a notification before looking for the answer without one, in milliseconds.
const POLL_MS: Msecs = 1000;

/// Whether a device of this driver reports already: the kernel takes one reporter only.
static TAKEN: Atomic<bool> = Atomic::new(false);

/// Declines reporting where it cannot be done, or would change free pages behind the kernel's back.
pub(super) fn validate(dev: &Negotiation<'_>, fills_unannounced: bool) {
    if fills_unannounced || TAKEN.load(Acquire) {
        dev.decline(PAGE_REPORTING);
    }
}

/// What goes through the queue.
pub(super) struct Report(Option<Pages>);

impl Payload for Report {
    fn parts(&mut self) -> Parts<'_> {
        match &mut self.0 {
            Some(pages) => Parts::new().writable(pages),
            None => Parts::new(),
        }
    }
}

/// Where the kernel leaves pages for the second thread.
#[pin_data]
pub(super) struct LetterBox {
    #[pin]
    letter: Mutex<Letter>,
    /// The device must answer now, or be reset.
    urgent: Atomic<bool>,
}

/// What is in the box.
struct Letter {
    /// Somebody will look.
    open: bool,
    pages: Option<Pages>,
    /// There are pages in the box, or on their way.
    busy: bool,
}

impl LetterBox {
    /// Makes an empty box.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            letter <- new_mutex!(Letter {
                open: false,
                pages: None,
                busy: false,
            }),
            urgent: Atomic::new(false),
        })
    }

    /// Takes letters from now on.
    fn open(&self) {
        self.letter.lock().open = true;
    }

    /// Takes no more letters, and gives back the one that nobody has looked at.
    fn close(&self) {
        let mut letter = self.letter.lock();
        let unread = letter.pages.take();

        letter.open = false;
        letter.busy &= unread.is_none();
    }

    /// The pages of the last letter were dropped.
    fn finish(&self) {
        self.letter.lock().busy = false;
    }

    /// Whether there are no pages in the box nor on their way.
    fn is_idle(&self) -> bool {
        !self.letter.lock().busy
    }
}

impl Shared {
    /// Waits until no report is under way, at the beginning of a sleep transition: until then the
    /// tasks cannot be frozen. Resets a device that does not answer.
    pub(super) fn end_reports(&self) {
        let idle = || self.reports.is_idle();

        if !self.wait(Mode::Brief, Some(SLEEP_PATIENCE_MS), idle) {
            self.reports.urgent.store(true, Release);
            self.info.ring();
            self.wait(Mode::Brief, Some(SLEEP_PATIENCE_MS), idle);
            self.reports.urgent.store(false, Release);
        }
    }
}

/// Takes pages on behalf of [`Shared`].
pub(super) struct Clerk(Arc<Shared>);

impl Reporter for Clerk {
    fn report(&self, pages: Pages) {
        let shared = &*self.0;
        let mut letter = shared.reports.letter.lock();

        if letter.open && !shared.is_asleep() {
            letter.pages = Some(pages);
            letter.busy = true;
            drop(letter);
            shared.info.ring();
        }
    }
}

/// The reports of one balloon.
#[pin_data]
pub(super) struct Reports<'a> {
    dev: &'a Device<Bound>,
    shared: Arc<Shared>,
    #[pin]
    state: Mutex<State>,
}

/// Where pages are.
struct State {
    /// Dropped before the queue, so that no more pages come.
    registration: Option<Registration>,
    /// Blocks of pages in one report, as registered.
    capacity: usize,
    /// `None` on a device that wants no reports, and while it is reset.
    queue: Option<ReportQueue>,
    /// The carrier of pages, unless the device has it.
    report: Option<KBox<Report>>,
    /// Since when the device has it.
    sent: Option<Instant<Monotonic>>,
}

impl<'a> Reports<'a> {
    /// Registers with the kernel, if the device has a queue for reports.
    ///
    /// Nothing is reported before the device is live, because the thread does that.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        dev: &'a Device<Bound>,
        shared: Arc<Shared>,
        queue: Option<ReportQueue>,
    ) -> impl PinInit<Self, Error> + use<'a> {
        pin_init::pin_init_scope(move || {
            let mut state = State {
                registration: None,
                capacity: 0,
                queue,
                report: Some(KBox::new(Report(None), GFP_KERNEL)?),
                sent: None,
            };

            state.register(dev, &shared)?;
            Ok(try_pin_init!(Self {
                dev,
                shared,
                state <- new_mutex!(state),
            }? Error))
        })
    }

    /// Goes on with a queue of a device that was reset.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn connect(&self, queue: Option<ReportQueue>) -> Result {
        let mut st = self.state.lock();

        st.queue = queue;
        st.register(self.dev, &self.shared)
    }

    /// Resets the device and takes the pages back.
    pub(super) fn disconnect(&self) {
        self.shared.reports.close();
        let Some(queue) = self.state.lock().queue.take() else {
            return;
        };
        let Ok(reset) = self.dev.reset() else {
            return;
        };

        if let Ok(Some(report)) = queue.take_unused(&reset) {
            self.put_back(&mut self.state.lock(), report, false);
        }
    }

    /// Sends what is in the box and takes back what was answered; returns after how many
    /// milliseconds to look again, if that is not to wait for a notification.
    ///
    /// # Context
    ///
    /// May sleep. The device is live.
    pub(super) fn step(&self) -> Option<Msecs> {
        let mut guard = self.state.lock();
        let st = &mut *guard;
        let queue = st.queue.as_ref()?;

        if let Some(report) = queue.take_used() {
            self.put_back(st, report, true);
        } else if let Some(sent) = st.sent {
            let urgent = self.shared.reports.urgent.load(Acquire);

            if !queue.is_broken() && !urgent && sent.elapsed() < PATIENCE {
                return Some(POLL_MS);
            }
            drop(guard);
            self.revoke();
            return None;
        }
        self.send(st);
        st.sent.map(|_| POLL_MS)
    }

    /// Sends what is in the box.
    fn send(&self, st: &mut State) {
        let (Some(queue), Some(mut report)) = (&mut st.queue, st.report.take()) else {
            return;
        };

        report.0 = self.shared.reports.letter.lock().pages.take();
        let Some(pages) = &report.0 else {
            st.report = Some(report);
            return;
        };
        let count = pages.count();
        match queue.send(report) {
            Ok(()) => {
                st.sent = Some(Instant::now());
                self.shared.figures.reports.add(1);
                self.shared.figures.reported.add(usize_as_u64(count));
            }
            // The device never saw it.
            Err((_, report)) => self.put_back(st, report, false),
        }
    }

    /// Lets go of the pages of a report.
    fn put_back(&self, st: &mut State, mut report: KBox<Report>, answered: bool) {
        match report.0.take() {
            Some(pages) if answered => pages.confirm(),
            other => drop(other),
        }
        st.report = Some(report);
        st.sent = None;
        self.shared.reports.finish();
        self.shared.wake_waiters();
    }

    /// Takes the pages back from a device that does not answer, by a reset.
    fn revoke(&self) {
        dev_err!(
            self.dev,
            "the device does not answer a report of free pages: resetting it\n"
        );
        self.disconnect();
        self.shared.wake();
    }
}

impl State {
    /// Makes the kernel report pages, as many at a time as go into the queue.
    fn register(&mut self, dev: &Device<Bound>, shared: &Arc<Shared>) -> Result {
        let Some(size) = self.queue.as_ref().map(|queue| queue.size()) else {
            return Ok(());
        };
        if self.registration.is_none() || size < self.capacity {
            drop(take(&mut self.registration));
            self.capacity = size;
            match Registration::new(shared.clone(), size) {
                Ok(registration) => self.registration = Some(registration),
                Err(e) if e == EBUSY => {
                    dev_info!(dev, "free pages are reported to another device already\n");
                }
                Err(e) => return Err(e),
            }
        }
        shared.reports.open();
        Ok(())
    }
}

/// The kernel reports pages to us.
struct Registration {
    shared: Arc<Shared>,
    _reporting: Pin<KBox<PageReporting<Clerk>>>,
}

impl Registration {
    /// Begins.
    fn new(shared: Arc<Shared>, capacity: usize) -> Result<Self> {
        let clerk = Clerk(shared.clone());
        let reporting = KBox::pin_init(PageReporting::new(clerk, capacity), GFP_KERNEL)?;

        TAKEN.store(true, Release);
        Ok(Self {
            shared,
            _reporting: reporting,
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The end of the registration waits for letters that nobody would look at any more.
        self.shared.reports.close();
        TAKEN.store(false, Release);
    }
}
