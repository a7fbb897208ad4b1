// SPDX-License-Identifier: GPL-2.0

//! A split ring in ordinary memory, and a device that knows only the specification (2.7).

use crate::{
    driver::{
        token,
        Parts,
        Rig,
        Seen,
        Undoing, //
    },
    ring::{
        event::need_event,
        layout::{
            desc,
            Desc,
            Piece, //
        },
        split::{
            Barriers,
            Split,
            SplitMemory, //
        },
        state::{
            Buffer,
            Fault,
            Mapped,
            Slot,
            Slots,
            Used, //
        },
        suppression::Suppression, //
    },
    virtio::endian::Le16, //
};

use std::{
    cell::{
        Cell,
        RefCell, //
    },
    ptr::null_mut, //
};

pub struct Ram {
    desc: RefCell<Vec<Desc>>,
    avail: RefCell<Vec<u16>>,
    pub avail_flags: Cell<u16>,
    pub avail_index: Cell<u16>,
    pub used_event: Cell<u16>,
    used: RefCell<Vec<(u32, u32)>>,
    pub used_flags: Cell<u16>,
    pub used_index: Cell<u16>,
    pub avail_event: Cell<u16>,
}

impl Ram {
    fn new(size: u16) -> Self {
        let size = usize::from(size);
        Self {
            desc: RefCell::new(vec![Desc::new(0, 0, 0, 0); size]),
            avail: RefCell::new(vec![0; size]),
            avail_flags: Cell::new(0),
            avail_index: Cell::new(0),
            used_event: Cell::new(0),
            used: RefCell::new(vec![(0, 0); size]),
            used_flags: Cell::new(0),
            used_index: Cell::new(0),
            avail_event: Cell::new(0),
        }
    }
}

impl Barriers for Ram {
    fn publish(&self) {}
    fn observe(&self) {}
    fn full(&self) {}
}

impl SplitMemory for Ram {
    fn set_desc(&self, index: u16, desc: Desc) {
        self.desc.borrow_mut()[usize::from(index)] = desc;
    }
    fn set_desc_flags(&self, index: u16, flags: u16) {
        self.desc.borrow_mut()[usize::from(index)].flags = Le16::from_cpu(flags);
    }
    fn set_avail(&self, index: u16, head: u16) {
        let mut avail = self.avail.borrow_mut();
        let size = avail.len();
        avail[usize::from(index) % size] = head;
    }
    fn set_avail_index(&self, index: u16) {
        self.avail_index.set(index);
    }
    fn set_avail_flags(&self, flags: u16) {
        self.avail_flags.set(flags);
    }
    fn set_used_event(&self, event: u16) {
        self.used_event.set(event);
    }
    fn used_index(&self) -> u16 {
        self.used_index.get()
    }
    fn used_elem(&self, index: u16) -> (u32, u32) {
        let used = self.used.borrow();
        used[usize::from(index) % used.len()]
    }
    fn used_flags(&self) -> u16 {
        self.used_flags.get()
    }
    fn avail_event(&self) -> u16 {
        self.avail_event.get()
    }
}

pub struct SplitRig {
    pub ram: Ram,
    pub state: Split<Vec<Slot>, Vec<Mapped>>,
    pub suppression: Suppression,
    event: bool,
    /// The device's own: buffers taken and used so far.
    taken: u16,
    used: u16,
}

impl SplitRig {
    fn desc(&self, index: u16) -> (u64, u32, u16, u16) {
        let desc = self.ram.desc.borrow()[usize::from(index)];
        (
            desc.addr.to_cpu(),
            desc.len.to_cpu(),
            desc.flags.to_cpu(),
            desc.next.to_cpu(),
        )
    }

    /// Lets both sides have exchanged `count` buffers already.
    pub fn run_up(&mut self, count: u16) {
        for _ in 0..count {
            self.add(&Parts::new(&[(1, 1, true)]), 0, |_| ()).unwrap();
            let seen = self.device_take().unwrap();
            self.device_use(&[seen], 0);
            self.get().unwrap().unwrap();
            self.kick_prepare();
        }
    }
}

