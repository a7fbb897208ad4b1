// SPDX-License-Identifier: GPL-2.0

//! The order of accesses to shared memory, by loom: driver and device of a ring of two descriptors
//! run in every order that the C11 memory model allows, with fences for barriers.
//!
//! Flags and indices are relaxed atomics. All else is plain memory, and a test fails when one side
//! writes there while the other may read.

#[path = "order/packed.rs"]
mod packed;
#[path = "order/ring.rs"]
mod ring;
#[path = "order/split.rs"]
mod split;

use self::{
    packed::PackedRing,
    ring::{
        Ring,
        LEN, //
    },
    split::SplitRing, //
};
use crate::{
    driver::number,
    ring::suppression::Suppression, //
};

use loom::{
    sync::{
        atomic::{
            fence,
            Ordering::SeqCst, //
        },
        Arc, //
    },
    thread, //
};

/// What either side sees of the other's buffers is complete, also where it stands in the place of
/// an earlier one.
fn exchange<R: Ring>() {
    loom::model(|| {
        let ring = Arc::new(R::new());
        let shared = ring.clone();
        let device = thread::spawn(move || {
            let mut number = 0;
            for _look in 0..3 {
                if let Some(id) = shared.device_take(number) {
                    shared.device_use(number, id);
                    number += 1;
                }
            }
        });
        let (mut state, suppression) = (R::state(), R::suppression(false));
        ring.add(&mut state, 0);
        ring.add(&mut state, 1);
        let mut taken = 0;
        for _look in 0..2 {
            if let Some(used) = ring.get(&mut state, &suppression) {
                assert_eq!((number(&used), used.len), (taken.into(), LEN));
                ring.add(&mut state, taken + 2);
                taken += 1;
            }
        }
        device.join().unwrap();
    });
}

/// A device that wants to be notified, then looks again, hears of a buffer or sees it.
fn notification<R: Ring>() {
    for event in [false, true] {
        loom::model(move || {
            let ring = Arc::new(R::new());
            let shared = ring.clone();
            let device = thread::spawn(move || {
                shared.device_want(0, event);
                fence(SeqCst);
                shared.device_take(0).is_some()
            });
            let mut state = R::state();
            ring.add(&mut state, 0);
            let notified = ring.kick_prepare(&mut state, event);
            assert!(device.join().unwrap() || notified);
        });
    }
}

/// The device uses a buffer while the driver does `wait`, which tells whether it will wait for the
/// device's notification. Then there is one.
fn callback<R: Ring>(event: bool, wait: fn(&R, &mut R::State, &Suppression) -> bool) {
    loom::model(move || {
        let ring = Arc::new(R::new());
        let (mut state, suppression) = (R::state(), R::suppression(event));
        ring.disable(&suppression);
        ring.add(&mut state, 0);
        let shared = ring.clone();
        let device = thread::spawn(move || {
            let id = shared.device_take(0).unwrap();
            shared.device_use(0, id);
            fence(SeqCst);
            shared.driver_wants(0, event)
        });
        let waits = wait(&ring, &mut state, &suppression);
        assert!(device.join().unwrap() || !waits);
    });
}

/// As [`callback`], for a driver that takes one buffer and finds that there is no other.
fn callback_after_one<R: Ring>() {
    loom::model(|| {
        let ring = Arc::new(R::new());
        let (mut state, suppression) = (R::state(), R::suppression(true));
        ring.disable(&suppression);
        assert!(ring.enable(&suppression));
        for number in [0, 1] {
            ring.add(&mut state, number);
        }
        let first = ring.device_take(0).unwrap();
        ring.device_use(0, first);
        let shared = ring.clone();
        let device = thread::spawn(move || {
            let id = shared.device_take(1).unwrap();
            shared.device_use(1, id);
            fence(SeqCst);
            shared.driver_wants(1, true)
        });
        assert!(ring.get(&mut state, &suppression).is_some());
        let waits = !ring.more(&state);
        assert!(device.join().unwrap() || !waits);
    });
}

fn callbacks<R: Ring>() {
    for event in [false, true] {
        callback::<R>(event, |ring, _, suppression| ring.enable(suppression));
        callback::<R>(event, |ring, state, suppression| {
            ring.enable_delayed(state, suppression)
        });
    }
    callback_after_one::<R>();
}

#[test]
fn exchange_split() {
    exchange::<SplitRing>();
}

#[test]
fn exchange_packed() {
    exchange::<PackedRing>();
}

#[test]
fn notification_split() {
    notification::<SplitRing>();
}

#[test]
fn notification_packed() {
    notification::<PackedRing>();
}

#[test]
fn callback_split() {
    callbacks::<SplitRing>();
}

#[test]
fn callback_packed() {
    callbacks::<PackedRing>();
}
