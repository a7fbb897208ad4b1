// SPDX-License-Identifier: GPL-2.0

//! Driver and device against each other, with random buffers, batches, failures and resets: every
//! buffer comes back exactly once, with its length and its mappings.

use crate::{
    driver::{
        number,
        Parts,
        Random,
        Rig,
        Seen, //
    },
    packed::PackedRig,
    ring::state::{
        Mapped,
        Mapping, //
    },
    split::SplitRig, //
};

use std::collections::{
    HashMap,
    VecDeque, //
};

const ROUNDS: usize = 20_000;

/// Where indirect tables are said to be.
const TABLES: u64 = 1 << 40;

/// What the test knows of the buffers it has given away.
struct Books {
    random: Choices,
    next: usize,
    outstanding: HashMap<usize, Parts>,
    /// What the device has taken, in order.
    taken: VecDeque<Seen>,
    /// Lengths that the device has reported, by token; skipped ones have none.
    lengths: HashMap<usize, Option<u32>>,
    in_order: bool,
}

impl Books {
    fn parts(&mut self, most: usize) -> Parts {
        let count = 1 + self.random.below(most);
        let readable = self.random.below(count + 1);
        let parts = (0..count)
            .map(|index| {
                let addr = (self.next as u64) << 16 | index as u64;
                (addr, self.random.below(5000) as u32, index >= readable)
            })
            .collect();
        Parts { parts, fail: None }
    }

    fn add(&mut self, rig: &mut impl Rig) {
        let free = usize::from(rig.free());
        if free == 0 {
            return;
        }
        let token = self.next;
        self.next += 1;
        if self.random.chance(3) {
            let parts = self.parts(40);
            let addr = TABLES + token as u64;
            rig.add_indirect(addr, parts.parts.len() as u32, parts.writable(), token);
            self.outstanding.insert(token, parts);
            assert_eq!(usize::from(rig.free()), free - 1);
            return;
        }
        let mut parts = self.parts(free.min(6));
        if self.random.chance(10) {
            parts.fail = Some(self.random.below(parts.parts.len()));
        }
        let mut undone = Vec::new();
        let added = rig.add(&parts, token, |mapped| undone.push(mapped));
        if let Some(fail) = parts.fail {
            assert_eq!(added, Err(()));
            assert_eq!(undone, mapped(&parts.parts[..fail]));
            assert_eq!(usize::from(rig.free()), free);
        } else {
            assert!(added.is_ok() && undone.is_empty());
            assert_eq!(usize::from(rig.free()), free - parts.parts.len());
            self.outstanding.insert(token, parts);
        }
    }

    fn device(&mut self, rig: &mut impl Rig) {
        while let Some(seen) = rig.device_take() {
            self.check_seen(&seen);
            self.taken.push_back(seen);
            if self.random.chance(3) {
                break;
            }
        }
        while !self.taken.is_empty() && !self.random.chance(4) {
            let batch = self.batch();
            let len = self.random.below(6000) as u32;
            for (left, seen) in batch.iter().rev().enumerate() {
                let token = self.token(seen);
                self.lengths.insert(token, (left == 0).then_some(len));
            }
            rig.device_use(&batch, len);
        }
        if self.random.chance(5) {
            rig.device_want(self.random.chance(2));
        }
    }

    /// What the device uses next: one buffer, any or the oldest; or several of the oldest.
    fn batch(&mut self) -> Vec<Seen> {
        if self.in_order {
            let count = 1 + self.random.below(self.taken.len());
            self.taken.drain(..count).collect()
        } else {
            let index = self.random.below(self.taken.len());
            self.taken.remove(index).into_iter().collect()
        }
    }

    /// The buffer that the device has seen; tokens are told apart by the first address.
    fn token(&self, seen: &Seen) -> usize {
        let (first, _, _) = seen.parts[0];
        if seen.indirect {
            return (first - TABLES) as usize;
        }
        let mut found = self
            .outstanding
            .iter()
            .filter(|(_, parts)| parts.parts[0].0 == first && parts.parts == seen.parts);
        let (&token, _) = found.next().expect("the device sees what is not there");
        token
    }

    fn check_seen(&self, seen: &Seen) {
        let parts = &self.outstanding[&self.token(seen)];
        if seen.indirect {
            assert_eq!(seen.parts[0].1 as usize, parts.parts.len() * 16);
        } else {
            assert_eq!(seen.parts, parts.parts);
        }
    }

    fn get(&mut self, rig: &mut impl Rig) {
        while let Some(used) = rig.get().expect("the device is honest") {
            let token = number(&used);
            let parts = self.outstanding.remove(&token).expect("came back twice");
            let len = self.lengths.remove(&token).expect("was not used");
            let writable = parts.writable();
            assert_eq!(used.len, len.unwrap_or(u32::MAX).min(writable));
            if !used.slot.indirect {
                assert_eq!(rig.mappings(&used), mapped(&parts.parts));
            }
            if self.random.chance(6) {
                return;
            }
        }
        assert!(self.lengths.is_empty(), "used buffers were overlooked");
        assert!(!rig.more_used());
    }

