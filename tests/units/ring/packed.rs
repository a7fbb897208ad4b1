// SPDX-License-Identifier: GPL-2.0

//! A packed ring in ordinary memory, and a device that knows only the specification (2.8).

use crate::{
    driver::{
        token,
        Parts,
        Rig,
        Seen,
        Undoing, //
    },
    ring::{
        event::{
            need_event,
            Place, //
        },
        layout::{
            desc,
            event_flags,
            Piece, //
        },
        packed::{
            Packed,
            PackedMemory, //
        },
        split::Barriers,
        state::{
            Buffer,
            Fault,
            Mapped,
            Slot,
            Slots,
            Used, //
        },
        suppression::Suppression, //
    }, //
};

use std::{
    cell::{
        Cell,
        RefCell, //
    },
    ptr::null_mut, //
};

type State = Packed<Vec<Slot>, Vec<Mapped>>;

#[derive(Clone, Copy, Default)]
pub struct Entry {
    pub addr: u64,
    pub len: u32,
    pub id: u16,
    pub flags: u16,
}

pub struct Ram {
    pub ring: RefCell<Vec<Entry>>,
    pub driver: Cell<(Place, u16)>,
    pub device: Cell<(Place, u16)>,
}

impl Ram {
    fn new(size: u16) -> Self {
        let zero = (Place::from_bits(0), 0);
        Self {
            ring: RefCell::new(vec![Entry::default(); usize::from(size)]),
            driver: Cell::new(zero),
            device: Cell::new(zero),
        }
    }

    fn entry(&self, index: u16) -> Entry {
        self.ring.borrow()[usize::from(index)]
    }
}

impl Barriers for Ram {
    fn publish(&self) {}
    fn observe(&self) {}
    fn full(&self) {}
}

impl PackedMemory for Ram {
    fn set_body(&self, index: u16, addr: u64, len: u32, id: u16) {
        let entry = &mut self.ring.borrow_mut()[usize::from(index)];
        (entry.addr, entry.len, entry.id) = (addr, len, id);
    }
    fn set_flags(&self, index: u16, flags: u16) {
        self.ring.borrow_mut()[usize::from(index)].flags = flags;
    }
    fn flags(&self, index: u16) -> u16 {
        self.entry(index).flags
    }
    fn used_elem(&self, index: u16) -> (u16, u32) {
        let entry = self.entry(index);
        (entry.id, entry.len)
    }
    fn set_event(&self, place: Place) {
        self.driver.set((place, self.driver.get().1));
    }
    fn set_event_flags(&self, flags: u16) {
        self.driver.set((self.driver.get().0, flags));
    }
    fn device_event(&self) -> (Place, u16) {
        self.device.get()
    }
}

pub struct PackedRig {
    pub ram: Ram,
    pub state: State,
    pub suppression: Suppression,
    event: bool,
    /// The device's own: where it takes and uses next.
    taken: Place,
    used: Place,
}

impl PackedRig {
    fn is_available(&self, place: Place) -> bool {
        let flags = self.ram.entry(place.index()).flags;
        (flags & desc::AVAIL != 0) == place.wrap() && (flags & desc::USED != 0) != place.wrap()
    }

    fn write_used(&mut self, id: u16, len: u32) {
        let flags = if self.used.wrap() {
            desc::AVAIL | desc::USED
        } else {
            0
        };
        let at = usize::from(self.used.index());
        let entry = &mut self.ram.ring.borrow_mut()[at];
        (entry.id, entry.len, entry.flags) = (id, len, flags);
    }
}

impl Rig for PackedRig {
    fn new(size: u16, in_order: bool, event: bool) -> Self {
        let count = usize::from(size);
        let slots = Slots::new(vec![Slot::FREE; count], vec![Mapped::NONE; count], in_order);
        let suppression = Suppression::new(event, false);
        suppression.reset(false, State::START);
        Self {
            ram: Ram::new(size),
            state: Packed::new(slots),
            suppression,
            event,
            taken: Place::START,
            used: Place::START,
        }
    }
    fn size(&self) -> u16 {
        self.state.slots.size()
    }
    fn free(&self) -> u16 {
        self.state.slots.free()
    }
    fn add(&mut self, parts: &Parts, number: usize, undo: impl FnMut(Mapped)) -> Result<(), ()> {
        let buffer = Buffer {
            token: token(number),
            extra: null_mut(),
            indirect: false,
        };
        let parts = Undoing(parts, RefCell::new(undo));
        match self.state.add(&self.ram, &parts, buffer) {
            Ok(true) => Ok(()),
            _ => Err(()),
        }
    }
    fn add_indirect(&mut self, addr: u64, count: u32, writable: u32, number: usize) {
        let buffer = Buffer {
            token: token(number),
            extra: null_mut(),
            indirect: true,
        };
        let table = Piece {
            addr,
            len: count * 16,
            flags: desc::INDIRECT,
            mapped: false,
        };
        self.state.add_one(&self.ram, &table, writable, buffer);
    }
    fn kick_prepare(&mut self) -> bool {
        self.state.kick_prepare(&self.ram)
    }
    fn get(&mut self) -> Result<Option<Used>, Fault> {
        let more = self.state.look(&self.ram);
        more.then(|| self.state.take_next(&self.ram, &self.suppression))
            .transpose()
    }
    fn detach(&mut self) -> Option<Used> {
        self.state.detach()
    }
    fn mappings(&self, used: &Used) -> Vec<Mapped> {
        let mut found = Vec::new();
        let slots = &self.state.slots;
        slots.mappings(used.head, used.slot.count, |mapped| found.push(mapped));
        found
    }
    fn reset(&mut self) {
        self.ram = Ram::new(self.size());
        self.state.reset();
        self.suppression.reset(false, State::START);
        self.taken = Place::START;
        self.used = Place::START;
    }
    fn more_used(&self) -> bool {
        let place = Place::from_bits(self.suppression.position());
        self.suppression.is_open() || State::more_used(&self.ram, place)
    }
    fn disable_cb(&mut self) {
        self.suppression.disable_packed(&self.ram);
    }
    fn enable_cb(&mut self) -> bool {
        self.suppression.rearm();
        let place = Place::from_bits(self.suppression.position());
        self.suppression.enable_packed(&self.ram, place);
        !self.more_used()
    }
    fn enable_delayed(&mut self) -> bool {
        self.suppression.rearm();
        self.state.enable_delayed(&self.ram, &self.suppression)
    }

