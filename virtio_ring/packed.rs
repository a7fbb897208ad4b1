// SPDX-License-Identifier: GPL-2.0

//! The packed virtqueue (Virtio 1.4, 2.8), in order or not, as a state machine without memory of
//! its own.
//!
//! Both sides write the descriptor ring: the driver what is available, the device what it has used.
//! What the device may have written is fetched once, checked, then used; what the driver wrote
//! stands in the slots. Uses only `core`.

#![deny(unsafe_code)]

use super::{
    event::{
        need_event,
        Place, //
    },
    layout::{
        desc,
        event_flags,
        Piece, //
    },
    split::Barriers,
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

const LAP: u16 = desc::AVAIL | desc::USED;

/// The memory of a packed virtqueue. Each method makes one access; one to a descriptor beyond the
/// end of the ring does nothing, or gives 0.
pub(crate) trait PackedMemory: Barriers {
    /// Writes all of a descriptor but its flags.
    fn set_body(&self, index: u16, addr: u64, len: u32, id: u16);
    /// Writes the flags of a descriptor.
    fn set_flags(&self, index: u16, flags: u16);
    /// Fetches the flags of a descriptor.
    fn flags(&self, index: u16) -> u16;
    /// Fetches id and length of a descriptor.
    fn used_elem(&self, index: u16) -> (u16, u32);
    /// Writes `off_wrap` of the driver's event suppression structure.
    fn set_event(&self, place: Place);
    /// Writes `flags` of the driver's event suppression structure.
    fn set_event_flags(&self, flags: u16);
    /// Fetches `off_wrap` and `flags` of the device's event suppression structure, both at once.
    fn device_event(&self) -> (Place, u16);
}

/// The driver's side of a packed virtqueue.
///
/// The id of a buffer is its head in the slots. In order, slots are taken in the order of the ring,
/// so that it is the index of its first descriptor, too.
pub(crate) struct Packed<S, M> {
    /// What is known of each id.
    pub(crate) slots: Slots<S, M>,
    /// Where the next available descriptor goes.
    avail: Place,
    /// Descriptors made available since the last notification.
    added: u16,
    /// Where the next used descriptor is due.
    used: Place,
    /// In order: what the device has used in one go.
    batch: Option<Batch>,
}

impl<S: DerefMut<Target = [Slot]>, M: DerefMut<Target = [Mapped]>> Packed<S, M> {
    /// Where [`Suppression`] begins.
    pub(crate) const START: u16 = Place::START.bits();

    /// A queue without buffers; the ring is zero.
    pub(crate) fn new(slots: Slots<S, M>) -> Self {
        Self {
            slots,
            avail: Place::START,
            added: 0,
            used: Place::START,
            batch: None,
        }
    }

    /// Begins anew; the ring was zeroed.
    pub(crate) fn reset(&mut self) {
        self.slots.reset();
        self.avail = Place::START;
        self.added = 0;
        self.used = Place::START;
        self.batch = None;
    }

    /// The next descriptor and its wrap counter, as notifications carry them (Virtio 1.4, 2.9).
    pub(crate) fn next_avail(&self) -> u16 {
        self.avail.bits()
    }

    #[inline(always)]
    fn available(place: Place) -> u16 {
        if place.wrap() {
            desc::AVAIL
        } else {
            desc::USED
        }
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
        mem: &impl PackedMemory,
        pieces: &P,
        buffer: Buffer,
    ) -> Result<bool, P::Error> {
        let id = self.slots.head();
        let size = self.slots.size();
        // The place of the next descriptor, taken apart: so a step is one comparison.
        let mut index = self.avail.index();
        let mut lap = Self::available(self.avail);
        let mut last = index;
        let mut last_flags = 0;
        let mut first_flags = 0;
        let mut chain = Chain::new(id);
        let slots = &mut self.slots;
        let free = slots.free();
        let filled = pieces.each(|piece| {
            if chain.count == free {
                return false;
            }
            last = index;
            last_flags = piece.flags | lap;
            mem.set_body(index, piece.addr, piece.len, id);
            if chain.count == 0 {
                first_flags = last_flags;
            } else {
                mem.set_flags(index, last_flags | desc::NEXT);
            }
            if P::MAY_BE_MAPPED {
                slots.record(chain.next, &piece);
            }
            let next = slots.next(chain.next);
            chain.push(&piece, next);
            index = index.wrapping_add(1);
            if index == size {
                index = 0;
                lap ^= LAP;
            }
            true
        });
        if !chain.is_complete(&filled, pieces) {
            self.withdraw(mem, chain.count);
            self.slots.undo(id, chain.count, pieces);
            return filled.map(|_| false);
        }
        if chain.count != 1 {
            first_flags |= desc::NEXT;
            mem.set_flags(last, last_flags);
        }
        self.slots.claim(&chain, buffer);
        let first = self.avail;
        self.publish(mem, first, first_flags, chain.count);
        Ok(true)
    }

    /// Undoes what a failed [`Self::add`] wrote: all descriptors but the first look available.
    ///
    /// They get the flags of the lap before: a later, shorter buffer must not leave one of them
    /// available behind its end, and none may look used.
    #[cold]
    fn withdraw(&self, mem: &impl PackedMemory, count: u16) {
        let size = self.slots.size();
        let mut place = self.avail;
        for _ in 1..count {
            place = place.advance(1, size);
            mem.set_flags(place.index(), Self::available(place) ^ LAP);
        }
    }

    /// Makes a buffer of one descriptor available: of the one `piece`, which is not mapped, or of a
    /// table. There must be a free slot.
    #[inline(always)]
    pub(crate) fn add_one(
        &mut self,
        mem: &impl PackedMemory,
        piece: &Piece,
        writable: u32,
        buffer: Buffer,
    ) {
        let place = self.avail;
        let id = self.slots.claim_one(buffer, writable);
        mem.set_body(place.index(), piece.addr, piece.len, id);
        self.publish(mem, place, piece.flags | Self::available(place), 1);
    }

    #[inline(always)]
    fn publish(&mut self, mem: &impl PackedMemory, first: Place, flags: u16, count: u16) {
        self.avail = first.advance(count, self.slots.size());
        self.added = self.added.wrapping_add(count);
        // All else before the flags of the first one; pairs with the device's read barrier.
        mem.publish();
        mem.set_flags(first.index(), flags);
    }

    /// Tells whether the device wants to know of the buffers added since the last call.
    #[inline(always)]
    pub(crate) fn kick_prepare(&mut self, mem: &impl PackedMemory) -> bool {
        // Flags before event; pairs with the device's barrier between those.
        mem.full();
        let new = self.avail.index();
        // Below 0 when the buffers crossed the end of the ring, like an event before it.
        let old = new.wrapping_sub(self.added);
        self.added = 0;
        let (place, flags) = mem.device_event();
        match flags {
            event_flags::DESC => {
                let event = place.event(self.avail.wrap(), self.slots.size());
                need_event(event, new, old)
            }
            flags => flags != event_flags::DISABLE,
        }
    }

    /// Whether [`Self::take_next`] has something to do.
    #[inline(always)]
    pub(crate) fn look(&self, mem: &impl PackedMemory) -> bool {
        self.batch.is_some() || Self::more_used(mem, self.used)
    }

    /// Takes the next used buffer, after [`Self::look`] has found one.
    ///
    /// # Errors
    ///
    /// The device has written what cannot be; no buffer was taken, and none may be afterwards.
    #[inline(always)]
    pub(crate) fn take_next(
        &mut self,
        mem: &impl PackedMemory,
        suppression: &Suppression,
    ) -> Result<Used, Fault> {
        let (used, open) = if self.slots.in_order() {
            let used = self.take_in_order(mem)?;
            (used, self.batch.is_some())
        } else {
            let (id, len) = self.fetch(mem);
            (self.take(id, len)?, false)
        };
        self.used = self.used.advance(used.slot.count, self.slots.size());
        suppression.taken_packed(mem, self.used, open);
        Ok(used)
    }

    /// Fetches the next used descriptor: an id and a length.
    #[inline(always)]
    fn fetch(&self, mem: &impl PackedMemory) -> (u16, u32) {
        // Id and length after the flags; pairs with the device's write barrier between those.
        mem.observe();
        mem.used_elem(self.used.index())
    }

    /// Takes the buffer `id`, if it is outstanding.
    #[inline(always)]
    fn take(&mut self, id: u16, len: u32) -> Result<Used, Fault> {
        match self.slots.release(id.into()) {
            Some(slot) => Ok(Used::new(id, slot, len)),
            None => Err(Fault::wrong_id(id.into(), self.slots.size())),
        }
    }

    #[inline(never)]
    fn take_in_order(&mut self, mem: &impl PackedMemory) -> Result<Used, Fault> {
        let batch = match self.batch {
            Some(batch) => batch,
            None => {
                let (head, len) = self.fetch(mem);
                if !self.slots.is_head(head.into()) {
                    return Err(Fault::wrong_id(head.into(), self.slots.size()));
                }
                Batch { head, len }
            }
        };
        let due = self.used.index();
        let done = batch.head == due;
        // What was skipped counts as written completely.
        let used = self.take(due, if done { batch.len } else { u32::MAX })?;
        self.batch = if done { None } else { Some(batch) };
        Ok(used)
    }

    /// Tells whether the descriptor at `place` was used.
    #[inline(always)]
    pub(crate) fn more_used(mem: &impl PackedMemory, place: Place) -> bool {
        let flags = mem.flags(place.index()) & LAP;
        flags == if place.wrap() { LAP } else { 0 }
    }

    /// As [`Self::more_used`], after a notification was asked for.
    #[inline(always)]
    pub(crate) fn poll(mem: &impl PackedMemory, place: Place) -> bool {
        // The event before the look at the flags; pairs with the device's barrier.
        mem.full();
        Self::more_used(mem, place)
    }

    /// Asks for a notification once most of what is outstanding was used; false if something was
    /// used already.
    pub(crate) fn enable_delayed(
        &self,
        mem: &impl PackedMemory,
        suppression: &Suppression,
    ) -> bool {
        let size = self.slots.size();
        let ahead = u32::from(size.wrapping_sub(self.slots.free())) * 3 / 4;
        // CAST: Less than a u16 was.
        suppression.enable_packed(mem, self.used.advance(ahead as u16, size));
        // The event before the look at the flags; pairs with the device's barrier.
        mem.full();
        self.batch.is_none() && !Self::more_used(mem, self.used)
    }

    /// Takes back a buffer that the device has not used; the device was reset.
    pub(crate) fn detach(&mut self) -> Option<Used> {
        self.slots.release_any()
    }
}
