// SPDX-License-Identifier: GPL-2.0

//! Devices that lie: the driver refuses what cannot be, and nothing comes back that should not.

use crate::{
    driver::{
        number,
        Parts,
        Random,
        Rig, //
    },
    packed::PackedRig,
    ring::{
        event::Place,
        layout::desc,
        state::Fault, //
    },
    split::SplitRig, //
};

const ORDERS: [bool; 2] = [false, true];

fn one() -> Parts {
    Parts::new(&[(0x1000, 64, true)])
}

fn three() -> Parts {
    Parts::new(&[(0x1000, 16, false), (0x2000, 64, true), (0x3000, 1, true)])
}

/// DEV-1: an id beyond the end of the queue.
fn id_out_of_range<R: Rig>(ids: &[u32]) {
    for in_order in ORDERS {
        for &id in ids {
            let mut rig = R::new(8, in_order, true);
            rig.add(&three(), 1, |_| ()).unwrap();
            rig.device_lie(id, 1);
            assert_eq!(rig.get().unwrap_err(), Fault::OutOfRange(id));
            assert_eq!(rig.free(), 5);
        }
    }
}

#[test]
fn dev_1() {
    id_out_of_range::<SplitRig>(&[8, 9, 0xffff, 0x1_0000, 0x1_0001, u32::MAX]);
    id_out_of_range::<PackedRig>(&[8, 9, 0x7fff, 0xffff]);
}

/// DEV-2: an id that was never issued, one in the middle of a chain, one that has come back.
fn id_not_outstanding<R: Rig>() {
    for in_order in ORDERS {
        for id in [1, 2, 3, 7] {
            let mut rig = R::new(8, in_order, true);
            rig.add(&three(), 1, |_| ()).unwrap();
            rig.device_lie(id, 1);
            assert_eq!(rig.get().unwrap_err(), Fault::NotHead(id));
            assert_eq!(rig.free(), 5);
        }
        let mut rig = R::new(8, in_order, true);
        rig.add(&one(), 1, |_| ()).unwrap();
        rig.add(&one(), 2, |_| ()).unwrap();
        let seen = rig.device_take().unwrap();
        let again = u32::from(seen.id);
        rig.device_use(&[seen], 1);
        assert_eq!(number(&rig.get().unwrap().unwrap()), 1);
        rig.device_lie(again, 1);
        assert_eq!(rig.get().unwrap_err(), Fault::NotHead(again));
        assert_eq!(rig.free(), 7);
    }
}

#[test]
fn dev_2() {
    id_not_outstanding::<SplitRig>();
    id_not_outstanding::<PackedRig>();
}

/// DEV-3: more bytes than the device was allowed to write.
fn length_too_large<R: Rig>() {
    for in_order in ORDERS {
        for (parts, limit) in [(three(), 65), (Parts::new(&[(1, 512, false)]), 0)] {
            let mut rig = R::new(8, in_order, false);
            rig.add(&parts, 1, |_| ()).unwrap();
            let seen = rig.device_take().unwrap();
            rig.device_use(&[seen], u32::MAX);
            assert_eq!(rig.get().unwrap().unwrap().len, limit);
        }
    }
}

#[test]
fn dev_3() {
    length_too_large::<SplitRig>();
    length_too_large::<PackedRig>();
}

/// DEV-4: a used index that is not within what is outstanding, at every edge of the counter.
#[test]
fn dev_4() {
    for in_order in ORDERS {
        for start in [0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff] {
            for jump in [3, 9, 30_000, 0x7fff, 0x8000, 0xffff] {
                let mut rig = SplitRig::new(8, in_order, true);
                rig.run_up(start);
                rig.add(&one(), 1, |_| ()).unwrap();
                rig.add(&one(), 2, |_| ()).unwrap();
                let index = start.wrapping_add(jump);
                rig.ram.used_index.set(index);
                assert_eq!(rig.get().unwrap_err(), Fault::Index(index));
                assert_eq!(rig.free(), 6);
            }
        }
    }
}

/// DEV-5: used flags on a descriptor that was never made available, or of the wrong lap.
#[test]
fn dev_5() {
    for in_order in ORDERS {
        let mut rig = PackedRig::new(4, in_order, true);
        rig.device_lie(0, 1);
        assert_eq!(rig.get().unwrap_err(), Fault::NotHead(0));

        let mut rig = PackedRig::new(4, in_order, true);
        rig.add(&one(), 1, |_| ()).unwrap();
        for flags in [0, desc::AVAIL, desc::USED] {
            rig.ram.ring.borrow_mut()[0].flags = flags;
            assert!(rig.get().unwrap().is_none());
        }
    }
}

