// SPDX-License-Identifier: GPL-2.0

//! The capabilities that say where a device has its registers (Virtio 1.4, 4.1.4), and what is
//! checked before any of it is mapped.
//!
//! Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

/// What a structure is for: `cfg_type` of its capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The common configuration.
    Common = 1,
    /// Where notifications go.
    Notify = 2,
    /// The interrupt status.
    Isr = 3,
    /// The device configuration space.
    Device = 4,
    /// A region of shared memory.
    SharedMemory = 8,
}

impl Kind {
    /// What its capability is called in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Common => "common configuration",
            Self::Notify => "notification",
            Self::Isr => "interrupt status",
            Self::Device => "device configuration",
            Self::SharedMemory => "shared memory",
        }
    }

    /// How long its capability is at least, in bytes.
    const fn capability_bytes(self) -> u8 {
        match self {
            Self::Notify => 20,
            Self::SharedMemory => 24,
            _ => 16,
        }
    }
}

/// What a structure must be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Need {
    /// What it is for.
    pub(crate) kind: Kind,
    /// How many bytes it must have at least; never 0.
    pub(crate) min: u64,
    /// What its offset must be a multiple of, in bytes.
    pub(crate) align: u64,
}

/// Part of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Which BAR.
    pub(crate) bar: u8,
    /// Where it begins, in bytes from the start of the BAR.
    pub(crate) offset: u64,
    /// How many bytes it has.
    pub(crate) length: u64,
}

/// What can be wrong with a capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    /// It is shorter than its kind, or ends outside of the configuration space.
    Truncated,
    /// The structure is shorter than its kind.
    TooSmall,
    /// It begins where accesses would not be aligned.
    Unaligned,
    /// It is not all inside its BAR.
    OutsideBar,
}

impl Mistake {
    /// For the log.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Truncated => "is truncated",
            Self::TooSmall => "describes too few bytes",
            Self::Unaligned => "describes an unaligned offset",
            Self::OutsideBar => "describes more than the BAR has",
        }
    }
}

/// The size of the configuration space in which the list is, in bytes.
const CONFIG_SPACE: usize = 256;

/// A vendor-specific capability, as far as it is a virtio one: read once, then checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Capability {
    at: usize,
    bytes: u8,
    bar: u8,
    id: u8,
    offset: [u32; 2],
    length: [u32; 2],
}

impl Capability {
    /// Reads the one at `at`, which begins with `head`, if it is for structures of this kind.
    /// `word` reads 32 bits of the configuration space, which takes a device some time.
    pub(crate) fn read(
        at: usize,
        head: u32,
        kind: Kind,
        word: impl Fn(usize) -> u32,
    ) -> Option<Self> {
        let [_, _, bytes, number] = head.to_le_bytes();

        // CAST: The numbers are those of the specification.
        if number != kind as u8 {
            return None;
        }
        let [bar, id, ..] = word(at + 4).to_le_bytes();
        let later = |after, offset| match bytes >= after {
            true => word(at + offset),
            false => 0,
        };

        Some(Self {
            at,
            bytes,
            bar,
            id,
            // The word at 16 is the multiplier of the one kind and half of an offset in the other.
            offset: [word(at + 8), later(20, 16)],
            length: [word(at + 12), later(24, 20)],
        })
    }

    /// Which BAR its structure is in; above 5 there is none.
    pub(crate) const fn bar(&self) -> u8 {
        self.bar
    }

    /// Which of the structures of this kind it is.
    pub(crate) const fn id(&self) -> u8 {
        self.id
    }

    /// The unit of `queue_notify_off` in bytes, if it is of kind [`Kind::Notify`].
    pub(crate) const fn multiplier(&self) -> u32 {
        self.offset[1]
    }

    /// Where the structure is, in a BAR of `bar_len` bytes, if it is what it must be.
    pub(crate) fn place(&self, need: Need, bar_len: u64) -> Result<Place, Mistake> {
        let capability_bytes = need.kind.capability_bytes();

        if self.bytes < capability_bytes || self.at + usize::from(self.bytes) > CONFIG_SPACE {
            return Err(Mistake::Truncated);
        }
        let (offset, length) = match need.kind {
            Kind::SharedMemory => (wide(self.offset), wide(self.length)),
            _ => (self.offset[0].into(), self.length[0].into()),
        };

        if length < need.min {
            return Err(Mistake::TooSmall);
        }
        if offset % need.align != 0 {
            return Err(Mistake::Unaligned);
        }
        match offset.checked_add(length) {
            Some(end) if end <= bar_len => Ok(Place {
                bar: self.bar,
                offset,
                length,
            }),
            _ => Err(Mistake::OutsideBar),
        }
    }
}