    fn device_take(&mut self) -> Option<Seen> {
        if !self.is_available(self.taken) {
            return None;
        }
        let first = self.ram.entry(self.taken.index());
        let mut parts = Vec::new();
        let id = loop {
            let entry = self.ram.entry(self.taken.index());
            assert!(self.is_available(self.taken), "an unfinished chain");
            parts.push((entry.addr, entry.len, entry.flags & desc::WRITE != 0));
            assert!(parts.len() <= usize::from(self.size()), "a loop");
            self.taken = self.taken.advance(1, self.size());
            if entry.flags & desc::NEXT == 0 {
                break entry.id;
            }
            assert_eq!(entry.flags & desc::INDIRECT, 0);
        };
        Some(Seen {
            id,
            slots: parts.len() as u16,
            parts,
            indirect: first.flags & desc::INDIRECT != 0,
        })
    }
    fn device_use(&mut self, batch: &[Seen], len: u32) -> bool {
        self.write_used(batch.last().unwrap().id, len);
        let old = self.used.index();
        for seen in batch {
            self.used = self.used.advance(seen.slots, self.size());
        }
        let (event, flags) = self.ram.driver.get();
        match flags {
            event_flags::DISABLE => false,
            event_flags::DESC => {
                // The event counts in the lap of the descriptors used now.
                let new = self.used.index();
                let wrapped = new <= old;
                let old = if wrapped {
                    old.wrapping_sub(self.size())
                } else {
                    old
                };
                need_event(event.event(self.used.wrap(), self.size()), new, old)
            }
            _ => true,
        }
    }
    fn device_want(&mut self, notification: bool) {
        let flags = match (notification, self.event) {
            (false, _) => event_flags::DISABLE,
            (true, false) => event_flags::ENABLE,
            (true, true) => event_flags::DESC,
        };
        let next = Place::from_bits(self.state.next_avail());
        self.ram.device.set((next, flags));
    }
    fn device_lie(&mut self, id: u32, len: u32) {
        self.write_used(id as u16, len);
    }
    fn device_use_next(&mut self, len: u32) {
        let next = Place::from_bits(self.suppression.position());
        self.used = next;
        self.write_used(self.ram.entry(next.index()).id, len);
    }
    fn device_write(&mut self, place: u16, value: u64) {
        let at = usize::from(place / 8 % self.size());
        let event = (Place::from_bits(value as u16), (value >> 16) as u16);
        let entry = &mut self.ram.ring.borrow_mut()[at];
        match place % 8 {
            0 | 1 => entry.flags = value as u16,
            2 | 3 => entry.id = value as u16,
            4 => entry.len = value as u32,
            5 => entry.addr = value,
            _ => self.ram.device.set(event),
        }
    }
    fn device_scribble(&mut self, junk: u64) {
        for entry in self.ram.ring.borrow_mut().iter_mut() {
            (entry.addr, entry.len, entry.id) = (junk, junk as u32, junk as u16);
            entry.flags |= desc::NEXT;
        }
    }
}

/// What a notification carries (2.9): where the driver puts the next buffer, and its wrap counter.
#[test]
fn notification_data() {
    let mut rig = PackedRig::new(7, false, false);
    for lap in 0..100 {
        assert_eq!(Place::from_bits(rig.state.next_avail()), rig.taken);
        let parts = vec![(1, 1, true); 1 + lap % 3];
        rig.add(&Parts::new(&parts), lap, |_| ()).unwrap();
        let seen = rig.device_take().unwrap();
        rig.device_use(&[seen], 1);
        rig.get().unwrap().unwrap();
    }
}
