// SPDX-License-Identifier: GPL-2.0

//! Compaction: a page of the balloon is swapped for another one.
//!
//! The device takes the new page first and gives the old one up then. A migration that cannot wait
//! for an answer any longer leaves the page that is under way in the request, which keeps it out of
//! anybody else's hands until the device has answered; the thread sees to the rest.

use super::engine::{
    is_addressable,
    name_own_pages,
    Engine,
    Kind,
    Phase,
    Slot,
    State, //
};
use crate::kernel_ext::balloon_page::{
    BalloonPage,
    Migrate, //
};

use core::mem::replace;
use kernel::{
    prelude::*,
    sync::atomic::Relaxed,
    time::Msecs, //
};

/// How long a migration waits for each of the two answers, in milliseconds.
const ANSWER_MS: Msecs = 1000;

impl Migrate for Engine<'_> {
    fn migrate(&self, new: BalloonPage, old: BalloonPage) -> Result {
        self.migrate_in(new)?;
        self.wait_for_answer(ANSWER_MS, |st| !self.may_migrate(st));
        self.migrate_out(old)?;
        // Compaction would like to find the old page free, but need not.
        self.wait_for_answer(ANSWER_MS, |st| !self.may_migrate(st));
        Ok(())
    }
}

impl<'a> Engine<'a> {
    /// Asks the device to take the new page.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if a request is under way, or the balloon is not to be touched now.
    fn migrate_in(&self, new: BalloonPage) -> Result {
        let mut st = self.state.try_lock().ok_or(EAGAIN)?;

        if !self.may_migrate(&st) || st.migrating || !is_addressable(&new) {
            return Err(EAGAIN);
        }
        self.reap(&mut st);
        let mut request = st.take_idle(Kind::MigrateIn).ok_or(EAGAIN)?;
        // There is room in an empty request.
        let _ = request.meta.pages.push_within_capacity(new);
        name_own_pages(&mut request);
        self.send(&mut st, request);
        match replace(&mut st.slot, Slot::Taken) {
            // Refused by the queue: the device never saw it.
            Slot::Parked(request) => {
                st.slot = Self::emptied(request);
                return Err(EAGAIN);
            }
            slot => st.slot = slot,
        }
        st.migrating = true;
        Ok(())
    }

    /// When the device has the new page, asks it to give up the old one.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it has not answered yet.
    fn migrate_out(&self, old: BalloonPage) -> Result {
        let mut st = self.state.lock();

        st.migrating = false;
        if !self.may_migrate(&st) || !matches!(st.slot, Slot::Arrived(_)) {
            // The thread gives the new page back when it can.
            drop(st);
            self.shared.wake();
            return Err(EAGAIN);
        }
        if let Slot::Arrived(mut request) = replace(&mut st.slot, Slot::Taken) {
            // The list has a reference of its own on the new page.
            request.meta.pages.clear();
            let _ = request.meta.pages.push_within_capacity(old);
            self.deflate_arrived(&mut st, request);
        }
        self.figures().migrated.add(1);
        drop(st);
        // The thread may have been waiting for the slot.
        self.shared.wake();
        Ok(())
    }

    /// Whether pages may move at present.
    fn may_migrate(&self, st: &State<'a>) -> bool {
        let usable = st.queues.as_ref().is_some_and(|q| !q.is_broken());

        let welcome = !self.growing.load(Relaxed) && !self.shared.is_paused();

        st.phase == Phase::Running && !st.dead && !st.stale && usable && welcome
    }
}