/// DEV-6: the device writes all over the ring; what the driver knows does not change.
fn scribble<R: Rig>() {
    for in_order in ORDERS {
        let mut rig = R::new(8, in_order, false);
        for token in 0..2 {
            rig.add(&three(), token, |_| ()).unwrap();
        }
        let first = rig.device_take().unwrap();
        let second = rig.device_take().unwrap();
        rig.device_scribble(0xdead_beef_0000_0003);
        rig.device_use(&[first], 5);
        let used = rig.get().unwrap().unwrap();
        assert_eq!((number(&used), used.len, used.slot.count), (0, 5, 3));
        let mappings = rig.mappings(&used);
        assert_eq!(mappings.iter().map(|one| one.addr).max(), Some(0x3000));
        rig.device_use(&[second], 65);
        assert_eq!(number(&rig.get().unwrap().unwrap()), 1);
        assert_eq!(rig.free(), 8);
        rig.add(&three(), 2, |_| ()).unwrap();
        rig.device_scribble(0x7);
        assert_eq!(number(&rig.detach().unwrap()), 2);
        assert!(rig.detach().is_none());
        assert_eq!(rig.free(), 8);
    }
}

#[test]
fn dev_6() {
    scribble::<SplitRig>();
    scribble::<PackedRig>();
}

/// DEV-26: nothing is used before anything was added, nor after a reset.
#[test]
fn dev_26() {
    fn check<R: Rig>() {
        for in_order in ORDERS {
            let mut rig = R::new(8, in_order, true);
            assert!(!rig.more_used() && rig.get().unwrap().is_none());
            rig.add(&three(), 1, |_| ()).unwrap();
            assert!(!rig.more_used() && rig.get().unwrap().is_none());
            while rig.detach().is_some() {}
            rig.reset();
            assert!(!rig.more_used() && rig.get().unwrap().is_none());
        }
    }
    check::<SplitRig>();
    check::<PackedRig>();
}

/// DEV-28: whatever the suppression fields say, there is an answer.
#[test]
fn dev_28() {
    let mut random = Random::new(28);
    for _ in 0..10_000 {
        let mut split = SplitRig::new(4, false, true);
        split.add(&one(), 1, |_| ()).unwrap();
        let event = random.next() as u16;
        split.ram.avail_event.set(event);
        assert_eq!(split.kick_prepare(), event == 0);

        let mut packed = PackedRig::new(4, false, true);
        packed.add(&one(), 1, |_| ()).unwrap();
        let (place, flags) = (random.next() as u16, random.next() as u16 & 3);
        packed.ram.device.set((Place::from_bits(place), flags));
        let due = match flags {
            1 => false,
            2 => place == 1 << 15,
            _ => true,
        };
        assert_eq!(packed.kick_prepare(), due, "{place:#x} {flags}");
    }
}

/// An in-order batch that ends with a buffer that is not outstanding completes none.
#[test]
fn batch_with_a_bogus_end() {
    fn check<R: Rig>() {
        let mut rig = R::new(8, true, false);
        for token in 0..4 {
            rig.add(&one(), token, |_| ()).unwrap();
        }
        rig.device_lie(6, 1);
        assert_eq!(rig.get().unwrap_err(), Fault::NotHead(6));
        assert_eq!(rig.free(), 4);
    }
    check::<SplitRig>();
    check::<PackedRig>();
}

/// A reset in the middle of an in-order batch leaves nothing behind.
#[test]
fn reset_with_an_open_batch() {
    fn check<R: Rig>() {
        let mut rig = R::new(8, true, false);
        for token in 0..4 {
            rig.add(&one(), token, |_| ()).unwrap();
        }
        let batch: Vec<_> = (0..4).map(|_| rig.device_take().unwrap()).collect();
        rig.device_use(&batch, 1);
        assert_eq!(number(&rig.get().unwrap().unwrap()), 0);
        while rig.detach().is_some() {}
        rig.reset();
        rig.add(&one(), 9, |_| ()).unwrap();
        assert!(!rig.more_used() && rig.get().unwrap().is_none());
        let seen = rig.device_take().unwrap();
        rig.device_use(&[seen], 1);
        assert_eq!(number(&rig.get().unwrap().unwrap()), 9);
    }
    check::<SplitRig>();
    check::<PackedRig>();
}

/// A used index that ends in the middle of an in-order batch: the rest of it does not come back.
#[test]
fn batch_longer_than_the_index_says() {
    let mut rig = SplitRig::new(8, true, false);
    for token in 0..4 {
        rig.add(&one(), token, |_| ()).unwrap();
    }
    rig.device_lie(3, 1);
    assert_eq!(number(&rig.get().unwrap().unwrap()), 0);
    assert_eq!(rig.get().unwrap_err(), Fault::Index(1));
}

/// Whatever a device writes, no buffer comes back twice and no slot is lost.
#[test]
fn random_lies() {
    fn check<R: Rig>(seed: u64) {
        let mut random = Random::new(seed);
        let mut rig = R::new(16, random.chance(2), random.chance(2));
        let mut outstanding = std::collections::HashSet::new();
        for token in 0..500 {
            if rig.free() >= 3 && rig.add(&three(), token, |_| ()).is_ok() {
                outstanding.insert(token);
            }
            match random.below(3) {
                0 => rig.device_lie(random.below(20) as u32, random.next() as u32),
                1 => rig.device_scribble(random.next()),
                _ => (),
            }
            while let Ok(Some(used)) = rig.get() {
                assert!(outstanding.remove(&number(&used)));
            }
            assert_eq!(usize::from(rig.free()), 16 - 3 * outstanding.len());
        }
    }
    for seed in 0..200 {
        check::<SplitRig>(seed);
        check::<PackedRig>(seed);
    }
}
