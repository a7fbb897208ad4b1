// SPDX-License-Identifier: GPL-2.0

//! What the tests need of a ring, whichever format it has: the driver's side and a device's.

use crate::ring::{
    layout::{
        desc,
        Piece, //
    },
    state::{
        Fault,
        Mapped,
        Pieces,
        Token,
        Used, //
    }, //
};

use std::{
    cell::RefCell,
    ptr::NonNull, //
};

/// A ring with a model of a device behind it.
pub trait Rig {
    /// A ring of `size` descriptors; the device may use buffers in batches if `in_order`.
    fn new(size: u16, in_order: bool, event: bool) -> Self;
    fn size(&self) -> u16;
    fn free(&self) -> u16;
    fn add(&mut self, parts: &Parts, token: usize, undo: impl FnMut(Mapped)) -> Result<(), ()>;
    /// Adds a buffer whose table the device finds at `addr`.
    fn add_indirect(&mut self, addr: u64, count: u32, writable: u32, token: usize);
    fn kick_prepare(&mut self) -> bool;
    fn get(&mut self) -> Result<Option<Used>, Fault>;
    fn detach(&mut self) -> Option<Used>;
    fn mappings(&self, used: &Used) -> Vec<Mapped>;
    /// Resets both sides; all buffers were detached.
    fn reset(&mut self);
    fn more_used(&self) -> bool;
    fn disable_cb(&mut self);
    fn enable_cb(&mut self) -> bool;
    fn enable_delayed(&mut self) -> bool;

    /// The device takes the next available buffer: its id and what it sees of it.
    fn device_take(&mut self) -> Option<Seen>;
    /// The device uses `batch`, in one go: only the last one gets an entry, with `len`. Returns
    /// whether it has to notify the driver.
    fn device_use(&mut self, batch: &[Seen], len: u32) -> bool;
    /// The device wants to be notified when the driver adds the next buffer, or never.
    fn device_want(&mut self, notification: bool);
    /// The device writes a used entry with any contents where the next one is due.
    fn device_lie(&mut self, id: u32, len: u32);
    /// The device uses what was made available where the driver looks next.
    fn device_use_next(&mut self, len: u32);
    /// The device writes one field of all that it can reach: which one, says `place`.
    fn device_write(&mut self, place: u16, value: u64);
    /// The device makes a mess of everything that it can write and that was made available.
    fn device_scribble(&mut self, junk: u64);
}

/// A buffer as a device sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: u16,
    /// Descriptors in the ring.
    pub slots: u16,
    /// Address, length, device-writable of each; of the table if it is indirect.
    pub parts: Vec<(u64, u32, bool)>,
    pub indirect: bool,
}

/// The parts of a buffer, `fail` of which cannot be mapped.
#[derive(Clone, Debug)]
pub struct Parts {
    pub parts: Vec<(u64, u32, bool)>,
    pub fail: Option<usize>,
}

impl Parts {
    pub fn new(parts: &[(u64, u32, bool)]) -> Self {
        Self {
            parts: parts.to_vec(),
            fail: None,
        }
    }

    pub fn writable(&self) -> u32 {
        self.parts
            .iter()
            .filter(|part| part.2)
            .fold(0, |sum, part| sum + part.1)
    }
}

/// Parts, and who hears of those that are undone.
pub struct Undoing<'a, F>(pub &'a Parts, pub RefCell<F>);

impl<F: FnMut(Mapped)> Pieces for Undoing<'_, F> {
    type Error = ();
    const MAY_BE_MAPPED: bool = true;

    fn may_be(&self, count: u16) -> bool {
        self.0.parts.len() == usize::from(count)
    }

    fn undo(&self, mapped: Mapped) {
        (self.1.borrow_mut())(mapped);
    }

    fn each(&self, mut visit: impl FnMut(Piece) -> bool) -> Result<bool, ()> {
        for (index, &(addr, len, writable)) in self.0.parts.iter().enumerate() {
            if self.0.fail == Some(index) {
                return Err(());
            }
            let piece = Piece {
                addr,
                len,
                flags: if writable { desc::WRITE } else { 0 },
                mapped: true,
            };
            if !visit(piece) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub fn token(number: usize) -> Token {
    NonNull::new(std::ptr::without_provenance_mut(number + 1)).unwrap()
}

pub fn number(used: &Used) -> usize {
    used.slot.token.unwrap().as_ptr().addr() - 1
}

/// A small generator of random numbers (xorshift64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}
