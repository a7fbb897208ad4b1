// SPDX-License-Identifier: GPL-2.0

//! Deflation when the system runs out of memory (`DEFLATE_ON_OOM`, Virtio 1.4, 5.5.6.1).
//!
//! The thread does the work, as ever; a task that runs out of memory caps the size of the balloon
//! and waits for a moment.

use super::{
    restraint::Restraint,
    shared::Shared, //
};
use crate::kernel_ext::{
    notifier::{
        Notifier,
        Oom,
        OomHandler, //
    },
    wait::Mode, //
};

use kernel::{
    new_mutex,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::{
        Instant,
        Monotonic,
        Msecs, //
    },
};

/// Pages to give up at the first shortage, and at most at each that follows: 4 and 64 MiB.
const STEPS: (usize, usize) = ((4 << 20) >> PAGE_SHIFT, (64 << 20) >> PAGE_SHIFT);

/// How long a task that runs out of memory waits for all pages that it has asked for, and how long
/// for any at all, in milliseconds.
const PATIENCE_MS: (Msecs, Msecs) = (500, 5000);

/// The place among those who can free memory, that of the C driver: before those with a lower one.
const PRIORITY: i32 = 80;

/// The cap that shortages put on the balloon.
#[pin_data]
pub(super) struct Cap {
    /// When time began to count.
    start: Instant<Monotonic>,
    #[pin]
    restraint: Mutex<Restraint>,
    /// Pages that had been deflated when a task last waited for more in vain.
    in_vain: Atomic<u64>,
}

impl Cap {
    /// Makes one that does not restrain the balloon.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            start: Instant::now(),
            restraint <- new_mutex!(Restraint::new(STEPS.0, STEPS.1)),
            in_vain: Atomic::new(u64::MAX),
        })
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(0)
    }

    /// The most kernel pages that the balloon may have at present.
    pub(super) fn get(&self) -> usize {
        self.restraint.lock().cap(self.now())
    }

    /// Milliseconds until it may be more, if it is restrained.
    pub(super) fn left(&self) -> Option<Msecs> {
        let left = self.restraint.lock().left(self.now())?;

        // At least a tick, so that the time is over when the wait is.
        Some(Msecs::try_from(left).unwrap_or(Msecs::MAX).max(1))
    }
}

/// Listens for shortages on behalf of [`Shared`].
pub(super) struct Listener(pub(super) Arc<Shared>);

impl Listener {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what [`Notifier::new`] says.
    pub(super) fn register(shared: Arc<Shared>) -> Result<Pin<KBox<Notifier<Oom, Self>>>> {
        KBox::pin_init(Notifier::new(Self(shared), PRIORITY), GFP_KERNEL)
    }
}

impl OomHandler for Listener {
    fn free_pages(&self) -> usize {
        let shared = &*self.0;
        let figures = &shared.figures;
        let held = as_pages(figures.held.get());

        // While the thread is frozen nobody would do the work.
        if held == 0 || figures.frozen.get() != 0 || shared.is_ended() || figures.broken.get() != 0
        {
            return 0;
        }
        let before = figures.deflated.get();
        let deflated = || as_pages(figures.deflated.get() - before);
        let wanted = {
            let cap = &shared.cap;
            cap.restraint.lock().tighten(cap.now(), held)
        };

        figures.shortages.add(1);
        shared.wake();
        let (for_all, for_any) = PATIENCE_MS;
        let wait = |ms, pages| {
            shared.wait(Mode::Brief, Some(ms), || {
                deflated() >= pages || shared.is_ended()
            })
        };
        wait(for_all, wanted);
        // A device that once did not answer is not waited for again before it does.
        if shared.cap.in_vain.load(Relaxed) != before && !wait(for_any, 1) {
            shared.cap.in_vain.store(before, Relaxed);
        }
        deflated()
    }
}

/// Converts a figure to a number of pages.
fn as_pages(figure: u64) -> usize {
    usize::try_from(figure).unwrap_or(0)
}
