// SPDX-License-Identifier: GPL-2.0

//! The split format for the tests of the order.

use super::ring::{
    addr,
    at,
    buffer,
    impl_barriers,
    piece,
    slots,
    Plain,
    Ring,
    LEN,
    SIZE, //
};
use crate::{
    ring::{
        event::need_event,
        layout::{
            split_flags,
            Desc, //
        },
        split::{
            Barriers,
            Split,
            SplitMemory, //
        },
        state::{
            Mapped,
            Slot,
            Used, //
        },
        suppression::Suppression, //
    },
    virtio::endian::Le16, //
};

use loom::sync::atomic::{
    fence,
    AtomicU16,
    Ordering::{
        Acquire,
        Relaxed,
        Release,
        SeqCst, //
    }, //
};

pub(crate) struct SplitRing {
    desc: [Plain<Desc>; SIZE as usize],
    avail: [Plain<u16>; SIZE as usize],
    avail_index: AtomicU16,
    avail_flags: AtomicU16,
    used_event: AtomicU16,
    used: [Plain<(u32, u32)>; SIZE as usize],
    used_index: AtomicU16,
    used_flags: AtomicU16,
    avail_event: AtomicU16,
}

impl_barriers!(SplitRing);

impl SplitMemory for SplitRing {
    fn set_desc(&self, index: u16, desc: Desc) {
        at(&self.desc, index).set(desc);
    }
    fn set_desc_flags(&self, index: u16, flags: u16) {
        let desc = at(&self.desc, index).get();
        at(&self.desc, index).set(Desc {
            flags: Le16::from_cpu(flags),
            ..desc
        });
    }
    fn set_avail(&self, index: u16, head: u16) {
        at(&self.avail, index).set(head);
    }
    fn set_avail_index(&self, index: u16) {
        self.avail_index.store(index, Relaxed);
    }
    fn set_avail_flags(&self, flags: u16) {
        self.avail_flags.store(flags, Relaxed);
    }
    fn set_used_event(&self, event: u16) {
        self.used_event.store(event, Relaxed);
    }
    fn used_index(&self) -> u16 {
        self.used_index.load(Relaxed)
    }
    fn used_elem(&self, index: u16) -> (u32, u32) {
        at(&self.used, index).get()
    }
    fn used_flags(&self) -> u16 {
        self.used_flags.load(Relaxed)
    }
    fn avail_event(&self) -> u16 {
        self.avail_event.load(Relaxed)
    }
}

pub(crate) type SplitState = Split<Vec<Slot>, Vec<Mapped>>;

impl Ring for SplitRing {
    type State = SplitState;

    const START: u16 = SplitState::START;

    fn new() -> Self {
        Self {
            desc: Plain::pair(Desc::new(0, 0, 0, 0)),
            avail: Plain::pair(0),
            avail_index: AtomicU16::new(0),
            avail_flags: AtomicU16::new(0),
            used_event: AtomicU16::new(0),
            used: Plain::pair((0, 0)),
            used_index: AtomicU16::new(0),
            used_flags: AtomicU16::new(split_flags::NO_NOTIFY),
            avail_event: AtomicU16::new(u16::MAX),
        }
    }

    fn state() -> SplitState {
        Split::new(slots())
    }

    fn add(&self, state: &mut SplitState, number: u16) {
        state.add_one(self, &piece(number), LEN, buffer(number));
    }

    fn kick_prepare(&self, state: &mut SplitState, event: bool) -> bool {
        state.kick_prepare(self, event)
    }

    fn get(&self, state: &mut SplitState, suppression: &Suppression) -> Option<Used> {
        let index = state.look(self)?;
        Some(state.take_next(self, suppression, index).unwrap())
    }

    fn more(&self, state: &SplitState) -> bool {
        state.look(self).is_some()
    }

    fn disable(&self, suppression: &Suppression) {
        suppression.disable_split(self);
    }

    fn enable(&self, suppression: &Suppression) -> bool {
        suppression.enable_split(self, 0);
        !SplitState::poll(self, suppression.position())
    }

    fn enable_delayed(&self, state: &SplitState, suppression: &Suppression) -> bool {
        state.enable_delayed(self, suppression)
    }

    fn device_take(&self, number: u16) -> Option<u16> {
        if self.avail_index.load(Relaxed) == number {
            return None;
        }
        fence(Acquire);
        let head = at(&self.avail, number).get();
        assert_eq!(at(&self.desc, head).get().addr.to_cpu(), addr(number));
        Some(head)
    }

    fn device_use(&self, number: u16, id: u16) {
        at(&self.used, number).set((id.into(), LEN));
        fence(Release);
        self.used_index.store(number + 1, Relaxed);
    }

    fn device_want(&self, number: u16, event: bool) {
        if event {
            self.avail_event.store(number, Relaxed);
        } else {
            self.used_flags.store(0, Relaxed);
        }
    }

    fn driver_wants(&self, number: u16, event: bool) -> bool {
        if event {
            need_event(self.used_event.load(Relaxed), number + 1, number)
        } else {
            self.avail_flags.load(Relaxed) & split_flags::NO_INTERRUPT == 0
        }
    }
}
