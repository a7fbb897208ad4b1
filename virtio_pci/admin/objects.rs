// SPDX-License-Identifier: GPL-2.0

//! The numbers of resource objects (Virtio 1.4, 2.12.1.3), which the driver gives.
//!
//! Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

/// The number of an object that the device has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Number {
    /// What the device calls it.
    pub(crate) id: u32,
    /// How often the device had been reset when it was given; a reset takes all objects.
    resets: u32,
}

/// The numbers of the objects that a device has at present.
#[derive(Default)]
pub(crate) struct Objects {
    most: u8,
    /// Those that are taken, by bits.
    taken: [u64; 4],
    resets: u32,
}

impl Objects {
    /// How many objects there may be.
    pub(crate) fn most(&self) -> u8 {
        self.most
    }

    /// The device allows as many.
    pub(crate) fn allow(&mut self, most: u8) {
        self.most = most;
    }

    /// The device was reset.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            resets: self.resets.wrapping_add(1),
            ..Self::default()
        };
    }

    /// Takes the lowest number that is free.
    pub(crate) fn take(&mut self) -> Option<Number> {
        let id = (0..self.most).find(|id| !self.is_taken(*id))?;

        *self.word(id) |= bit(id);
        Some(Number {
            id: id.into(),
            resets: self.resets,
        })
    }

    /// What would be the number of the object that the device calls `id`.
    pub(crate) fn number(&self, id: u32) -> Number {
        Number {
            id,
            resets: self.resets,
        }
    }

    /// Gives a number back, unless the device was reset since.
    pub(crate) fn give_back(&mut self, number: Number) {
        if let (Ok(id), true) = (u8::try_from(number.id), number.resets == self.resets) {
            *self.word(id) &= !bit(id);
        }
    }

    fn is_taken(&self, id: u8) -> bool {
        self.taken[usize::from(id) / 64] & bit(id) != 0
    }

    fn word(&mut self, id: u8) -> &mut u64 {
        &mut self.taken[usize::from(id) / 64]
    }
}

/// The bit of a number in its word.
const fn bit(id: u8) -> u64 {
    1 << (id % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(most: u8) -> Objects {
        let mut objects = Objects::default();

        objects.allow(most);
        objects
    }

    #[test]
    fn as_many_as_the_device_allows() {
        let mut objects = some(255);

        for id in 0..255 {
            assert_eq!(objects.take().unwrap().id, id);
        }
        assert_eq!(objects.take(), None);
        assert_eq!(some(0).take(), None);
    }

    #[test]
    fn a_number_is_given_again_when_it_is_back() {
        let mut objects = some(200);
        let numbers: Vec<Number> = (0..200).map(|_| objects.take().unwrap()).collect();

        objects.give_back(numbers[130]);
        objects.give_back(numbers[64]);
        assert_eq!(objects.take().unwrap().id, 64);
        assert_eq!(objects.take().unwrap().id, 130);
        assert_eq!(objects.take(), None);
    }

    #[test]
    fn a_reset_takes_all_objects() {
        let mut objects = some(2);
        let old = objects.take().unwrap();

        objects.reset();
        assert_eq!(objects.most(), 0);
        objects.allow(2);
        assert_eq!(objects.take().unwrap().id, 0);
        objects.give_back(old);
        assert_eq!(
            objects.take().unwrap().id,
            1,
            "the old one is none of these"
        );
    }

    #[test]
    fn numbers_that_were_never_given() {
        let mut objects = some(1);

        objects.give_back(objects.number(0));
        objects.give_back(objects.number(255));
        objects.give_back(objects.number(1 << 20));
        assert_eq!(objects.take().unwrap().id, 0);
    }
}
