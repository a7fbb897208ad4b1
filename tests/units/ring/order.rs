// SPDX-License-Identifier: GPL-2.0

//! The order of accesses to shared memory, by loom: driver and device of a ring of two descriptors
//! run in every order that the C11 memory model allows, with fences for barriers.
//!
//! Flags and indices are relaxed atomics. All else is plain memory, and a test fails when one side
//! writes there while the other may read.

use crate::{
    driver::{
        number,
        token, //
    },
    ring::{
        event::{
            need_event,
            Place, //
        },
        layout::{
            desc,
            event_flags,
            split_flags,
            Desc,
            Piece, //
        },
        packed::{
            Packed,
            PackedMemory, //
        },
        split::{
            Barriers,
            Split,
            SplitMemory, //
        },
        state::{
            Buffer,
            Mapped,
            Slot,
            Slots,
            Used, //
        },
        suppression::Suppression, //
    },
    virtio::endian::Le16, //
};

use loom::{
    cell::UnsafeCell,
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
use std::ptr::null_mut;

const SIZE: u16 = 2;
const LEN: u32 = 9;

/// Memory that nothing but barriers orders.
struct Plain<T>(UnsafeCell<T>);

// SAFETY: loom ends a test before two threads use it at the same time.
unsafe impl<T: Send> Sync for Plain<T> {}

impl<T: Copy> Plain<T> {
    fn pair(value: T) -> [Self; SIZE as usize] {
        [value, value].map(|value| Self(UnsafeCell::new(value)))
    }

    fn get(&self) -> T {
        // SAFETY: The pointer is valid; nobody writes meanwhile, or loom ends the test.
        self.0.with(|place| unsafe { *place })
    }

    fn set(&self, value: T) {
        // SAFETY: The pointer is valid; nobody uses it meanwhile, or loom ends the test.
        self.0.with_mut(|place| unsafe { *place = value });
    }
}

fn at<T>(entries: &[T; SIZE as usize], index: u16) -> &T {
    &entries[usize::from(index % SIZE)]
}

fn slots() -> Slots<Vec<Slot>, Vec<Mapped>> {
    Slots::new(vec![Slot::FREE; SIZE.into()], Vec::new(), false)
}

/// The address of a buffer, by which the device knows it.
fn addr(number: u16) -> u64 {
    0x1000 + u64::from(number)
}

fn piece(number: u16) -> Piece {
    Piece {
        addr: addr(number),
        len: LEN,
        flags: desc::WRITE,
        mapped: false,
    }
}

fn buffer(number: u16) -> Buffer {
    Buffer {
        token: token(number.into()),
        extra: null_mut(),
        indirect: false,
    }
}

/// A ring: the memory of it and both sides, which know how many buffers there were.
trait Ring: Barriers + Sized + Send + Sync + 'static {
    /// What the driver keeps for itself.
    type State;

    /// Where [`Suppression`] begins.
    const START: u16;

    /// A device that wants no notifications.
    fn new() -> Self;
    fn state() -> Self::State;

    fn suppression(event: bool) -> Suppression {
        let suppression = Suppression::new(event, false);
        suppression.reset(false, Self::START);
        suppression
    }

    fn add(&self, state: &mut Self::State, number: u16);
    fn kick_prepare(&self, state: &mut Self::State, event: bool) -> bool;
    fn get(&self, state: &mut Self::State, suppression: &Suppression) -> Option<Used>;
    fn more(&self, state: &Self::State) -> bool;
    fn disable(&self, suppression: &Suppression);
    fn enable(&self, suppression: &Suppression) -> bool;
    fn enable_delayed(&self, state: &Self::State, suppression: &Suppression) -> bool;

    /// The id of a buffer if it is available.
    fn device_take(&self, number: u16) -> Option<u16>;
    fn device_use(&self, number: u16, id: u16);
    /// The device wants to hear of a buffer.
    fn device_want(&self, number: u16, event: bool);
    /// Whether the driver wants to hear of a buffer that was used just now.
    fn driver_wants(&self, number: u16, event: bool) -> bool;
}

macro_rules! impl_barriers {
    ($ring:ty) => {
        impl Barriers for $ring {
            fn publish(&self) {
                fence(Release);
            }

            fn observe(&self) {
                fence(Acquire);
            }

            fn full(&self) {
                fence(SeqCst);
            }
        }
    };
}

struct SplitRing {
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

type SplitState = Split<Vec<Slot>, Vec<Mapped>>;

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

struct PackedRing {
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

type PackedState = Packed<Vec<Slot>, Vec<Mapped>>;

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
