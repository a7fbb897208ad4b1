// SPDX-License-Identifier: GPL-2.0

//! What the driver alone knows about its descriptors, whatever the device writes into the ring.
//!
//! One [`Slot`] per descriptor of the ring: the free list, the length of each outstanding chain,
//! the caller's token. [`Mapped`] remembers what has to be unmapped, if anything has. Uses only
//! `core`.

#![deny(unsafe_code)]

use super::layout::{
    desc,
    Piece, //
};

use core::{
    ffi::c_void,
    ops::DerefMut,
    ptr::{
        null_mut,
        NonNull, //
    },
};

/// What the driver gave along with a buffer and gets back with it.
pub(crate) type Token = NonNull<c_void>;

/// Why a queue is broken: what the device wrote that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It names a buffer beyond the end of the queue.
    OutOfRange(u32),
    /// It names a buffer that is not outstanding, or not the one that is due.
    NotHead(u32),
    /// Its used index is not within what is outstanding.
    Index(u16),
}

impl Fault {
    /// For an `id` that is none of an outstanding buffer in a queue of `size` descriptors.
    #[cold]
    #[inline(never)]
    pub(crate) fn wrong_id(id: u32, size: u16) -> Self {
        if id < size.into() {
            Self::NotHead(id)
        } else {
            Self::OutOfRange(id)
        }
    }

    /// What to tell people: words, a number, words.
    pub(crate) fn words(self) -> (&'static str, u32, &'static str) {
        match self {
            Self::OutOfRange(id) => ("id ", id, " out of range"),
            Self::NotHead(id) => ("id ", id, " is not a head!"),
            Self::Index(index) => ("used index ", index.into(), " without buffers"),
        }
    }
}

/// What the driver knows of one descriptor.
///
/// A slot is the head of an outstanding buffer (it has a token), a further part of one, or free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Head: the token of the buffer.
    pub(crate) token: Option<Token>,
    /// Head: the caller's context, or the indirect table if there is one.
    pub(crate) extra: *mut c_void,
    /// Head: how many bytes the device may write.
    pub(crate) writable: u32,
    /// Head: number of descriptors it takes in the ring.
    pub(crate) count: u16,
    /// Head: the last slot of the chain.
    pub(crate) last: u16,
    /// The next one of the chain or of the free list.
    pub(crate) next: u16,
    /// Head: whether `extra` is an indirect table.
    pub(crate) indirect: bool,
}

impl Slot {
    /// A free one.
    pub(crate) const FREE: Self = Self {
        token: None,
        extra: null_mut(),
        writable: 0,
        count: 0,
        last: 0,
        next: 0,
        indirect: false,
    };
}

/// What is known of a buffer when it becomes available.
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    /// The caller's token.
    pub(crate) token: Token,
    /// The caller's context, or the indirect table.
    pub(crate) extra: *mut c_void,
    /// Whether `extra` is an indirect table.
    pub(crate) indirect: bool,
}

/// The slots of a queue, and which of them are free.
///
/// With in-order use the free list stays the circle it is at first, so that heads are taken and
/// given back in ring order (Virtio 1.4, 2.7.9).
pub(crate) struct Slots<S, M> {
    slots: S,
    maps: M,
    head: u16,
    free: u16,
    in_order: bool,
}

impl<S: DerefMut<Target = [Slot]>, M: DerefMut<Target = [Mapped]>> Slots<S, M> {
    /// Takes memory for as many slots as the queue has descriptors, at most 32768, and for as many
    /// mappings; for none if nothing ever has to be unmapped.
    pub(crate) fn new(slots: S, maps: M, in_order: bool) -> Self {
        let mut made = Self {
            slots,
            maps,
            head: 0,
            free: 0,
            in_order,
        };
        made.reset();
        made
    }

