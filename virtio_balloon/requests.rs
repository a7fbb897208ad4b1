// SPDX-License-Identifier: GPL-2.0

//! The requests of a balloon: a fixed number, so that giving memory back never needs memory.
//!
//! A request is idle, or with the device, or parked until the device can have it. All are made when
//! the driver is bound, and whoever takes one out of here sees to it that it comes back or is sent.

use super::{
    layout::{
        PER_PAGE,
        REQUESTS,
        REQUEST_LEN,
        REQUEST_PAGES, //
    },
    page_size, //
};
use crate::{
    kernel_ext::balloon_page::{
        self,
        BalloonPage, //
    },
    virtio::{
        payload::OutBuf,
        Le32, //
    },
};

use core::mem::replace;
use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

/// What a request is for, and what becomes of its pages when the device has answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pages on the list; they stay there.
    Inflate,
    /// Pages in the request; they go back to the kernel.
    Deflate,
    /// The one page in the request shall take the place of another on the list.
    MigrateIn,
    /// The one page in the request is the one that another took the place of; it goes back to the
    /// kernel.
    MigrateOut,
    /// The one page in the request is the one that came in for a migration that nobody waited for
    /// any longer; it goes back to the kernel.
    MigrateBack,
}

/// The driver's side of a request.
pub(super) struct Job {
    pub(super) kind: Kind,
    /// Never grows beyond the [`REQUEST_PAGES`] it was made with.
    pub(super) pages: KVec<BalloonPage>,
    /// When it was last sent.
    pub(super) since: Instant<Monotonic>,
}

/// A request: page numbers for the device, a [`Job`] for us.
pub(super) type Request = OutBuf<Le32, REQUEST_LEN, Job>;

/// Where all requests of a balloon are.
pub(super) struct Requests {
    /// Empty ones, ready for use.
    idle: KVec<KBox<Request>>,
    /// To be sent as soon as the device is live: taken back by a reset, or refused by the queue.
    parked: KVec<KBox<Request>>,
    /// A [`Kind::MigrateIn`] that the device has answered.
    arrived: Option<KBox<Request>>,
    /// There is one of [`Kind::MigrateIn`] or [`Kind::MigrateBack`], wherever it is.
    arriving: bool,
    /// How many the device has.
    sent: usize,
    /// When it got the first of them, or was last seen to answer one.
    waiting_since: Instant<Monotonic>,
    /// How many of [`Kind::Inflate`] are not answered, sent or not.
    inflating: usize,
    /// How many were answered since the driver was bound.
    answers: usize,
    /// Pages that those in use name.
    pages: usize,
}

impl Requests {
    /// Makes all of them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut idle = KVec::with_capacity(REQUESTS, GFP_KERNEL)?;

