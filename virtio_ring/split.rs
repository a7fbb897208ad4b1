// SPDX-License-Identifier: GPL-2.0

//! The split virtqueue (Virtio 1.4, 2.7), in order or not, as a state machine without memory of its
//! own.
//!
//! The driver writes the descriptor table and the available ring, and never reads them back. The
//! device writes the used ring; each field of it is fetched once, checked, then used. Uses only
//! `core`.

#![deny(unsafe_code)]

use super::{
    event::need_event,
    layout::{
        desc,
        split_flags,
        Desc,
        Piece, //
    },
    state::{
        Batch,
        Buffer,
        Chain,
        Fault,
        Mapped,
        Pieces,
        Slot,
        Slots,
        Used, //
    },
    suppression::Suppression, //
};

use core::ops::DerefMut;

/// Order between the driver's accesses to the ring, as the device sees it.
pub(crate) trait Barriers {
    /// What was written before is seen before what is written after.
    fn publish(&self);
    /// What is read after is at least as new as what was read before.
    fn observe(&self);
    /// What was written before is seen before anything after is read.
    fn full(&self);
}

/// The memory of a split virtqueue. Indices of entries count modulo the size of the queue; each
/// method makes one access.
pub(crate) trait SplitMemory: Barriers {
    /// Writes a descriptor.
    fn set_desc(&self, index: u16, desc: Desc);
    /// Writes the flags of a descriptor.
    fn set_desc_flags(&self, index: u16, flags: u16);
    /// Writes entry `index` of the available ring.
    fn set_avail(&self, index: u16, head: u16);
    /// Writes the index of the available ring.
    fn set_avail_index(&self, index: u16);
    /// Writes the flags of the available ring.
    fn set_avail_flags(&self, flags: u16);
    /// Writes `used_event`.
    fn set_used_event(&self, event: u16);
    /// Fetches the index of the used ring.
    fn used_index(&self) -> u16;
    /// Fetches entry `index` of the used ring: id and length.
    fn used_elem(&self, index: u16) -> (u32, u32);
    /// Fetches the flags of the used ring.
    fn used_flags(&self) -> u16;
    /// Fetches `avail_event`.
    fn avail_event(&self) -> u16;
}

/// The driver's side of a split virtqueue.
pub(crate) struct Split<S, M> {
    /// What is known of each descriptor.
    pub(crate) slots: Slots<S, M>,
    /// Index of the available ring: buffers made available so far.
    avail: u16,
    /// Buffers made available since the last notification.
    added: u16,
    /// Buffers taken back so far.
    used: u16,
    /// In order: the head of the buffer that comes back next.
    due: u16,
    /// In order: what the device has used in one go.
    batch: Option<Batch>,
}

impl<S: DerefMut<Target = [Slot]>, M: DerefMut<Target = [Mapped]>> Split<S, M> {
    /// Where [`Suppression`] begins.
    pub(crate) const START: u16 = 0;

    /// A queue without buffers; the rings are zero.
    pub(crate) fn new(slots: Slots<S, M>) -> Self {
        Self {
            slots,
            avail: 0,
            added: 0,
            used: 0,
            due: 0,
            batch: None,
        }
    }

    /// Begins anew; the rings were zeroed.
    pub(crate) fn reset(&mut self) {
        self.slots.reset();
        self.avail = 0;
        self.added = 0;
        self.used = 0;
        self.due = 0;
        self.batch = None;
    }

    /// The index of the available ring, as notifications carry it (Virtio 1.4, 2.9).
    pub(crate) fn next_avail(&self) -> u16 {
        self.avail
    }

    /// Makes a buffer of `pieces` available: one descriptor each. False if there are none, more
    /// than are free, or more or fewer than was said.
    ///
    /// # Errors
    ///
    /// That of `pieces`. Then, and if it is false, what was mapped before was undone.
    #[inline(never)]
    pub(crate) fn add<P: Pieces>(
        &mut self,
        mem: &impl SplitMemory,
        pieces: &P,
        buffer: Buffer,
    ) -> Result<bool, P::Error> {
        let head = self.slots.head();
        let mut chain = Chain::new(head);
        let slots = &mut self.slots;
        let free = slots.free();
        let filled = pieces.each(|piece| {
            if chain.count == free {
                return false;
            }
            let next = slots.next(chain.next);
            let flags = piece.flags | desc::NEXT;
            mem.set_desc(chain.next, Desc::new(piece.addr, piece.len, flags, next));
            if P::MAY_BE_MAPPED {
                slots.record(chain.next, &piece);
            }
            chain.push(&piece, next);
            true
        });
        if !chain.is_complete(&filled, pieces) {
            self.slots.undo(head, chain.count, pieces);
            return filled.map(|_| false);
        }
        mem.set_desc_flags(chain.last, chain.flags);
        self.slots.claim(&chain, buffer);
        self.publish(mem, head);
        Ok(true)
    }

    /// Makes a buffer of one descriptor available: of the one `piece`, which is not mapped, or of a
    /// table. There must be a free slot.
    #[inline(always)]
    pub(crate) fn add_one(
        &mut self,
        mem: &impl SplitMemory,
        piece: &Piece,
        writable: u32,
        buffer: Buffer,
    ) {
        let head = self.slots.claim_one(buffer, writable);
        mem.set_desc(head, Desc::new(piece.addr, piece.len, piece.flags, 0));
        self.publish(mem, head);
    }

