// SPDX-License-Identifier: GPL-2.0

//! How much memory inflation leaves to the guest, whatever the device asks for.
//!
//! Arithmetic only, of pages and milliseconds; uses only `core`, so that it can be tested on a
//! host.

/// What memory inflation may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// What is available (`MemAvailable`): nothing is swapped out for the balloon.
    Available,
    /// What can be swapped out as well, unless the guest then reads it back: see [`Pressure`].
    Pressure,
    /// What can be swapped out as well, whatever becomes of the guest's speed.
    Swap,
}

impl Policy {
    /// All policies, with the names that an administrator gives them.
    const NAMES: [(Self, &'static str); 3] = [
        (Self::Available, "available"),
        (Self::Pressure, "pressure"),
        (Self::Swap, "swap"),
    ];

    /// Finds a policy by its name.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let found = Self::NAMES
            .iter()
            .find(|(_, name)| name.as_bytes() == text)?;

        Some(found.0)
    }

    /// The name of the policy.
    pub(crate) fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(policy, _)| *policy == self);

        found.map_or("", |(_, name)| name)
    }
}

/// Memory that inflation leaves to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Floor {
    /// So many MiB.
    Mib(u32),
    /// So many percent of all memory, the balloon's included.
    Percent(u32),
}

impl Floor {
    /// The least floor: without so much the guest cannot be expected to live.
    const LEAST_MIB: u32 = 16;

    /// The highest floor in MiB: 16 TiB, which is beyond what a device can be told of.
    const MOST_MIB: u32 = 16 << 20;

    /// The highest floor in percent.
    const MOST_PERCENT: u32 = 90;

    /// Reads `<number>` or `<number>M`, both in MiB, or `<number>%`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, for the log.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let (digits, percent) = match text {
            [digits @ .., b'%'] => (digits, true),
            [digits @ .., b'M'] => (digits, false),
            digits => (digits, false),
        };
        let number = parse_number(digits).ok_or("not a number of MiB or, with a %, of percent")?;

        match (number, percent) {
            (0..=Self::MOST_PERCENT, true) => Ok(Self::Percent(number)),
            (_, true) => Err("more than 90 percent"),
            (0..Self::LEAST_MIB, false) => Err("less than 16 MiB"),
            (Self::LEAST_MIB..=Self::MOST_MIB, false) => Ok(Self::Mib(number)),
            (_, false) => Err("more than 16 TiB"),
        }
    }

    /// The number and the unit that [`Self::parse`] reads.
    pub(crate) fn number_and_unit(self) -> (u32, char) {
        match self {
            Self::Mib(number) => (number, 'M'),
            Self::Percent(number) => (number, '%'),
        }
    }

    /// The floor in pages of a guest with `total` pages, never less than [`Self::LEAST_MIB`].
    pub(crate) fn pages(self, total: usize, page_shift: usize) -> usize {
        let mib = |number: u32| (number as usize) << (20 - page_shift); // CAST: From 32 bits.
        let wanted = match self {
            Self::Mib(number) => mib(number),
            Self::Percent(number) => total / 100 * number as usize, // CAST: At most 90.
        };

        wanted.max(mib(Self::LEAST_MIB))
    }
}

/// Reads a decimal number of at most nine digits.
fn parse_number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number * 10 + u32::from(digit - b'0')),
        _ => None,
    })
}

/// What a guest has at present, in pages.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// What can be allocated without swapping.
    pub(crate) available: usize,
    /// Free room in the swap areas.
    pub(crate) swap: usize,
    /// Pages that could be swapped out.
    pub(crate) anonymous: usize,
}

/// Why inflation stops, or what it may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// Take up to so many pages that are available.
    Available(usize),
    /// Take up to so many pages, for which others are swapped out.
    Swap(usize),
    /// Stop: the floor is reached.
    Nothing,
}

/// Decides how many pages inflation may take now from a guest with this memory.
///
/// With swap the floor is kept in what is available and what can still be swapped out, whichever is
/// more: either way the guest can have so much memory without running out of it.
pub(crate) fn room(policy: Policy, floor: usize, memory: Memory) -> Room {
    let spare = memory.available.saturating_sub(floor);
    let swap = memory.swap.min(memory.anonymous).saturating_sub(floor);

    match (spare, swap) {
        (1.., _) => Room::Available(spare),
        (0, 1..) if policy != Policy::Available => Room::Swap(swap),
        _ => Room::Nothing,
    }
}