        for _ in 0..REQUESTS {
            let job = Job {
                kind: Kind::Inflate,
                pages: KVec::with_capacity(REQUEST_PAGES, GFP_KERNEL)?,
                since: Instant::now(),
            };
            idle.push(Request::new(job)?, GFP_KERNEL)?;
        }
        Ok(Self {
            idle,
            parked: KVec::with_capacity(REQUESTS, GFP_KERNEL)?,
            arrived: None,
            arriving: false,
            sent: 0,
            waiting_since: Instant::now(),
            inflating: 0,
            answers: 0,
            pages: 0,
        })
    }

    /// Takes an idle request, for a use.
    pub(super) fn take_idle(&mut self, kind: Kind) -> Option<KBox<Request>> {
        let mut request = self.idle.pop()?;

        request.meta.kind = kind;
        self.inflating += usize::from(kind == Kind::Inflate);
        self.arriving |= kind == Kind::MigrateIn;
        Some(request)
    }

    /// Makes a request that was taken out of here name these pages.
    pub(super) fn name_pages(&mut self, request: &mut Request, pages: &[BalloonPage]) {
        self.forget_pages(request);
        push_pages(request, pages);
        self.pages += pages.len();
    }

    /// Makes a request that was taken out of here name the pages that it owns.
    pub(super) fn name_own_pages(&mut self, request: &mut Request) {
        let pages = replace(&mut request.meta.pages, KVec::new());

        self.name_pages(request, &pages);
        request.meta.pages = pages;
    }

    /// Makes a request name no pages.
    fn forget_pages(&mut self, request: &mut Request) {
        self.pages -= request.elements().len() / PER_PAGE;
        request.clear();
    }

    /// Lets go of the pages of a request that the device does not have, and makes it idle.
    pub(super) fn finish(&mut self, mut request: KBox<Request>) {
        self.inflating -= usize::from(request.meta.kind == Kind::Inflate);
        self.arriving &= !matches!(request.meta.kind, Kind::MigrateIn | Kind::MigrateBack);
        balloon_page::free_all(&mut request.meta.pages);
        self.forget_pages(&mut request);
        // There is room for all requests, here and below.
        let _ = self.idle.push_within_capacity(request);
    }

    /// Keeps a request until it can be sent.
    pub(super) fn park(&mut self, request: KBox<Request>) {
        let _ = self.parked.push_within_capacity(request);
    }

    /// The device has one more request.
    pub(super) fn note_sent(&mut self) {
        if self.sent == 0 {
            self.waiting_since = Instant::now();
        }
        self.sent += 1;
    }

    /// The device has answered a request.
    pub(super) fn note_answer(&mut self) {
        self.sent -= 1;
        self.answers += 1;
        self.waiting_since = Instant::now();
    }

    /// Keeps a request that brought a page in for a migration.
    pub(super) fn arrive(&mut self, request: KBox<Request>) {
        self.arrived = Some(request);
    }

    /// Takes one that is to be sent again.
    pub(super) fn take_parked(&mut self) -> Option<KBox<Request>> {
        self.parked.pop()
    }

    /// Takes the one that [`Self::arrive`] was given, for a use: as a [`Kind::MigrateOut`] or a
    /// [`Kind::MigrateBack`].
    pub(super) fn take_arrived(&mut self, kind: Kind) -> Option<KBox<Request>> {
        let mut request = self.arrived.take()?;

        request.meta.kind = kind;
        self.arriving = kind == Kind::MigrateBack;
        Some(request)
    }

    /// Takes the container of the parked requests, for those that a reset takes from the device.
    pub(super) fn begin_reset(&mut self) -> KVec<KBox<Request>> {
        replace(&mut self.parked, KVec::new())
    }

    /// Puts it back; the device has nothing now.
    pub(super) fn end_reset(&mut self, parked: KVec<KBox<Request>>) {
        self.parked = parked;
        self.sent = 0;
    }

    /// Lets go of all requests that the device does not have, with their pages.
    pub(super) fn drop_all(&mut self) {
        while let Some(request) = self
            .take_parked()
            .or_else(|| self.take_arrived(Kind::MigrateBack))
        {
            self.finish(request);
        }
    }

    /// Prepares for a device of which it is not known what it has: the pages on the list will be
    /// deflated in any case.
    ///
    /// Returns how many pages are in requests for deflation.
    pub(super) fn forget_inflations(&mut self) -> usize {
        let mut leaving = 0;

        for _ in 0..self.parked.len() {
            let Ok(request) = self.parked.remove(0) else {
                break;
            };
            match request.meta.kind {
                Kind::Inflate => self.finish(request),
                Kind::MigrateIn => self.arrive(request),
                Kind::MigrateOut | Kind::MigrateBack => self.park(request),
                Kind::Deflate => {
                    leaving += request.meta.pages.len();
                    self.park(request);
                }
            }
        }
        leaving
    }

    /// How many the device has.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// For how long the device has not answered what it has, if it has anything.
    pub(super) fn waiting(&self) -> Option<Delta> {
        (self.sent > 0).then(|| self.waiting_since.elapsed())
    }

    /// Whether the device may not have agreed to the inflation of each page on the list.
    pub(super) fn is_inflating(&self) -> bool {
        self.inflating > 0
    }

    /// Whether there is one ready for use.
    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether a page is coming in for a migration, has arrived, or is on its way back.
    ///
    /// The kernel may offer the very page again while the device still has to give it up.
    pub(super) fn is_arriving(&self) -> bool {
        self.arriving
    }

    /// Whether a page has arrived for a migration.
    pub(super) fn has_arrived(&self) -> bool {
        self.arrived.is_some()
    }

    /// How many are in use.
    pub(super) fn in_use(&self) -> usize {
        REQUESTS - self.idle.len()
    }

    /// How many pages those in use name.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// How many the device has answered so far, in all.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }
}

/// Makes a request that is empty name the balloon pages of `pages`.
///
/// A page number that does not fit 32 bits cannot be said to the device; such a page, beyond 16
/// TiB, is never inflated, because [`is_addressable`] filters it out.
fn push_pages(request: &mut Request, pages: &[BalloonPage]) {
    // Never full: the pages of a request are at most `REQUEST_PAGES`.
    let _ = request.extend(pages.len() * PER_PAGE, |numbers| {
        for (numbers, page) in numbers.chunks_exact_mut(PER_PAGE).zip(pages) {
            // CAST: There are no larger numbers, see above.
            let first = page.pfn().wrapping_mul(PER_PAGE) as u32;

            for (place, number) in numbers.iter_mut().zip(page_size::numbers(first, PER_PAGE)) {
                *place = Le32::from_cpu(number);
            }
        }
    });
}

/// Whether the device can be told of `page`.
pub(super) fn is_addressable(page: &BalloonPage) -> bool {
    page_size::first_number(page.pfn(), PER_PAGE).is_some()
}
