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
    /// A block of two to the given power of pages, if need be made by compaction.
    Block { order: u32, compact: bool },
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
            _ => Rung::Block {
                order,
                compact: false,
            },
        }
    }

    /// What to ask for if no more than `max` pages are wanted, which is not 0.
    ///
    /// A block that is smaller than its rung says is never worth compaction.
    pub(crate) fn rung(&self, max: usize) -> Rung {
        let largest = max.max(1).ilog2();

        match self.rung {
            Rung::Block { order, .. } if largest < order => Self::top_rung(largest),
            rung => rung,
        }
    }

    /// Says that `pages` pages were got by asking for `rung`.
    pub(crate) fn got(&mut self, rung: Rung, pages: usize) {
        self.below = match rung {
            Rung::Block { order, .. } if order == self.top => 0,
            _ => self.below + pages,
        };
        if self.below >= CLIMB_AFTER {
            *self = Self::new(self.top);
        }
    }

    /// Says that there was nothing to get by asking for `rung`; tells whether there is a lower one.
    pub(crate) fn step_down(&mut self, rung: Rung) -> bool {
        self.rung = match rung {
            Rung::Block {
                order,
                compact: false,
            } if order == self.top => Rung::Block {
                order,
                compact: true,
            },
            Rung::Block { order, .. } => Self::top_rung(order - 1),
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

    fn block(order: u32) -> Rung {
        Rung::Block {
            order,
            compact: false,
        }
    }

    #[test]
    fn goes_down_rung_by_rung_and_starts_again() {
        let mut ladder = Ladder::new(3);
        let compact = Rung::Block {
            order: 3,
            compact: true,
        };

        for rung in [block(3), compact, block(2), block(1)] {
            assert_eq!(ladder.rung(100), rung);
            assert!(ladder.step_down(rung));
        }
        assert_eq!(ladder.rung(100), Rung::Singles);
        assert!(!ladder.step_down(Rung::Singles));
        assert_eq!(ladder.rung(100), block(3));
    }

    #[test]
    fn never_asks_for_more_than_wanted() {
        for top in 0..=10 {
            for max in 1..3000 {
                match Ladder::new(top).rung(max) {
                    Rung::Block { order, compact } => assert!(1 << order <= max && !compact),
                    Rung::Singles => assert!(top == 0 || max == 1),
                }
            }
        }
    }

    #[test]
    fn a_small_need_does_not_leave_the_top() {
        let mut ladder = Ladder::new(9);

        let rung = ladder.rung(100);
        ladder.got(rung, 64);
        assert_eq!(ladder.rung(1000), block(9));
    }

    #[test]
    fn climbs_after_a_while() {
        let mut ladder = Ladder::new(1);

        ladder.step_down(block(1));
        let rung = ladder.rung(9);
        ladder.step_down(rung);
        ladder.got(Rung::Singles, CLIMB_AFTER - 1);
        assert_eq!(ladder.rung(9), Rung::Singles);
        ladder.got(Rung::Singles, 1);
        assert_eq!(ladder.rung(9), block(1));
    }

    #[test]
    fn stays_where_there_is_something_to_get() {
        let mut ladder = Ladder::new(2);
        let top = block(2);

        ladder.step_down(top);
        for _ in 0..CLIMB_AFTER {
            let rung = ladder.rung(9);

            assert!(rung != top);
            ladder.got(rung, 4);
        }
    }
}
