// SPDX-License-Identifier: GPL-2.0

//! Which pages inflation asks the kernel for: large blocks as long as there are any.
//!
//! A large block costs next to nothing per page, lets the host free large pages of its own, and is
//! one large block again when it comes back. When no more are free the kernel is asked to make
//! some, by compaction; then come smaller blocks, and single pages last.
//!
//! Uses only `core`, so that it can be tested on a host.

/// What to ask for next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rung {
    /// A block of two to the given power of pages that is free.
    Block(u32),
    /// One to be made by compaction.
    Compaction(u32),
    /// Pages one by one.
    Singles,
}

/// After how many pages from lower rungs the top is tried again.
const CLIMB_AFTER: usize = 8192;

/// The place of one balloon on the ladder.
pub(crate) struct Ladder {
    /// Order of the blocks on the top rung, not 0.
    top: u32,
    rung: Rung,
    /// Pages taken since the top rung was left.
    below: usize,
}

impl Ladder {
    /// A ladder from blocks of `1 << top` pages down to single ones.
    pub(crate) fn new(top: u32) -> Self {
        Self {
            top,
            rung: Self::top_rung(top),
            below: 0,
        }
    }

    /// The first rung.
    fn top_rung(order: u32) -> Rung {
        match order {
            0 => Rung::Singles,
            _ => Rung::Block(order),
        }
    }

    /// What to ask for if no more than `max` pages are wanted, which is not 0.
    ///
    /// A block that is smaller than its rung says is never worth compaction.
    pub(crate) fn rung(&self, max: usize) -> Rung {
        let largest = max.max(1).ilog2();

        match self.rung {
            Rung::Block(order) | Rung::Compaction(order) if largest < order => {
                Self::top_rung(largest)
            }
            rung => rung,
        }
    }

    /// Says that `pages` pages were got by asking for `rung`.
    pub(crate) fn got(&mut self, rung: Rung, pages: usize) {
        self.below = match rung {
            Rung::Block(order) | Rung::Compaction(order) if order == self.top => 0,
            _ => self.below + pages,
        };
        if self.below >= CLIMB_AFTER {
            *self = Self::new(self.top);
        }
    }

    /// Says that there was nothing to get by asking for `rung`, and whether compaction is to be
    /// asked for now; tells whether there is a lower rung.
    pub(crate) fn step_down(&mut self, rung: Rung, compaction: bool) -> bool {
        self.rung = match rung {
            Rung::Block(order) if order == self.top && compaction => Rung::Compaction(order),
            Rung::Block(order) | Rung::Compaction(order) => Self::top_rung(order - 1),
            Rung::Singles => {
                *self = Self::new(self.top);
                return false;
            }
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_down_rung_by_rung_and_starts_again() {
        for compaction in [true, false] {
            let mut ladder = Ladder::new(3);

            for rung in [
                Rung::Block(3),
                Rung::Compaction(3),
                Rung::Block(2),
                Rung::Block(1),
            ] {
                if rung != Rung::Compaction(3) || compaction {
                    assert_eq!(ladder.rung(100), rung);
                    assert!(ladder.step_down(rung, compaction));
                }
            }
            assert_eq!(ladder.rung(100), Rung::Singles);
            assert!(!ladder.step_down(Rung::Singles, compaction));
            assert_eq!(ladder.rung(100), Rung::Block(3));
        }
    }

    #[test]
    fn never_asks_for_more_than_wanted() {
        for top in 0..=10 {
            for max in 1..3000 {
                match Ladder::new(top).rung(max) {
                    Rung::Block(order) => assert!(1 << order <= max),
                    Rung::Compaction(_) => panic!("before what is free"),
                    Rung::Singles => assert!(top == 0 || max == 1),
                }
            }
        }
    }

    #[test]
    fn a_small_need_is_not_worth_compaction() {
        let mut ladder = Ladder::new(9);

        ladder.step_down(Rung::Block(9), true);
        assert_eq!(ladder.rung(512), Rung::Compaction(9));
        assert_eq!(ladder.rung(511), Rung::Block(8));
    }

    #[test]
    fn a_small_need_does_not_leave_the_top() {
        let mut ladder = Ladder::new(9);

        let rung = ladder.rung(100);
        ladder.got(rung, 64);
        assert_eq!(ladder.rung(1000), Rung::Block(9));
    }

    #[test]
    fn climbs_after_a_while() {
        let mut ladder = Ladder::new(1);

        ladder.step_down(Rung::Block(1), true);
        let rung = ladder.rung(9);
        ladder.step_down(rung, true);
        ladder.got(Rung::Singles, CLIMB_AFTER - 1);
        assert_eq!(ladder.rung(9), Rung::Singles);
        ladder.got(Rung::Singles, 1);
        assert_eq!(ladder.rung(9), Rung::Block(1));
    }

    #[test]
    fn stays_where_there_is_something_to_get() {
        let mut ladder = Ladder::new(2);
        let top = Rung::Block(2);

        ladder.step_down(top, true);
        for _ in 0..CLIMB_AFTER {
            let rung = ladder.rung(9);

            assert!(rung != top);
            ladder.got(rung, 4);
        }
    }
}
