// SPDX-License-Identifier: GPL-2.0

//! The numbers of devices: each gets the lowest one that is free.

use core::mem::take;
use kernel::{
    prelude::*,
    sync::global_lock, //
};

/// A device's number, behind `virtio` in its name.
#[derive(Clone, Copy)]
pub(super) struct Index(c_int);

impl Index {
    /// Takes what stands in the C structure.
    pub(super) const fn from_raw(index: c_int) -> Self {
        Self(index)
    }

    /// What stands in the C structure.
    pub(super) const fn as_raw(self) -> c_int {
        self.0
    }

    /// A bit for this number, which it shares with others.
    pub(super) const fn mark(self) -> u64 {
        // CAST: The low bits matter only.
        1 << (self.0 as u64 % 64)
    }
}

global_lock! {
    // SAFETY: `Numbers::new` initialises it before anybody takes a number.
    /// The numbers in use: number `n` is bit `n % 64` of word `n / 64`.
    unsafe(uninit) static USED: Mutex<KVec<u64>> = KVec::new();
}

/// Numbers can be had as long as this exists.
pub(super) struct Numbers(());

impl Numbers {
    /// Begins.
    ///
    /// # Safety
    ///
    /// To be called once, before the first number is taken; to be dropped after the last one was
    /// given back.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: By the safety requirements.
        unsafe { USED.init() };
        Self(())
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        drop(take(&mut *USED.lock()));
    }
}

/// Takes the lowest free number.
///
/// # Errors
///
/// `ENOMEM`; `EOVERFLOW` if there are too many devices.
///
/// # Context
///
/// May sleep.
pub(super) fn acquire() -> Result<Index> {
    let mut used = USED.lock();
    let place = match used.iter().position(|word| *word != u64::MAX) {
        Some(place) => place,
        None => {
            let place = used.len();

            used.push(0, GFP_KERNEL)?;
            place
        }
    };
    let word = used.get_mut(place).ok_or(EINVAL)?;
    let bit = word.trailing_ones();
    let number = i32::try_from(place)?
        .checked_mul(64)
        .and_then(|first| first.checked_add_unsigned(bit))
        .ok_or(EOVERFLOW)?;

    *word |= Index(number).mark();
    Ok(Index(number))
}

/// Gives a number back.
///
/// # Context
///
/// May sleep.
pub(super) fn release(index: Index) {
    let place = usize::try_from(index.0).unwrap_or(usize::MAX) / 64;

    if let Some(word) = USED.lock().get_mut(place) {
        *word &= !index.mark();
    }
}