/// Tells whether a guest misses the memory that was taken from it, by the pages that it reads back
/// soon after they were reclaimed (refaults).
///
/// A few each second are a matter of course, and so are some for each page that is taken.
pub(crate) struct Pressure {
    /// When the present window began, and the number of refaults then.
    begin: Option<(u64, u64)>,
    /// Pages that inflation took in this window.
    taken: u64,
}

impl Pressure {
    /// How long a window is at least, in milliseconds.
    const WINDOW_MS: u64 = 250;

    /// Refaults that are a matter of course: at any time, and in a second.
    const USUAL: (u64, u64) = (32, 64);

    /// How many pages have to be taken for one more refault to be a matter of course.
    const TAKEN_PER_REFAULT: u64 = 64;

    /// One of a guest of which nothing is known.
    pub(crate) const fn new() -> Self {
        Self {
            begin: None,
            taken: 0,
        }
    }

    /// Inflation took so many pages.
    pub(crate) fn note_taken(&mut self, pages: u64) {
        self.taken += pages;
    }

    /// Whether there is pressure at the time `now`, with so many refaults since boot.
    pub(crate) fn is_high(&mut self, now: u64, refaults: u64) -> bool {
        let (since, before) = *self.begin.get_or_insert((now, refaults));
        let passed = now.saturating_sub(since);
        let usual =
            Self::USUAL.0 + Self::USUAL.1 * passed / 1000 + self.taken / Self::TAKEN_PER_REFAULT;

        if passed >= Self::WINDOW_MS {
            self.begin = Some((now, refaults));
            self.taken = 0;
        }
        refaults.saturating_sub(before) > usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 256;

    #[test]
    fn policies_have_names() {
        for (policy, name) in Policy::NAMES {
            assert_eq!(Policy::parse(name.as_bytes()), Some(policy));
            assert_eq!(policy.name(), name);
        }
        for wrong in ["", "Swap", "swap ", "all"] {
            assert_eq!(Policy::parse(wrong.as_bytes()), None);
        }
    }

    #[test]
    fn floors_are_read() {
        assert_eq!(Floor::parse(b"16"), Ok(Floor::Mib(16)));
        assert_eq!(Floor::parse(b"512M"), Ok(Floor::Mib(512)));
        assert_eq!(Floor::parse(b"90%"), Ok(Floor::Percent(90)));
        assert_eq!(Floor::Percent(90).number_and_unit(), (90, '%'));
        assert_eq!(Floor::Mib(512).number_and_unit(), (512, 'M'));
        assert_eq!(Floor::parse(b"0%"), Ok(Floor::Percent(0)));
        for wrong in " M % -1 1G 15 91% 16777217 9999999999 1.5 0x20".split(' ') {
            assert!(Floor::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn floors_are_never_nothing() {
        assert_eq!(Floor::Mib(64).pages(1000 * MIB, 12), 64 * MIB);
        assert_eq!(Floor::Percent(50).pages(1000 * MIB, 12), 500 * MIB);
        assert_eq!(Floor::Percent(0).pages(1000 * MIB, 12), 16 * MIB);
        assert_eq!(Floor::Mib(64).pages(1000, 16), 1024);
    }

    fn memory(available: usize, swap: usize, anonymous: usize) -> Memory {
        Memory {
            available,
            swap,
            anonymous,
        }
    }

    #[test]
    fn takes_what_is_available_first() {
        for (policy, _) in Policy::NAMES {
            assert_eq!(room(policy, 30, memory(31, 900, 900)), Room::Available(1));
            assert_eq!(room(policy, 30, memory(30, 30, 900)), Room::Nothing);
            assert_eq!(room(policy, 30, memory(0, 900, 30)), Room::Nothing);
        }
    }

    #[test]
    fn swaps_out_if_the_policy_says_so() {
        let short = memory(30, 100, 200);

        assert_eq!(room(Policy::Available, 30, short), Room::Nothing);
        assert_eq!(room(Policy::Pressure, 30, short), Room::Swap(70));
        assert_eq!(room(Policy::Swap, 30, short), Room::Swap(70));
    }

    #[test]
    fn a_guest_that_reads_everything_back_is_under_pressure() {
        let mut pressure = Pressure::new();

        assert!(!pressure.is_high(1000, 5000));
        pressure.note_taken(800);
        assert!(!pressure.is_high(1010, 5044));
        assert!(pressure.is_high(1010, 5045));
        // A new window begins with the refaults so far.
        assert!(pressure.is_high(1000 + Pressure::WINDOW_MS, 6000));
        assert!(!pressure.is_high(2000, 6000));
        assert!(!pressure.is_high(7000, 6352));
        assert!(pressure.is_high(12_000, 6352 + 353));
    }
}
