// SPDX-License-Identifier: GPL-2.0

//! Index arithmetic: when a notification is due, and positions in a packed ring.
//!
//! Uses only `core`; every operation wraps as the 16-bit counters of the specification do.

#![deny(unsafe_code)]

/// Tells whether a counter that went from `old` to `new` has passed `event` (Virtio 1.4, 2.7.10).
///
/// Meant to be true when `event` is one of `old`, …, `new - 1`.
#[inline(always)]
pub(crate) fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// A place in a packed ring: the index in bits 0 to 14, the wrap counter in bit 15, as `off_wrap`
/// of the event suppression structures has them (Virtio 1.4, 2.8.14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(u16);

impl Place {
    const WRAP: u16 = 1 << 15;

    /// Where both sides begin: index 0, wrap counter 1.
    pub(crate) const START: Self = Self(Self::WRAP);

    /// Takes it as it stands in `off_wrap`.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// As it stands in `off_wrap`.
    #[inline(always)]
    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// The index, below 32768.
    #[inline(always)]
    pub(crate) const fn index(self) -> u16 {
        self.0 & !Self::WRAP
    }

    /// The wrap counter.
    #[inline(always)]
    pub(crate) const fn wrap(self) -> bool {
        self.0 & Self::WRAP != 0
    }

    /// The place `count` descriptors on in a ring of `size`; `count` is at most `size`.
    #[inline(always)]
    pub(crate) const fn advance(self, count: u16, size: u16) -> Self {
        let index = self.index().wrapping_add(count);
        if index >= size {
            Self((index.wrapping_sub(size) & !Self::WRAP) | (!self.0 & Self::WRAP))
        } else {
            Self(index | (self.0 & Self::WRAP))
        }
    }

    /// The index as it counts from the lap whose wrap counter is `wrap`: an event of the lap before
    /// lies `size` below.
    #[inline(always)]
    pub(crate) const fn event(self, wrap: bool, size: u16) -> u16 {
        if self.wrap() == wrap {
            self.index()
        } else {
            self.index().wrapping_sub(size)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_at_the_edges() {
        for old in [0u16, 1, 0x7fff, 0x8000, 0xfffe, 0xffff] {
            for count in [0u16, 1, 2, 255, 256, 0x7fff] {
                let new = old.wrapping_add(count);
                for back in [0u16, 1, 2, 300, 0x8000] {
                    let event = new.wrapping_sub(back);
                    let due = back >= 1 && back <= count;
                    assert_eq!(need_event(event, new, old), due, "{event} {new} {old}");
                }
            }
        }
    }

    #[test]
    fn places_wrap_at_the_size() {
        for size in [1u16, 2, 3, 7, 256, 0x7fff, 0x8000] {
            let mut place = Place::START;
            for step in 0..u32::from(size) * 2 {
                assert_eq!(u32::from(place.index()), step % u32::from(size));
                assert_eq!(place.wrap(), step < u32::from(size));
                place = place.advance(1, size);
            }
            assert_eq!(place, Place::START);
            assert_eq!(place.advance(size, size).advance(size, size), place);
        }
    }

    #[test]
    fn an_event_of_the_last_lap_lies_below() {
        let place = Place::from_bits(5);
        assert_eq!(place.event(false, 16), 5);
        assert_eq!(place.event(true, 16), 5u16.wrapping_sub(16));
        assert_eq!(Place::from_bits(0xffff).event(true, 16), 0x7fff);
    }
}
