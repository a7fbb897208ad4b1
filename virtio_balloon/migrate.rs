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
    fn migrate(&self, new: BalloonPage, old: BalloonPage, patient: bool) -> Result {
        self.migrate_in(new, patient).inspect_err(|_| {
            if patient {
                // The thread may have made way for nothing.
                self.shared.wake();
            }
        })?;
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
    /// Waits until a migration may begin; meanwhile nothing else does. Gives up at once on a device
    /// that has not answered for long.
    fn wait_for_turn(&self) {
        self.state.lock().movers += 1;
        self.wait_until(ANSWER_MS, |st| {
            let waiting = st.requests.waiting();

            self.is_turn(st)
                || !self.may_migrate(st)
                || waiting.is_some_and(|time| time.as_millis() >= i64::from(ANSWER_MS))
        });
        self.state.lock().movers -= 1;
    }

    /// Whether a migration may begin as far as requests are concerned: the device may not know of
    /// the old page yet, or an earlier migration is not cleared up.
    fn is_turn(&self, st: &State) -> bool {
        let requests = &st.requests;

        !st.migrating && !requests.is_inflating() && !requests.is_arriving() && requests.has_idle()
    }

    /// Asks the device to take the new page.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is too much else to do, or the balloon is not to be touched now; `EBUSY`
    /// if it is growing, unless the caller is patient.
    fn migrate_in(&self, new: BalloonPage, patient: bool) -> Result {
        let mut st = match patient {
            true => {
                self.wait_for_turn();
                self.state.lock()
            }
            false => self.state.try_lock().ok_or(EAGAIN)?,
        };

        if !self.may_migrate(&st) || !is_addressable(&new) {
            return Err(EAGAIN);
        }
        // Whoever makes room for the balloon need not move what is in it already. Compaction tries
        // ten times after an `EAGAIN`, which would be most of the work when the balloon is large.
        if !patient && self.shared.is_growing() {
            return Err(EBUSY);
        }
        self.reap(&mut st);
        if !self.is_turn(&st) {
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
            true => st.requests.take_arrived(Kind::MigrateOut),
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
