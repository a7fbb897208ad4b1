// SPDX-License-Identifier: GPL-2.0

//! What drivers are told of the generation of a device's configuration (Virtio 1.4, 2.5.1).
//!
//! A driver that needs several accesses for a field repeats them until it was told the same
//! generation before and after. Drivers in C do so without end
//! (`include/linux/virtio_config.h`), so that a device whose generation never stays the same would
//! keep them for good. They are therefore told the same in the end, whatever the device says.
//!
//! Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    Ordering, //
};

/// How often in a row the generation may be another one than the time before.
///
/// A device that behaves changes its configuration when something happens to it, and it is looked
/// at again within microseconds: once in a row is usual. It is more than drivers bear that can give
/// up by themselves (`MAX_CHANGES` of `config.rs`), so that those come to hear of it.
const MAX_CHANGES: u32 = 100;

/// The generation of one device's configuration.
///
/// Several readers at once share the count; each of them may see what the others have seen.
pub(crate) struct Generation {
    /// What the device said last.
    said: AtomicU32,
    /// What a driver was told last.
    told: AtomicU32,
    /// How often in a row the device said something else than before.
    changes: AtomicU32,
    /// That it never settles was noticed.
    noticed: AtomicBool,
}

impl Generation {
    /// That of a device which has not been looked at.
    pub(crate) const fn new() -> Self {
        Self {
            said: AtomicU32::new(0),
            told: AtomicU32::new(0),
            changes: AtomicU32::new(0),
            noticed: AtomicBool::new(false),
        }
    }

    /// What to tell a driver when the device says `now`: the same, or, if that has changed too
    /// often, what was told before, until the device says the same twice. `never_settles` is called
    /// when this happens for the first time.
    ///
    /// # Context
    ///
    /// Any.
    pub(crate) fn tell(&self, now: u32, never_settles: impl FnOnce()) -> u32 {
        let changes = match self.said.swap(now, Ordering::Relaxed) == now {
            true => 0,
            false => self.changes.load(Ordering::Relaxed).saturating_add(1),
        };

        self.changes.store(changes, Ordering::Relaxed);
        if changes <= MAX_CHANGES {
            self.told.store(now, Ordering::Relaxed);
            return now;
        }
        if !self.noticed.swap(true, Ordering::Relaxed) {
            never_settles();
        }
        self.told.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// How often a driver in C reads a field of a device, by what that says each time; stops when
    /// it is clear that it would go on for ever. Returns whether it was said that the device never
    /// settles, too.
    fn reads(generation: &Generation, mut device: impl FnMut() -> u32) -> (u32, bool) {
        let noticed = Cell::new(false);
        let mut look = || generation.tell(device(), || noticed.set(true));
        let mut reads = 0;
        let mut old = look();

        loop {
            reads += 1;
            let new = look();

            if new == old || reads > 10 * MAX_CHANGES {
                return (reads, noticed.get());
            }
            old = new;
        }
    }

    /// A device that changes its configuration `changes` times, each time that it is looked at.
    fn changing(from: u32, changes: u32) -> impl FnMut() -> u32 {
        let mut looks = 0;

        move || {
            looks += 1;
            from.wrapping_add(changes.min(looks - 1))
        }
    }

    #[test]
    fn a_device_that_behaves_is_believed() {
        let generation = Generation::new();

        for from in [0, 7, u32::MAX] {
            for changes in [0, 1, 2, MAX_CHANGES - 1] {
                assert_eq!(
                    reads(&generation, changing(from, changes)),
                    (changes + 1, false)
                );
                assert_eq!(generation.tell(from, || ()), from);
            }
        }
    }

    #[test]
    fn many_changes_with_looks_in_between_are_no_matter() {
        let generation = Generation::new();

        for from in 0..3 * MAX_CHANGES {
            assert_eq!(reads(&generation, changing(from, 1)), (2, false));
        }
    }

    #[test]
    fn one_that_never_settles_is_read_to_an_end_and_noticed_once() {
        let generation = Generation::new();
        let mut device = changing(1, u32::MAX);

        assert_eq!(reads(&generation, &mut device), (MAX_CHANGES, true));
        for _ in 0..3 {
            assert_eq!(reads(&generation, &mut device), (1, false));
        }
    }

    #[test]
    fn one_that_settles_after_all_is_believed_again() {
        let generation = Generation::new();

        reads(&generation, changing(1, u32::MAX));
        // The first look still gets what was told before.
        assert_eq!(reads(&generation, || 5), (2, false));
        assert_eq!(reads(&generation, changing(5, 1)), (2, false));
        assert_eq!(generation.tell(6, || ()), 6);
    }
}
