// SPDX-License-Identifier: GPL-2.0

//! How the balloon makes way when the system runs out of memory, and how soon it may grow again.
//!
//! Arithmetic only, of pages and milliseconds; uses only `core`, so that it can be tested on a
//! host.

/// Least and most time between the last shortage and the next growth, in milliseconds.
const DELAY_MS: (u64, u64) = (2_000, 300_000);

/// How many delays without a shortage count as calm.
const CALM: u64 = 4;

/// A cap on the size of the balloon, from a shortage of memory until some time after it.
///
/// A shortage that comes soon after the balloon was allowed to grow again was brought about by that
/// growth: then the next delay is twice as long. Calm halves it.
#[derive(Debug)]
pub(crate) struct Restraint {
    /// Pages to give up at the first and at most at any further shortage of an episode.
    steps: (usize, usize),
    /// The most pages that the balloon may have.
    cap: Option<usize>,
    /// Pages to give up next.
    step: usize,
    /// Present time between shortage and growth.
    delay: u64,
    /// When the cap is lifted.
    until: u64,
    /// When a cap was last lifted.
    lifted: Option<u64>,
}

impl Restraint {
    /// Makes one without a cap, for steps of so many pages.
    pub(crate) const fn new(first_step: usize, last_step: usize) -> Self {
        Self {
            steps: (first_step, last_step),
            cap: None,
            step: first_step,
            delay: DELAY_MS.0,
            until: 0,
            lifted: None,
        }
    }

    /// Memory is short at the time `now`, with `held` pages in the balloon. Returns how many of
    /// them it has to give up.
    pub(crate) fn tighten(&mut self, now: u64, held: usize) -> usize {
        match self.cap {
            Some(_) => self.step = (self.step * 2).min(self.steps.1),
            None => {
                self.step = self.steps.0;
                self.delay = self.next_delay(now);
            }
        }
        let cap = self.cap.unwrap_or(held).min(held).saturating_sub(self.step);

        self.cap = Some(cap);
        self.until = now + self.delay;
        held - cap
    }

    /// The most pages that the balloon may have at the time `now`.
    pub(crate) fn cap(&mut self, now: u64) -> usize {
        if self.cap.is_some() && now >= self.until {
            self.cap = None;
            self.lifted = Some(now);
        }
        self.cap.unwrap_or(usize::MAX)
    }

    /// Milliseconds until the cap is lifted, if there is one.
    pub(crate) fn left(&self, now: u64) -> Option<u64> {
        self.cap.map(|_| self.until.saturating_sub(now))
    }

    /// The delay for an episode that begins at the time `now`.
    fn next_delay(&self, now: u64) -> u64 {
        let Some(lifted) = self.lifted else {
            return DELAY_MS.0;
        };
        let mut calm = now.saturating_sub(lifted);
        let mut delay = self.delay;

        if calm < CALM * delay {
            return (delay * 2).min(DELAY_MS.1);
        }
        while delay > DELAY_MS.0 && calm >= CALM * delay {
            calm -= CALM * delay;
            delay /= 2;
        }
        delay.max(DELAY_MS.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One episode: a shortage at `now`, and the cap is lifted as soon as it may be. Returns the
    /// delay.
    fn episode(restraint: &mut Restraint, now: u64) -> u64 {
        assert_eq!(restraint.tighten(now, 1000), 16);
        let left = restraint.left(now).unwrap();
        assert_eq!(restraint.cap(now + left - 1), 984);
        assert_eq!(restraint.cap(now + left), usize::MAX);
        assert_eq!(restraint.left(now + left), None);
        left
    }

    #[test]
    fn steps_grow_within_an_episode() {
        let mut restraint = Restraint::new(16, 100);

        let given: [usize; 5] = core::array::from_fn(|_| restraint.tighten(5, 1000));
        assert_eq!(given, [16, 48, 112, 212, 312]);
        assert_eq!(restraint.left(5), Some(DELAY_MS.0));
        assert_eq!(restraint.cap(6), 688);
        assert_eq!(restraint.tighten(7, 30), 30);
        assert_eq!(restraint.tighten(8, 0), 0);
        assert_eq!(restraint.cap(9), 0);
    }

    #[test]
    fn delay_grows_with_each_relapse_and_shrinks_in_calm() {
        let mut restraint = Restraint::new(16, 100);
        let mut now = 0;
        let mut delays = [0; 10];

        for delay in &mut delays {
            *delay = episode(&mut restraint, now);
            now += *delay + 1;
        }
        assert_eq!(delays[..3], [2_000, 4_000, 8_000]);
        assert_eq!(delays[9], DELAY_MS.1);

        now += CALM * DELAY_MS.1;
        assert_eq!(episode(&mut restraint, now), DELAY_MS.1 / 2);
        now += 100 * DELAY_MS.1;
        assert_eq!(episode(&mut restraint, now), DELAY_MS.0);
    }
}