/// Two halves, the low one first.
fn wide([low, high]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Where notifications of a queue go (Virtio 1.4, 4.1.4.4): `width` bytes, this many bytes after
/// the start of `structure`; nowhere if that is not all inside, or not aligned.
pub(crate) fn notification(
    structure: Place,
    queue_notify_off: u16,
    multiplier: u32,
    width: u64,
) -> Option<u64> {
    let offset = u64::from(queue_notify_off) * u64::from(multiplier);
    let aligned = (structure.offset + offset) % width == 0;

    (aligned && offset + width <= structure.length).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: usize = 0x40;
    const COMMON: Need = Need {
        kind: Kind::Common,
        min: 56,
        align: 4,
    };

    /// A capability of five or six words.
    fn capability(bytes: u8, kind: Kind, bar: u8, id: u8, words: [u32; 4]) -> Capability {
        let head = [
            u32::from_le_bytes([9, 0, bytes, kind as u8]),
            u32::from_le_bytes([bar, id, 0, 0]),
        ];
        let all: Vec<u32> = head.into_iter().chain(words).collect();

        Capability::read(AT, all[0], kind, |at| all[(at - AT) / 4]).unwrap()
    }

    fn common(offset: u32, length: u32) -> Capability {
        capability(16, Kind::Common, 4, 0, [offset, length, !0, !0])
    }

    #[test]
    fn a_good_one_is_taken() {
        let good = common(0x1000, 0x1000);

        assert_eq!(
            good.place(COMMON, 0x4000),
            Ok(Place {
                bar: 4,
                offset: 0x1000,
                length: 0x1000
            })
        );
        assert!(good.place(COMMON, 0x2000).is_ok(), "up to the end");
    }

    #[test]
    fn other_kinds_are_looked_at_no_further() {
        let known = [
            Kind::Common,
            Kind::Notify,
            Kind::Isr,
            Kind::Device,
            Kind::SharedMemory,
        ];

        for (number, kind) in (0..=255).flat_map(|number| known.map(|kind| (number, kind))) {
            let head = u32::from_le_bytes([9, 0, 16, number]);
            let found = Capability::read(AT, head, kind, |_| match number == kind as u8 {
                true => 0,
                false => panic!("{number} is not {kind:?}"),
            });

            assert_eq!(found.is_some(), number == kind as u8);
        }
    }

    #[test]
    fn nothing_outside_of_the_bar() {
        assert_eq!(
            common(0x1000, 0x1001).place(COMMON, 0x2000),
            Err(Mistake::OutsideBar)
        );
        assert_eq!(
            common(0x2000, 56).place(COMMON, 0x2000),
            Err(Mistake::OutsideBar)
        );
        assert_eq!(
            common(!3, !0).place(COMMON, 0x2000),
            Err(Mistake::OutsideBar)
        );
    }

    #[test]
    fn too_short_or_unaligned() {
        assert_eq!(common(0, 55).place(COMMON, 0x2000), Err(Mistake::TooSmall));
        assert_eq!(common(0, 0).place(COMMON, 0x2000), Err(Mistake::TooSmall));
        assert_eq!(common(2, 56).place(COMMON, 0x2000), Err(Mistake::Unaligned));
    }

    #[test]
    fn truncated() {
        let short = capability(15, Kind::Common, 4, 0, [0, 64, 0, 0]);
        let long = capability(255, Kind::Common, 4, 0, [0, 64, 0, 0]);
        let padded = capability(64, Kind::Common, 4, 0, [0, 64, 0, 0]);
        let notify = Need {
            kind: Kind::Notify,
            min: 2,
            align: 2,
        };

        assert_eq!(short.place(COMMON, 0x2000), Err(Mistake::Truncated));
        assert_eq!(long.place(COMMON, 0x2000), Err(Mistake::Truncated));
        assert!(padded.place(COMMON, 0x2000).is_ok());
        assert_eq!(
            capability(16, Kind::Notify, 4, 0, [0, 64, 4, 0]).place(notify, 0x2000),
            Err(Mistake::Truncated),
            "no multiplier"
        );
    }

    #[test]
    fn shared_memory_has_64_bits() {
        let need = Need {
            kind: Kind::SharedMemory,
            min: 1,
            align: 1,
        };
        let region = capability(24, Kind::SharedMemory, 2, 7, [0x1000, 0x2000, 1, 2]);

        assert_eq!(region.id(), 7);
        assert_eq!(
            region.place(need, u64::MAX),
            Ok(Place {
                bar: 2,
                offset: 0x1_0000_1000,
                length: 0x2_0000_2000
            })
        );
        assert_eq!(region.place(need, 0x3_0000_2fff), Err(Mistake::OutsideBar));
        assert_eq!(
            capability(24, Kind::SharedMemory, 2, 7, [!0; 4]).place(need, u64::MAX),
            Err(Mistake::OutsideBar),
            "overflow"
        );
        assert_eq!(
            capability(20, Kind::SharedMemory, 2, 7, [0, 1, 0, 0]).place(need, u64::MAX),
            Err(Mistake::Truncated)
        );
    }

    #[test]
    fn notifications_stay_inside() {
        let place = Place {
            bar: 4,
            offset: 0x3000,
            length: 0x1000,
        };

        assert_eq!(notification(place, 0, 0, 2), Some(0));
        assert_eq!(notification(place, 0xffff, 0, 2), Some(0), "one for all");
        assert_eq!(notification(place, 3, 4, 2), Some(12));
        assert_eq!(
            notification(place, 0x7ff, 2, 2),
            Some(0xffe),
            "the last one"
        );
        assert_eq!(notification(place, 0x7ff, 2, 4), None);
        assert_eq!(notification(place, 0x800, 2, 2), None);
        assert_eq!(notification(place, 1, 1, 2), None, "unaligned");
        assert_eq!(notification(place, 1, 2, 4), None, "unaligned");
        assert_eq!(
            notification(place, 2, 0x8000_0000, 2),
            None,
            "32 bits overflow"
        );
        assert_eq!(notification(place, 0xffff, 0x8000_0000, 2), None);
    }
}