    /// Forgets everything; all slots are free.
    #[inline(never)]
    pub(crate) fn reset(&mut self) {
        let mut next = 0u16;
        for slot in self.slots.iter_mut() {
            next = next.wrapping_add(1);
            *slot = Slot { next, ..Slot::FREE };
        }
        if let Some(last) = self.slots.last_mut() {
            last.next = 0;
        }
        self.head = 0;
        self.free = next;
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn size(&self) -> u16 {
        // CAST: At most 32768, see `new`.
        self.slots.len() as u16
    }

    /// How many are free.
    #[inline(always)]
    pub(crate) fn free(&self) -> u16 {
        self.free
    }

    /// The first free one, the head of the buffer that is added next.
    #[inline(always)]
    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// The one after `index` in its chain or in the free list.
    #[inline(always)]
    pub(crate) fn next(&self, index: u16) -> u16 {
        self.slots
            .get(usize::from(index))
            .map_or(0, |slot| slot.next)
    }

    /// Whether a buffer whose head is `index` is outstanding.
    #[inline(always)]
    pub(crate) fn is_head(&self, index: u32) -> bool {
        // CAST: Widening.
        let slot = self.slots.get(index as usize);
        slot.is_some_and(|slot| slot.token.is_some())
    }

    /// Takes the one slot [`Self::head`] for a buffer of which the device may write `writable`
    /// bytes; returns its index.
    #[inline(always)]
    pub(crate) fn claim_one(&mut self, buffer: Buffer, writable: u32) -> u16 {
        let head = self.head;
        if let Some(slot) = self.slots.get_mut(usize::from(head)) {
            slot.token = Some(buffer.token);
            slot.extra = buffer.extra;
            slot.indirect = buffer.indirect;
            slot.writable = writable;
            slot.count = 1;
            slot.last = head;
            self.head = slot.next;
            self.free = self.free.wrapping_sub(1);
        }
        head
    }

    /// Takes `chain`, which begins at [`Self::head`], off the free list for a buffer.
    #[inline(always)]
    pub(crate) fn claim(&mut self, chain: &Chain, buffer: Buffer) {
        let head = self.head;
        self.head = chain.next;
        self.free = self.free.wrapping_sub(chain.count);
        if let Some(slot) = self.slots.get_mut(usize::from(head)) {
            slot.token = Some(buffer.token);
            slot.extra = buffer.extra;
            slot.indirect = buffer.indirect;
            slot.writable = chain.writable;
            slot.count = chain.count;
            slot.last = chain.last;
        }
    }

    /// Gives the slots of the buffer at `head` back and returns what was known of it; `None` if
    /// there is no such buffer.
    #[inline(always)]
    pub(crate) fn release(&mut self, head: u32) -> Option<Slot> {
        // CAST: Widening.
        let slot = self.slots.get_mut(head as usize)?;
        let token = slot.token.take()?;
        // Not `*slot`, of which the compiler would not know that `indirect` is true or false.
        let found = Slot {
            token: Some(token),
            extra: slot.extra,
            writable: slot.writable,
            count: slot.count,
            last: slot.last,
            next: slot.next,
            indirect: slot.indirect,
        };
        self.free = self.free.wrapping_add(found.count);
        if !self.in_order {
            if let Some(last) = self.slots.get_mut(usize::from(found.last)) {
                last.next = self.head;
            }
            // CAST: There is a slot of this number.
            self.head = head as u16;
        }
        Some(found)
    }

    /// Whether heads are given back in the order in which they were taken.
    #[inline(always)]
    pub(crate) fn in_order(&self) -> bool {
        self.in_order
    }

    /// Remembers that the part of a buffer in slot `index` is `piece`.
    #[inline(always)]
    pub(crate) fn record(&mut self, index: u16, piece: &Piece) {
        if let Some(mapped) = self.maps.get_mut(usize::from(index)) {
            *mapped = piece.into();
        }
    }

    /// Hands the mappings of the chain of `count` slots at `head` to `undo`; none if none are kept.
    #[inline(always)]
    pub(crate) fn mappings(&self, head: u16, count: u16, mut undo: impl FnMut(Mapped)) {
        if self.maps.is_empty() {
            return;
        }
        let mut index = head;
        for _ in 0..count {
            if let Some(&mapped) = self.maps.get(usize::from(index)) {
                undo(mapped);
            }
            index = self.next(index);
        }
    }

    /// Undoes the pieces of a chain of `count` slots at `head` that was not completed.
    #[cold]
    #[inline(never)]
    pub(crate) fn undo<P: Pieces>(&self, head: u16, count: u16, pieces: &P) {
        self.mappings(head, count, |mapped| pieces.undo(mapped));
    }

    /// Gives the slots of any outstanding buffer back: that with the lowest head.
    #[inline(never)]
    pub(crate) fn release_any(&mut self) -> Option<Used> {
        let head = (0..self.size()).find(|&index| self.is_head(index.into()))?;
        let slot = self.release(head.into())?;
        Some(Used::new(head, slot, 0))
    }
}

/// A chain of slots while a buffer is added, piece by piece.
#[derive(Clone, Copy)]
pub(crate) struct Chain {
    /// The slot for the next piece.
    pub(crate) next: u16,
    /// The slot of the last piece so far.
    pub(crate) last: u16,
    /// Number of slots so far.
    pub(crate) count: u16,
    /// Bytes the device may write, so far.
    pub(crate) writable: u32,
    /// The flags of the last piece so far.
    pub(crate) flags: u16,
}

impl Chain {
    /// An empty chain that begins at `head`.
    #[inline(always)]
    pub(crate) fn new(head: u16) -> Self {
        Self {
            next: head,
            last: head,
            count: 0,
            writable: 0,
            flags: 0,
        }
    }

