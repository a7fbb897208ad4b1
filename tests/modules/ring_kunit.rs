// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the state machines of `virtio_ring.ko`, compiled as the kernel compiles them:
//! both ring formats go round several times with a device that only echoes, then meet lies.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "without KUnit there are no tests, and no test uses everything"
)]

use kernel::prelude::*;

#[path = "../../virtio"]
mod virtio {
    pub(crate) mod endian;
}

#[path = "../../virtio_ring"]
mod ring {
    pub(crate) mod event;
    pub(crate) mod layout;
    pub(crate) mod packed;
    pub(crate) mod split;
    pub(crate) mod state;
    pub(crate) mod suppression;
}

module! {
    type: RingKunit,
    name: "ring_kunit",
    authors: ["The virtio-rust developers"],
    description: "KUnit tests of virtio_ring",
    license: "GPL",
}

struct RingKunit;

impl kernel::Module for RingKunit {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

#[kernel::macros::kunit_tests(virtio_ring)]
mod tests {
    use super::virtio::endian::Le16;

    use super::ring::{
        event::Place,
        layout::{
            desc,
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
            Fault,
            Mapped,
            Slot,
            Slots,
            Token, //
        },
        suppression::Suppression, //
    };
    use core::{
        array::from_fn,
        cell::Cell,
        ptr::{
            null_mut,
            without_provenance_mut, //
        },
    };
    use kernel::prelude::*;

    const SIZE: u16 = 4;

    type Entries<T> = [Cell<T>; SIZE as usize];

    fn entry<T>(entries: &Entries<T>, index: u16) -> &Cell<T> {
        &entries[usize::from(index % SIZE)]
    }

    fn slots() -> Result<Slots<KVec<Slot>, KVec<Mapped>>> {
        let slots = KVec::from_elem(Slot::FREE, SIZE.into(), GFP_KERNEL)?;
        Ok(Slots::new(slots, KVec::new(), false))
    }

    fn piece(len: u32) -> Piece {
        Piece {
            addr: 0x1000,
            len,
            flags: desc::WRITE,
            mapped: false,
        }
    }

    fn buffer(number: usize) -> Result<Buffer> {
        Ok(Buffer {
            token: Token::new(without_provenance_mut(number)).ok_or(EINVAL)?,
            extra: null_mut(),
            indirect: false,
        })
    }

    /// The memory of a split ring.
    struct SplitRam {
        desc: Entries<Desc>,
        avail: Entries<u16>,
        avail_index: Cell<u16>,
        used: Entries<(u32, u32)>,
        used_index: Cell<u16>,
    }

    impl SplitRam {
        fn new() -> Self {
            Self {
                desc: from_fn(|_| Cell::new(Desc::new(0, 0, 0, 0))),
                avail: from_fn(|_| Cell::new(0)),
                avail_index: Cell::new(0),
                used: from_fn(|_| Cell::new((0, 0))),
                used_index: Cell::new(0),
            }
        }

        /// The device uses a buffer.
        fn use_buffer(&self, id: u32, len: u32) {
            let index = self.used_index.get();
            entry(&self.used, index).set((id, len));
            self.used_index.set(index.wrapping_add(1));
        }
    }

    impl Barriers for SplitRam {
        fn publish(&self) {}
        fn observe(&self) {}
        fn full(&self) {}
    }

    impl SplitMemory for SplitRam {
        fn set_desc(&self, index: u16, desc: Desc) {
            entry(&self.desc, index).set(desc);
        }
        fn set_desc_flags(&self, index: u16, flags: u16) {
            let desc = entry(&self.desc, index).get();
            entry(&self.desc, index).set(Desc {
                flags: Le16::from_cpu(flags),
                ..desc
            });
        }
        fn set_avail(&self, index: u16, head: u16) {
            entry(&self.avail, index).set(head);
        }
        fn set_avail_index(&self, index: u16) {
            self.avail_index.set(index);
        }
        fn set_avail_flags(&self, _flags: u16) {}
        fn set_used_event(&self, _event: u16) {}
        fn used_index(&self) -> u16 {
            self.used_index.get()
        }
        fn used_elem(&self, index: u16) -> (u32, u32) {
            entry(&self.used, index).get()
        }
        fn used_flags(&self) -> u16 {
            0
        }
        fn avail_event(&self) -> u16 {
            0
        }
    }

    /// A descriptor of a packed ring: address, length, id, flags.
    type Entry = (u64, u32, u16, u16);

    /// The memory of a packed ring.
    struct PackedRam {
        desc: Entries<Entry>,
    }

    impl PackedRam {
        fn new() -> Self {
            Self {
                desc: from_fn(|_| Cell::new((0, 0, 0, 0))),
            }
        }