    #[inline(always)]
    fn publish(&mut self, mem: &impl SplitMemory, head: u16) {
        mem.set_avail(self.avail, head);
        self.avail = self.avail.wrapping_add(1);
        self.added = self.added.wrapping_add(1);
        // Descriptors and entry before the index; pairs with the device's read barrier after it.
        mem.publish();
        mem.set_avail_index(self.avail);
    }

    /// Whether so many buffers were added that the next one would hide that a notification is due.
    #[inline(always)]
    pub(crate) fn must_kick(&self) -> bool {
        self.added == u16::MAX
    }

    /// Tells whether the device wants to know of the buffers added since the last call.
    #[inline(always)]
    pub(crate) fn kick_prepare(&mut self, mem: &impl SplitMemory, event: bool) -> bool {
        // Index before event or flags; pairs with the device's barrier between those.
        mem.full();
        let old = self.avail.wrapping_sub(self.added);
        self.added = 0;
        if event {
            need_event(mem.avail_event(), self.avail, old)
        } else {
            mem.used_flags() & split_flags::NO_NOTIFY == 0
        }
    }

    /// The index of the used ring if [`Self::take_next`] has something to do.
    #[inline(always)]
    pub(crate) fn look(&self, mem: &impl SplitMemory) -> Option<u16> {
        let index = mem.used_index();
        (index != self.used || self.batch.is_some()).then_some(index)
    }

    /// Takes the next used buffer; `index` comes from [`Self::look`].
    ///
    /// # Errors
    ///
    /// The device has written what cannot be; no buffer was taken, and none may be afterwards.
    #[inline(always)]
    pub(crate) fn take_next(
        &mut self,
        mem: &impl SplitMemory,
        suppression: &Suppression,
        index: u16,
    ) -> Result<Used, Fault> {
        let pending = index.wrapping_sub(self.used);
        if pending == 0 || pending > self.outstanding() {
            return Err(Fault::Index(index));
        }
        let used = if self.slots.in_order() {
            self.take_in_order(mem)?
        } else {
            let (id, len) = self.fetch(mem);
            self.take(id, len)?
        };
        self.used = self.used.wrapping_add(1);
        suppression.taken_split(mem, self.used);
        Ok(used)
    }

    /// Buffers that the device has and those it has used, but were not taken yet.
    #[inline(always)]
    fn outstanding(&self) -> u16 {
        self.avail.wrapping_sub(self.used)
    }

    /// Fetches the next used entry: an id and a length.
    #[inline(always)]
    fn fetch(&self, mem: &impl SplitMemory) -> (u32, u32) {
        // The entry after the index; pairs with the device's write barrier between those.
        mem.observe();
        mem.used_elem(self.used)
    }

    /// Takes the buffer `id`, if it is outstanding.
    #[inline(always)]
    fn take(&mut self, id: u32, len: u32) -> Result<Used, Fault> {
        match self.slots.release(id) {
            // CAST: It is the number of a slot.
            Some(slot) => Ok(Used::new(id as u16, slot, len)),
            None => Err(Fault::wrong_id(id, self.slots.size())),
        }
    }

    #[inline(never)]
    fn take_in_order(&mut self, mem: &impl SplitMemory) -> Result<Used, Fault> {
        let batch = match self.batch {
            Some(batch) => batch,
            None => {
                let (id, len) = self.fetch(mem);
                if !self.slots.is_head(id) {
                    return Err(Fault::wrong_id(id, self.slots.size()));
                }
                // CAST: It is the number of a slot.
                let head = id as u16;
                Batch { head, len }
            }
        };
        let done = batch.head == self.due;
        // What was skipped counts as written completely.
        let len = if done { batch.len } else { u32::MAX };
        let used = self.take(self.due.into(), len)?;
        self.batch = if done { None } else { Some(batch) };
        self.due = self.slots.next(used.slot.last);
        Ok(used)
    }

    /// Tells whether there are used buffers beyond `position`.
    #[inline(always)]
    pub(crate) fn more_used(mem: &impl SplitMemory, position: u16) -> bool {
        mem.used_index() != position
    }

    /// As [`Self::more_used`], after a notification was asked for.
    #[inline(always)]
    pub(crate) fn poll(mem: &impl SplitMemory, position: u16) -> bool {
        // The event before the look at the index; pairs with the device's barrier.
        mem.full();
        Self::more_used(mem, position)
    }

    /// Asks for a notification once most of what is outstanding was used; false if it was already.
    pub(crate) fn enable_delayed(&self, mem: &impl SplitMemory, suppression: &Suppression) -> bool {
        let ahead = u32::from(self.outstanding()) * 3 / 4;
        // CAST: Less than a u16 was.
        let ahead = ahead as u16;
        suppression.enable_split(mem, ahead);
        // The event before the look at the index; pairs with the device's barrier.
        mem.full();
        mem.used_index().wrapping_sub(self.used) <= ahead
    }

    /// Takes back a buffer that the device has not used; the device was reset.
    pub(crate) fn detach(&mut self) -> Option<Used> {
        let used = self.slots.release_any()?;
        self.avail = self.avail.wrapping_sub(1);
        Some(used)
    }
}