    fn reset(&mut self, rig: &mut impl Rig) {
        while let Some(used) = rig.detach() {
            let token = number(&used);
            self.outstanding.remove(&token).expect("came back twice");
            assert_eq!(used.len, 0);
        }
        assert!(self.outstanding.is_empty());
        assert_eq!(rig.free(), rig.size());
        self.taken.clear();
        self.lengths.clear();
        rig.reset();
    }
}

fn mapped(parts: &[(u64, u32, bool)]) -> Vec<Mapped> {
    parts
        .iter()
        .map(|&(addr, len, writable)| Mapped {
            addr,
            len,
            mapping: if writable {
                Mapping::FromDevice
            } else {
                Mapping::ToDevice
            },
        })
        .collect()
}

/// Where choices come from.
pub enum Choices {
    /// So many rounds, at random.
    Random(Random, usize),
    /// A list, which ends.
    Listed(std::vec::IntoIter<u32>),
}

impl Choices {
    pub fn listed(choices: Vec<u32>) -> Self {
        Self::Listed(choices.into_iter())
    }

    /// Tells whether another round is due.
    fn go_on(&mut self) -> bool {
        match self {
            Self::Random(_, 0) => false,
            Self::Random(_, rounds) => {
                *rounds -= 1;
                true
            }
            Self::Listed(choices) => choices.len() > 0,
        }
    }

    fn next(&mut self) -> u64 {
        match self {
            Self::Random(random, _) => random.next(),
            Self::Listed(choices) => u64::from(choices.next().unwrap_or(0)) << 11,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// Makes a ring do what was chosen.
pub fn play<R: Rig>(size: u16, in_order: bool, event: bool, choices: Choices) {
    let mut rig = R::new(size, in_order, event);
    let mut books = Books {
        random: choices,
        next: 0,
        outstanding: HashMap::new(),
        taken: VecDeque::new(),
        lengths: HashMap::new(),
        in_order,
    };
    while books.random.go_on() {
        match books.random.below(400) {
            0 => books.reset(&mut rig),
            1..=150 => books.add(&mut rig),
            151..=250 => books.device(&mut rig),
            251..=300 => {
                rig.kick_prepare();
            }
            301..=310 => rig.disable_cb(),
            311..=320 => {
                assert_eq!(rig.enable_cb(), books.lengths.is_empty());
            }
            321..=330 => {
                rig.enable_delayed();
            }
            _ => books.get(&mut rig),
        }
    }
    books.reset(&mut rig);
}

fn run<R: Rig>(sizes: &[u16]) {
    for (seed, &size) in sizes.iter().enumerate() {
        for (in_order, event) in [(false, false), (false, true), (true, false), (true, true)] {
            let random = Random::new(seed as u64 + 1);
            play::<R>(size, in_order, event, Choices::Random(random, ROUNDS));
        }
    }
}

#[test]
fn split() {
    run::<SplitRig>(&[1, 2, 4, 8, 16, 64, 256]);
}

#[test]
fn packed() {
    run::<PackedRig>(&[1, 2, 3, 5, 7, 16, 100, 256]);
}

/// Without spurious wakeups a notification is due exactly when the other side has asked for it.
fn notifications<R: Rig>(size: u16) {
    for event in [false, true] {
        let mut rig = R::new(size, false, event);
        let part = Parts::new(&[(1, 1, true)]);
        for lap in 0..usize::from(size) * 3 + 70_000 / usize::from(size) {
            rig.device_want(true);
            rig.add(&part, lap, |_| ()).unwrap();
            assert!(rig.kick_prepare(), "event {event}, lap {lap}");
            rig.device_want(false);
            rig.add(&part, lap, |_| ()).unwrap();
            assert!(!rig.kick_prepare(), "event {event}, lap {lap}");

            assert!(rig.enable_cb());
            let first = rig.device_take().unwrap();
            assert!(rig.device_use(&[first], 1), "event {event}, lap {lap}");
            assert!(rig.more_used());
            rig.disable_cb();
            rig.get().unwrap().unwrap();
            let second = rig.device_take().unwrap();
            assert!(!rig.device_use(&[second], 1), "event {event}, lap {lap}");
            assert!(!rig.enable_cb());
            rig.get().unwrap().unwrap();
        }
    }
}

#[test]
fn notifications_come_when_wanted() {
    notifications::<SplitRig>(2);
    notifications::<SplitRig>(16);
    notifications::<PackedRig>(2);
    notifications::<PackedRig>(5);
    notifications::<PackedRig>(16);
}

/// A delayed notification comes after three quarters of what was outstanding.
#[test]
fn delayed_notifications() {
    fn check<R: Rig>(size: u16) {
        let mut rig = R::new(size, false, true);
        for token in 0..16 {
            rig.add(&Parts::new(&[(1, 1, true)]), token, |_| ())
                .unwrap();
        }
        rig.disable_cb();
        assert!(rig.enable_delayed());
        for done in 1..=16 {
            let seen = rig.device_take().unwrap();
            assert_eq!(rig.device_use(&[seen], 1), done == 13, "{done}");
        }
        assert!(!rig.enable_delayed());
    }
    check::<SplitRig>(16);
    check::<PackedRig>(16);
    check::<PackedRig>(100);
}