        /// The device uses a buffer.
        fn use_buffer(&self, place: Place, id: u16, len: u32) {
            let flags = if place.wrap() {
                desc::AVAIL | desc::USED
            } else {
                0
            };
            entry(&self.desc, place.index()).set((0, len, id, flags));
        }
    }

    impl Barriers for PackedRam {
        fn publish(&self) {}
        fn observe(&self) {}
        fn full(&self) {}
    }

    impl PackedMemory for PackedRam {
        fn set_body(&self, index: u16, addr: u64, len: u32, id: u16) {
            let (_, _, _, flags) = entry(&self.desc, index).get();
            entry(&self.desc, index).set((addr, len, id, flags));
        }
        fn set_flags(&self, index: u16, flags: u16) {
            let (addr, len, id, _) = entry(&self.desc, index).get();
            entry(&self.desc, index).set((addr, len, id, flags));
        }
        fn flags(&self, index: u16) -> u16 {
            entry(&self.desc, index).get().3
        }
        fn used_elem(&self, index: u16) -> (u16, u32) {
            let (_, len, id, _) = entry(&self.desc, index).get();
            (id, len)
        }
        fn set_event(&self, _place: Place) {}
        fn set_event_flags(&self, _flags: u16) {}
        fn device_event(&self) -> (Place, u16) {
            (Place::START, 0)
        }
    }

    #[test]
    fn split_goes_round() -> Result {
        let ram = SplitRam::new();
        let mut ring = Split::new(slots()?);
        let suppression = Suppression::new(false, false);
        for number in 1..=70_000 {
            assert!(ring.look(&ram).is_none());
            ring.add_one(&ram, &piece(9), 9, buffer(number)?);
            assert_eq!(ring.slots.free(), SIZE - 1);
            let head = entry(&ram.avail, ram.avail_index.get().wrapping_sub(1)).get();
            ram.use_buffer(head.into(), 20);
            let index = ring.look(&ram).ok_or(EIO)?;
            let used = ring.take_next(&ram, &suppression, index);
            let used = used.map_err(|_| EIO)?;
            assert_eq!(used.slot.token, Some(buffer(number)?.token));
            assert_eq!(used.len, 9);
            assert_eq!(ring.slots.free(), SIZE);
        }
        Ok(())
    }

    #[test]
    fn split_refuses_lies() -> Result {
        let faults = [
            (4, 1, Fault::OutOfRange(4)),
            (1, 1, Fault::NotHead(1)),
            (0, 2, Fault::Index(2)),
        ];
        for (id, count, fault) in faults {
            let ram = SplitRam::new();
            let mut ring = Split::new(slots()?);
            ring.add_one(&ram, &piece(9), 9, buffer(1)?);
            for _ in 0..count {
                ram.use_buffer(id, 1);
            }
            let index = ring.look(&ram).ok_or(EIO)?;
            let used = ring.take_next(&ram, &Suppression::new(false, false), index);
            assert!(used.err() == Some(fault));
            assert_eq!(ring.slots.free(), SIZE - 1);
            assert!(ring.detach().is_some() && ring.detach().is_none());
        }
        Ok(())
    }

    #[test]
    fn packed_goes_round() -> Result {
        let ram = PackedRam::new();
        let mut ring = Packed::new(slots()?);
        let suppression = Suppression::new(false, false);
        let mut place = Place::START;
        for number in 1..=1000 {
            assert!(!ring.look(&ram));
            ring.add_one(&ram, &piece(9), 9, buffer(number)?);
            let (_, _, id, _) = entry(&ram.desc, place.index()).get();
            ram.use_buffer(place, id, 20);
            assert!(ring.look(&ram));
            let used = ring.take_next(&ram, &suppression).map_err(|_| EIO)?;
            assert_eq!(used.slot.token, Some(buffer(number)?.token));
            assert_eq!(used.len, 9);
            assert_eq!(ring.slots.free(), SIZE);
            place = place.advance(1, SIZE);
        }
        Ok(())
    }

    #[test]
    fn packed_refuses_lies() -> Result {
        for (id, fault) in [(4, Fault::OutOfRange(4)), (1, Fault::NotHead(1))] {
            let ram = PackedRam::new();
            let mut ring = Packed::new(slots()?);
            ring.add_one(&ram, &piece(9), 9, buffer(1)?);
            ram.use_buffer(Place::START, id, 1);
            assert!(ring.look(&ram));
            let used = ring.take_next(&ram, &Suppression::new(false, false));
            assert!(used.err() == Some(fault));
            assert!(ring.detach().is_some() && ring.detach().is_none());
        }
        Ok(())
    }
}