impl Rig for SplitRig {
    fn new(size: u16, in_order: bool, event: bool) -> Self {
        let count = usize::from(size);
        let slots = Slots::new(vec![Slot::FREE; count], vec![Mapped::NONE; count], in_order);
        Self {
            ram: Ram::new(size),
            state: Split::new(slots),
            suppression: Suppression::new(event, false),
            event,
            taken: 0,
            used: 0,
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
        self.state.kick_prepare(&self.ram, self.event)
    }
    fn get(&mut self) -> Result<Option<Used>, Fault> {
        let (ram, suppression) = (&self.ram, &self.suppression);
        let index = self.state.look(ram);
        index
            .map(|index| self.state.take_next(ram, suppression, index))
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
        self.suppression
            .reset(false, Split::<Vec<Slot>, Vec<Mapped>>::START);
        self.taken = 0;
        self.used = 0;
    }
    fn more_used(&self) -> bool {
        type State = Split<Vec<Slot>, Vec<Mapped>>;
        State::more_used(&self.ram, self.suppression.position())
    }
    fn disable_cb(&mut self) {
        self.suppression.disable_split(&self.ram);
    }
    fn enable_cb(&mut self) -> bool {
        self.suppression.rearm();
        self.suppression.enable_split(&self.ram, 0);
        !self.more_used()
    }
    fn enable_delayed(&mut self) -> bool {
        self.suppression.rearm();
        self.state.enable_delayed(&self.ram, &self.suppression)
    }

    fn device_take(&mut self) -> Option<Seen> {
        if self.taken == self.ram.avail_index.get() {
            return None;
        }
        let at = usize::from(self.taken % self.size());
        let head = self.ram.avail.borrow()[at];
        self.taken = self.taken.wrapping_add(1);
        let mut parts = Vec::new();
        let mut index = head;
        loop {
            let (addr, len, flags, next) = self.desc(index);
            parts.push((addr, len, flags & desc::WRITE != 0));
            assert!(parts.len() <= usize::from(self.size()), "a loop");
            if flags & desc::INDIRECT != 0 {
                assert_eq!(flags, desc::INDIRECT);
                assert_eq!(parts.len(), 1);
                break;
            }
            if flags & desc::NEXT == 0 {
                break;
            }
            if self.state.slots.in_order() {
                assert_eq!(next, (index + 1) % self.size());
            }
            index = next;
        }
        let (_, _, flags, _) = self.desc(head);
        Some(Seen {
            id: head,
            slots: parts.len() as u16,
            parts,
            indirect: flags & desc::INDIRECT != 0,
        })
    }
    fn device_use(&mut self, batch: &[Seen], len: u32) -> bool {
        let old = self.used;
        let at = usize::from(old % self.size());
        self.ram.used.borrow_mut()[at] = (batch.last().unwrap().id.into(), len);
        self.used = old.wrapping_add(batch.len() as u16);
        self.ram.used_index.set(self.used);
        if self.event {
            need_event(self.ram.used_event.get(), self.used, old)
        } else {
            self.ram.avail_flags.get() & 1 == 0
        }
    }
    fn device_want(&mut self, notification: bool) {
        self.ram.used_flags.set(u16::from(!notification));
        let next = self.ram.avail_index.get();
        let event = if notification {
            next
        } else {
            next.wrapping_sub(1)
        };
        self.ram.avail_event.set(event);
    }
    fn device_lie(&mut self, id: u32, len: u32) {
        let at = usize::from(self.used % self.size());
        self.ram.used.borrow_mut()[at] = (id, len);
        self.ram.used_index.set(self.used.wrapping_add(1));
    }
    fn device_use_next(&mut self, len: u32) {
        let next = self.suppression.position();
        let at = usize::from(next % self.size());
        let id = self.ram.avail.borrow()[at];
        self.ram.used.borrow_mut()[at] = (id.into(), len);
        self.ram.used_index.set(next.wrapping_add(1));
    }
    fn device_write(&mut self, place: u16, value: u64) {
        let at = usize::from(place / 8 % self.size());
        let (id, len) = self.ram.used.borrow()[at];
        match place % 8 {
            0 | 1 => self.ram.used_index.set(value as u16),
            2 => self.ram.used_flags.set(value as u16),
            3 => self.ram.avail_event.set(value as u16),
            4 | 5 => self.ram.used.borrow_mut()[at] = (value as u32, len),
            6 => self.ram.used.borrow_mut()[at] = (id, value as u32),
            _ => self.device_scribble(value),
        }
    }
    fn device_scribble(&mut self, junk: u64) {
        for desc in self.ram.desc.borrow_mut().iter_mut() {
            *desc = Desc::new(junk, junk as u32, desc::NEXT, junk as u16);
        }
    }
}

/// What a notification carries (2.9): where the driver puts the next buffer.
#[test]
fn notification_data() {
    let mut rig = SplitRig::new(4, false, false);
    for lap in 0..70_000u32 {
        assert_eq!(u32::from(rig.state.next_avail()), lap & 0xffff);
        rig.run_up(1);
    }
}

/// A device that looks at the event only after several buffers does not notify a driver that has
/// taken those meanwhile and wants no notification.
#[test]
fn masked_within_a_batch() {
    let mut rig = SplitRig::new(16, false, true);
    for lap in 0..30_000u32 {
        rig.enable_cb();
        let signalled = rig.used;
        rig.run_up(2);
        rig.disable_cb();
        let event = rig.ram.used_event.get();
        assert!(!need_event(event, rig.used, signalled), "{lap}");
        rig.run_up(1 + (lap % 200) as u16);
        assert!(!need_event(event, rig.used, signalled), "{lap}");
    }
}
