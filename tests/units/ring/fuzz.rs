// SPDX-License-Identifier: GPL-2.0

//! A hostile device whose writes are the input: whatever they are, no buffer comes back twice, none
//! is lost, no slot is, and after a reset everything works.
//!
//! The tests feed it with random bytes, and `tests/test_units.py` with those that libFuzzer finds,
//! which looks for bytes that reach new code.

use crate::{
    driver::{
        number,
        Parts,
        Random,
        Rig, //
    },
    packed::PackedRig,
    split::SplitRig, //
};

use std::collections::HashMap;

/// The entry point of libFuzzer.
#[cfg(fuzzing)]
#[no_mangle]
pub extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> i32 {
    // SAFETY: libFuzzer gives so many bytes.
    drive(unsafe { std::slice::from_raw_parts(data, size) });
    0
}

/// Bytes as a program: what driver and device do, one after the other.
struct Input<'a>(std::slice::Iter<'a, u8>);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.0.next().copied()
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn long(&mut self) -> Option<u64> {
        let low = u64::from(self.word()?);
        Some(low | u64::from(self.word()?) << 16)
    }
}

/// Runs the program: its first bytes choose the ring.
pub fn drive(data: &[u8]) {
    let mut input = Input(data.iter());
    let Some((kind, size)) = input.byte().zip(input.byte()) else {
        return;
    };
    let (in_order, event) = (kind & 2 != 0, kind & 4 != 0);
    if kind & 1 == 0 {
        let rig = SplitRig::new(1 << (size % 6), in_order, event);
        Run::new(rig).all(&mut input);
    } else {
        let rig = PackedRig::new(1 + u16::from(size % 40), in_order, event);
        Run::new(rig).all(&mut input);
    }
}

/// A driver at the mercy of its device.
struct Run<R> {
    rig: R,
    next: usize,
    /// How many slots and writable bytes each buffer has that is outstanding.
    outstanding: HashMap<usize, (usize, u32)>,
    broken: bool,
}

impl<R: Rig> Run<R> {
    fn new(rig: R) -> Self {
        Self {
            rig,
            next: 0,
            outstanding: HashMap::new(),
            broken: false,
        }
    }

    fn all(&mut self, input: &mut Input<'_>) {
        while self.step(input).is_some() {
            self.check_slots();
        }
        self.reset();
    }

    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.byte()? % 16 {
            0..=2 => self.add(usize::from(input.byte()?)),
            3 => self.add_table(input.byte()?.into()),
            4..=8 => self.rig.device_write(input.word()?, input.long()?),
            9 => self.use_next(input.word()?.into()),
            10 => {
                self.rig.kick_prepare();
            }
            11 => {
                self.rig.disable_cb();
                self.rig.enable_cb();
                self.rig.enable_delayed();
            }
            12 if input.byte()? % 16 == 0 => self.reset(),
            _ => self.get(),
        }
        Some(())
    }

    fn add(&mut self, choice: usize) {
        let free = usize::from(self.rig.free()).min(8);
        if free == 0 || self.broken {
            return;
        }
        let count = 1 + choice % free;
        let parts: Vec<_> = (0..count)
            .map(|index| (index as u64 * 4096, 100, index * 2 >= choice % 8))
            .collect();
        let mut parts = Parts::new(&parts);
        parts.fail = (choice > 240).then_some(count - 1);
        if self.rig.add(&parts, self.next, |_| ()).is_ok() {
            let known = (count, parts.writable());
            self.outstanding.insert(self.next, known);
        }
        self.next += 1;
    }

    fn add_table(&mut self, writable: u32) {
        if self.rig.free() != 0 && !self.broken {
            self.rig.add_indirect(1 << 40, 3, writable, self.next);
            self.outstanding.insert(self.next, (1, writable));
            self.next += 1;
        }
    }

    /// The device does for once what it should, if it still can.
    fn use_next(&mut self, len: u32) {
        if self.outstanding.is_empty() || self.broken {
            return;
        }
        self.rig.device_use_next(len);
    }

    fn get(&mut self) {
        if self.broken {
            return;
        }
        match self.rig.get() {
            Ok(Some(used)) => {
                let known = self.outstanding.remove(&number(&used));
                let (slots, writable) = known.expect("came back twice, or was never added");
                assert_eq!(usize::from(used.slot.count), slots);
                assert!(used.len <= writable);
            }
            Ok(None) => (),
            Err(_) => self.broken = true,
        }
    }

    fn check_slots(&self) {
        let taken: usize = self.outstanding.values().map(|(slots, _)| slots).sum();
        let all = usize::from(self.rig.size());
        assert_eq!(usize::from(self.rig.free()), all - taken, "slots were lost");
    }

    fn reset(&mut self) {
        while let Some(used) = self.rig.detach() {
            let known = self.outstanding.remove(&number(&used));
            assert!(known.is_some(), "came back twice, or was never added");
        }
        assert!(self.outstanding.is_empty(), "a buffer is lost");
        self.rig.reset();
        self.broken = false;
        let part = Parts::new(&[(1, 2, true)]);
        self.rig.add(&part, self.next, |_| ()).unwrap();
        let seen = self.rig.device_take().expect("is available");
        self.rig.device_use(&[seen], 1);
        let used = self.rig.get().unwrap().expect("was used");
        assert_eq!((number(&used), used.len), (self.next, 1));
        self.next += 1;
    }
}

#[test]
fn hostile_writes() {
    for seed in 0..4000 {
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = (0..600).map(|_| (random.next() >> 32) as u8).collect();
        drive(&bytes);
    }
}
