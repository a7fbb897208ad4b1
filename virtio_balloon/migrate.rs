// SPDX-License-Identifier: GPL-2.0

//! Compaction: a page of the balloon is swapped for another one.
//!
//! The device takes the new page first and gives the old one up then. A migration that cannot wait
//! for an answer any longer leaves the page that is under way in the request, which keeps it out of
//! anybody else's hands until the device has answered; the thread sees to the rest.

use super::{
    engine::{
        Engine,
        Phase,
        State, //
    },
    requests::{
        is_addressable,
        Kind, //
    },
};
use crate::kernel_ext::{
    balloon_page::BalloonPage,
    page_list::Migrate, //
};

use kernel::{
    prelude::*,
    time::Msecs, //
};

/// How long a migration waits for each of the two answers, in milliseconds.
const ANSWER_MS: Msecs = 1000;

impl Migrate for Engine<'_> {
    fn migrate(&self, new: BalloonPage, old: BalloonPage) -> Result {
        self.migrate_in(new)?;
        self.wait_until(ANSWER_MS, |st| {
            st.requests.has_arrived() || !self.may_migrate(st)
        });
        let answers = self.migrate_out(old)?;
        // Compaction would like to find the old page free, but need not.
        self.wait_until(ANSWER_MS, |st| {
            st.requests.answers() != answers || !self.may_migrate(st)
        });
        Ok(())
    }
}

impl<'a> Engine<'a> {
    /// Asks the device to take the new page.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is too much else to do, or the balloon is not to be touched now; `EBUSY`
    /// if it is growing.
    fn migrate_in(&self, new: BalloonPage) -> Result {
        let mut st = self.state.try_lock().ok_or(EAGAIN)?;

        if !self.may_migrate(&st) || st.migrating || !is_addressable(&new) {
            return Err(EAGAIN);
        }
        // Whoever makes room for the balloon need not move what is in it already. Compaction tries
        // ten times after an `EAGAIN`, which would be most of the work when the balloon is large.
        if self.shared.is_growing() {
            return Err(EBUSY);
        }
        self.reap(&mut st);
        // The device may not know of the old page yet, or an earlier migration is not cleared up.
        if st.requests.is_inflating() || st.requests.is_arriving() {
            return Err(EAGAIN);
        }
        let mut request = st.requests.take_idle(Kind::MigrateIn).ok_or(EAGAIN)?;
        // There is room in an empty request.
        let _ = request.meta.pages.push_within_capacity(new);
        st.requests.name_own_pages(&mut request);
        if !self.add(&mut st, request) {
            // The device never saw it.
            let request = st.requests.take_parked().ok_or(EAGAIN)?;
            st.requests.finish(request);
            return Err(EAGAIN);
        }
        self.notify(&mut st);
        st.migrating = true;
        Ok(())
    }

    /// When the device has the new page, asks it to give up the old one.
    ///
    /// Returns how many answers there were before.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it has not answered yet.
    fn migrate_out(&self, old: BalloonPage) -> Result<usize> {
        let mut st = self.state.lock();

        st.migrating = false;
        let arrived = match self.may_migrate(&st) {
            true => st.requests.take_arrived(),
            false => None,
        };
        let Some(mut request) = arrived else {
            // The thread gives the new page back when it can.
            drop(st);
            self.shared.wake();
            return Err(EAGAIN);
        };
        let answers = st.requests.answers();
        // The list has a reference of its own on the new page.
        request.meta.pages.clear();
        let _ = request.meta.pages.push_within_capacity(old);
        self.give_back(&mut st, request);
        self.notify(&mut st);
        self.figures().migrated.add(1);
        drop(st);
        // The thread may have been waiting for a request.
        self.shared.wake();
        Ok(answers)
    }

    /// Whether pages may move at present.
    fn may_migrate(&self, st: &State) -> bool {
        let usable = st.queues.as_ref().is_some_and(|q| !q.is_broken());

        st.phase == Phase::Running && !st.dead && !st.stale && usable && !self.shared.is_paused()
    }
}