    /// Whether it is complete: `filled` is what [`Pieces::each`] of `pieces` has returned.
    #[inline(always)]
    pub(crate) fn is_complete<P: Pieces>(
        &self,
        filled: &Result<bool, P::Error>,
        pieces: &P,
    ) -> bool {
        matches!(filled, Ok(true)) && self.count != 0 && pieces.may_be(self.count)
    }

    /// Moves on to the slot `next` after `piece` was put into the present one.
    #[inline(always)]
    pub(crate) fn push(&mut self, piece: &Piece, next: u16) {
        self.last = self.next;
        self.next = next;
        self.count = self.count.wrapping_add(1);
        self.writable = self.writable.saturating_add(piece.writable_len());
        self.flags = piece.flags;
    }
}

/// What to do when a piece comes back.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapping {
    /// Nothing: the caller mapped it. Zeroed memory says so.
    Caller = 0,
    /// Unmap what the device could read.
    ToDevice,
    /// Unmap what the device could write.
    FromDevice,
}

impl Mapping {
    /// The flags of a descriptor for it.
    #[inline(always)]
    pub(crate) fn flags(self) -> u16 {
        match self {
            Self::FromDevice => desc::WRITE,
            _ => 0,
        }
    }
}

/// A mapping that lasts as long as its buffer is outstanding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapped {
    /// Address for the device.
    pub(crate) addr: u64,
    /// Length in bytes.
    pub(crate) len: u32,
    /// What to do when it comes back.
    pub(crate) mapping: Mapping,
}

impl Mapped {
    /// Nothing to undo.
    pub(crate) const NONE: Self = Self {
        addr: 0,
        len: 0,
        mapping: Mapping::Caller,
    };
}

impl From<&Piece> for Mapped {
    #[inline(always)]
    fn from(piece: &Piece) -> Self {
        Self {
            addr: piece.addr,
            len: piece.len,
            mapping: match (piece.mapped, piece.writable()) {
                (false, _) => Mapping::Caller,
                (true, false) => Mapping::ToDevice,
                (true, true) => Mapping::FromDevice,
            },
        }
    }
}

/// Where the pieces of a buffer come from.
pub(crate) trait Pieces {
    /// Why there is no buffer.
    type Error;

    /// Whether pieces may have to be unmapped.
    const MAY_BE_MAPPED: bool;

    /// Hands every piece to `visit`, those that the device reads first. False if that had no room
    /// for one; it has seen none after it.
    ///
    /// # Errors
    ///
    /// Ends at the first piece that could not be mapped; those before it were visited.
    fn each(&self, visit: impl FnMut(Piece) -> bool) -> Result<bool, Self::Error>;

    /// Whether `count`, which is not 0, can be the number of pieces.
    fn may_be(&self, count: u16) -> bool;

    /// Takes back what [`Self::each`] has done for a piece, since there will be no buffer.
    fn undo(&self, mapped: Mapped);
}

/// A used buffer on its way back to the driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// Its head: the slot that its mappings begin at.
    pub(crate) head: u16,
    /// What was known of it.
    pub(crate) slot: Slot,
    /// How many bytes the device says it has written; never more than it was allowed to.
    pub(crate) len: u32,
}

impl Used {
    /// `len` as the device wrote it.
    #[inline(always)]
    pub(crate) fn new(head: u16, slot: Slot, len: u32) -> Self {
        Self {
            head,
            slot,
            len: len.min(slot.writable),
        }
    }
}

/// An in-order batch of which some buffers are still to be handed out (Virtio 1.4, 2.7.9).
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    /// The head of its last buffer; outstanding.
    pub(crate) head: u16,
    /// What the device has written for that one, in bytes.
    pub(crate) len: u32,
}
