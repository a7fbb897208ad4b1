// SPDX-License-Identifier: GPL-2.0

//! What both formats of a ring are to the tests of the order: memory, and the two sides of it.

use crate::{
    driver::token,
    ring::{
        layout::{
            desc,
            Piece, //
        },
        split::Barriers,
        state::{
            Buffer,
            Mapped,
            Slot,
            Slots,
            Used, //
        },
        suppression::Suppression, //
    }, //
};

use loom::cell::UnsafeCell;
use std::ptr::null_mut;

pub(crate) const SIZE: u16 = 2;
pub(crate) const LEN: u32 = 9;

/// Memory that nothing but barriers orders.
pub(crate) struct Plain<T>(UnsafeCell<T>);

// SAFETY: loom ends a test before two threads use it at the same time.
unsafe impl<T: Send> Sync for Plain<T> {}

impl<T: Copy> Plain<T> {
    pub(crate) fn pair(value: T) -> [Self; SIZE as usize] {
        [value, value].map(|value| Self(UnsafeCell::new(value)))
    }

    pub(crate) fn get(&self) -> T {
        // SAFETY: The pointer is valid; nobody writes meanwhile, or loom ends the test.
        self.0.with(|place| unsafe { *place })
    }

    pub(crate) fn set(&self, value: T) {
        // SAFETY: The pointer is valid; nobody uses it meanwhile, or loom ends the test.
        self.0.with_mut(|place| unsafe { *place = value });
    }
}

pub(crate) fn at<T>(entries: &[T; SIZE as usize], index: u16) -> &T {
    &entries[usize::from(index % SIZE)]
}

pub(crate) fn slots() -> Slots<Vec<Slot>, Vec<Mapped>> {
    Slots::new(vec![Slot::FREE; SIZE.into()], Vec::new(), false)
}

/// The address of a buffer, by which the device knows it.
pub(crate) fn addr(number: u16) -> u64 {
    0x1000 + u64::from(number)
}

pub(crate) fn piece(number: u16) -> Piece {
    Piece {
        addr: addr(number),
        len: LEN,
        flags: desc::WRITE,
        mapped: false,
    }
}

pub(crate) fn buffer(number: u16) -> Buffer {
    Buffer {
        token: token(number.into()),
        extra: null_mut(),
        indirect: false,
    }
}

/// A ring: the memory of it and both sides, which know how many buffers there were.
pub(crate) trait Ring: Barriers + Sized + Send + Sync + 'static {
    /// What the driver keeps for itself.
    type State;

    /// Where [`Suppression`] begins.
    const START: u16;

    /// A device that wants no notifications.
    fn new() -> Self;
    fn state() -> Self::State;

    fn suppression(event: bool) -> Suppression {
        let suppression = Suppression::new(event, false);
        suppression.reset(false, Self::START);
        suppression
    }

    fn add(&self, state: &mut Self::State, number: u16);
    fn kick_prepare(&self, state: &mut Self::State, event: bool) -> bool;
    fn get(&self, state: &mut Self::State, suppression: &Suppression) -> Option<Used>;
    fn more(&self, state: &Self::State) -> bool;
    fn disable(&self, suppression: &Suppression);
    fn enable(&self, suppression: &Suppression) -> bool;
    fn enable_delayed(&self, state: &Self::State, suppression: &Suppression) -> bool;

    /// The id of a buffer if it is available.
    fn device_take(&self, number: u16) -> Option<u16>;
    fn device_use(&self, number: u16, id: u16);
    /// The device wants to hear of a buffer.
    fn device_want(&self, number: u16, event: bool);
    /// Whether the driver wants to hear of a buffer that was used just now.
    fn driver_wants(&self, number: u16, event: bool) -> bool;
}

/// Fences for barriers.
macro_rules! impl_barriers {
    ($ring:ty) => {
        impl Barriers for $ring {
            fn publish(&self) {
                fence(Release);
            }

            fn observe(&self) {
                fence(Acquire);
            }

            fn full(&self) {
                fence(SeqCst);
            }
        }
    };
}
pub(crate) use impl_barriers;
