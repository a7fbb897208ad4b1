// SPDX-License-Identifier: GPL-2.0

//! The packed format for the tests of the order.

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
use crate::ring::{
    event::Place,
    layout::{
        desc,
        event_flags, //
    },
    packed::{
        Packed,
        PackedMemory, //
    },
    split::Barriers,
    state::{
        Mapped,
        Slot,
        Used, //
    },
    suppression::Suppression, //
};

use loom::{
    sync::{
        atomic::{
            fence,
            AtomicU16,
            AtomicU32,
            Ordering::{
                Acquire,
                Relaxed,
                Release,
                SeqCst, //
            }, //
        },
        Arc, //
    },
    thread, //
};

pub(crate) struct PackedRing {
    /// Address, length and id of each descriptor.
    body: [Plain<(u64, u32, u16)>; SIZE as usize],
    flags: [AtomicU16; SIZE as usize],
    event: AtomicU16,
    event_flags: AtomicU16,
    /// `off_wrap` and `flags` of the device's event suppression structure.
    device_event: AtomicU32,
}

impl_barriers!(PackedRing);

impl PackedMemory for PackedRing {
    fn set_body(&self, index: u16, addr: u64, len: u32, id: u16) {
        at(&self.body, index).set((addr, len, id));
    }
    fn set_flags(&self, index: u16, flags: u16) {
        at(&self.flags, index).store(flags, Relaxed);
    }
    fn flags(&self, index: u16) -> u16 {
        at(&self.flags, index).load(Relaxed)
    }
    fn used_elem(&self, index: u16) -> (u16, u32) {
        let (_, len, id) = at(&self.body, index).get();
        (id, len)
    }
    fn set_event(&self, place: Place) {
        self.event.store(place.bits(), Relaxed);
    }
    fn set_event_flags(&self, flags: u16) {
        self.event_flags.store(flags, Relaxed);
    }
    fn device_event(&self) -> (Place, u16) {
        let both = self.device_event.load(Relaxed);
        (Place::from_bits(both as u16), (both >> 16) as u16)
    }
}

/// Where a buffer is, of those that take one descriptor each.
fn place(number: u16) -> Place {
    (0..number).fold(Place::START, |place, _| place.advance(1, SIZE))
}

pub(crate) type PackedState = Packed<Vec<Slot>, Vec<Mapped>>;

impl Ring for PackedRing {
    type State = PackedState;

    const START: u16 = PackedState::START;

    fn new() -> Self {
        Self {
            body: Plain::pair((0, 0, 0)),
            flags: [AtomicU16::new(0), AtomicU16::new(0)],
            event: AtomicU16::new(0),
            event_flags: AtomicU16::new(0),
            device_event: AtomicU32::new(u32::from(event_flags::DISABLE) << 16),
        }
    }

    fn state() -> PackedState {
        Packed::new(slots())
    }

    fn add(&self, state: &mut PackedState, number: u16) {
        state.add_one(self, &piece(number), LEN, buffer(number));
    }

    fn kick_prepare(&self, state: &mut PackedState, _event: bool) -> bool {
        state.kick_prepare(self)
    }

    fn get(&self, state: &mut PackedState, suppression: &Suppression) -> Option<Used> {
        let used = state.look(self).then(|| state.take_next(self, suppression));
        used.map(Result::unwrap)
    }

    fn more(&self, state: &PackedState) -> bool {
        state.look(self)
    }

    fn disable(&self, suppression: &Suppression) {
        suppression.disable_packed(self);
    }

    fn enable(&self, suppression: &Suppression) -> bool {
        let place = Place::from_bits(suppression.position());
        suppression.enable_packed(self, place);
        !PackedState::poll(self, place)
    }

    fn enable_delayed(&self, state: &PackedState, suppression: &Suppression) -> bool {
        state.enable_delayed(self, suppression)
    }

    fn device_take(&self, number: u16) -> Option<u16> {
        let place = place(number);
        let available = if place.wrap() {
            desc::AVAIL
        } else {
            desc::USED
        };
        let flags = at(&self.flags, number).load(Relaxed);
        if flags & (desc::AVAIL | desc::USED) != available {
            return None;
        }
        fence(Acquire);
        let (found, _, id) = at(&self.body, number).get();
        assert_eq!(found, addr(number));
        Some(id)
    }

    fn device_use(&self, number: u16, id: u16) {
        at(&self.body, number).set((0, LEN, id));
        fence(Release);
        let used = if place(number).wrap() {
            desc::AVAIL | desc::USED
        } else {
            0
        };
        at(&self.flags, number).store(used, Relaxed);
    }

    fn device_want(&self, number: u16, event: bool) {
        let flags = if event { event_flags::DESC } else { 0 };
        let both = u32::from(flags) << 16 | u32::from(place(number).bits());
        self.device_event.store(both, Relaxed);
    }

    fn driver_wants(&self, number: u16, _event: bool) -> bool {
        match self.event_flags.load(Relaxed) {
            event_flags::DESC => {
                // The place after the flags.
                fence(Acquire);
                self.event.load(Relaxed) == place(number).bits()
            }
            flags => flags != event_flags::DISABLE,
        }
    }
}

/// A device that sees that an event is meant sees which one.
#[test]
fn event_before_its_flags() {
    loom::model(|| {
        let ring = Arc::new(PackedRing::new());
        let suppression = PackedRing::suppression(true);
        ring.disable(&suppression);
        let shared = ring.clone();
        let device = thread::spawn(move || {
            if shared.event_flags.load(Relaxed) == event_flags::DESC {
                fence(Acquire);
                assert_eq!(shared.event.load(Relaxed), place(0).bits());
            }
        });
        suppression.enable_packed(&*ring, place(0));
        device.join().unwrap();
    });
}
