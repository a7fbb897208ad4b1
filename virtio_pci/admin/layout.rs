// SPDX-License-Identifier: GPL-2.0

//! What administration commands look like (Virtio 1.4, 2.12): all fields are little-endian.
//!
//! Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

/// The commands that this driver knows, with their opcodes (Virtio 1.4, 2.12.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opcode {
    /// Which commands there are for a group.
    ListQuery = 0,
    /// Which ones the driver will use.
    ListUse = 1,
    /// Writes the legacy common configuration of a member.
    LegacyCommonWrite = 2,
    /// Reads it.
    LegacyCommonRead = 3,
    /// Writes the legacy device configuration of a member.
    LegacyDeviceWrite = 4,
    /// Reads it.
    LegacyDeviceRead = 5,
    /// Where notifications of a member's legacy interface go.
    LegacyNotifyInfo = 6,
    /// Which capabilities there are.
    CapabilityList = 7,
    /// What the device says about one.
    CapabilityGet = 8,
    /// What the driver will use of it.
    CapabilitySet = 9,
    /// Creates a resource object.
    ObjectCreate = 0xa,
    /// Destroys one.
    ObjectDestroy = 0xd,
    /// What there is to be known about the parts of a member's state.
    PartsMetadata = 0xe,
    /// Reads the parts.
    PartsGet = 0xf,
    /// Writes them.
    PartsSet = 0x10,
    /// Stops a member, or lets it go on.
    ModeSet = 0x11,
}

impl Opcode {
    /// Its number.
    pub(crate) const fn number(self) -> u16 {
        // CAST: The numbers are those of the specification.
        self as u16
    }
}

/// A set of commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Opcodes(u64);

impl Opcodes {
    /// None.
    pub(crate) const NONE: Self = Self(0);

    /// Those for the legacy interface of members.
    pub(crate) const LEGACY: Self = Self::of(&[
        Opcode::LegacyCommonWrite,
        Opcode::LegacyCommonRead,
        Opcode::LegacyDeviceWrite,
        Opcode::LegacyDeviceRead,
        Opcode::LegacyNotifyInfo,
    ]);

    /// Those for capabilities.
    pub(crate) const CAPABILITY: Self = Self::of(&[
        Opcode::CapabilityList,
        Opcode::CapabilityGet,
        Opcode::CapabilitySet,
    ]);

    /// Those for the parts of a member's state.
    pub(crate) const PARTS: Self = Self::of(&[
        Opcode::CapabilityList,
        Opcode::CapabilityGet,
        Opcode::CapabilitySet,
        Opcode::ObjectCreate,
        Opcode::ObjectDestroy,
        Opcode::PartsMetadata,
        Opcode::PartsGet,
        Opcode::PartsSet,
        Opcode::ModeSet,
    ]);

    const fn of(opcodes: &[Opcode]) -> Self {
        let mut bits = 0;
        let mut place = 0;

        while place < opcodes.len() {
            bits |= 1 << opcodes[place].number();
            place += 1;
        }
        Self(bits)
    }

    /// As a device lists them, the first word of it.
    pub(crate) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    /// As the driver lists them.
    pub(crate) const fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// Those that are in both sets.
    pub(crate) const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are in one set or the other.
    pub(crate) const fn either(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether all of `other` are in it.
    pub(crate) const fn has_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Tells whether a command is in it.
    pub(crate) const fn has(self, opcode: Opcode) -> bool {
        self.has_all(Self::of(&[opcode]))
    }
}

/// Whom a command is about (Virtio 1.4, 2.12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// The device that has the queue.
    Own,
    /// All its virtual functions.
    Functions,
    /// One of them; the first is 1.
    Function(u64),
}

impl Target {
    /// Tells whether it is the device itself.
    pub(crate) const fn is_own(self) -> bool {
        matches!(self, Self::Own)
    }

    const fn group_and_member(self) -> (u16, u64) {
        match self {
            Self::Own => (0, 0),
            Self::Functions => (1, 0),
            Self::Function(member) => (1, member),
        }
    }
}

/// Puts parts one after the other; the rest is 0.
fn compose<const N: usize>(parts: &[(usize, &[u8])]) -> [u8; N] {
    let mut bytes = [0; N];

    for (at, part) in parts {
        if let Some(place) = bytes.get_mut(*at..*at + part.len()) {
            place.copy_from_slice(part);
        }
    }
    bytes
}

/// What every command begins with (`struct virtio_admin_cmd`): opcode in bytes 0..2, group type in
/// 2..4, member in 16..24.
pub(crate) fn header(opcode: Opcode, target: Target) -> [u8; 24] {
    let (group, member) = target.group_and_member();

    compose(&[
        (0, &opcode.number().to_le_bytes()),
        (2, &group.to_le_bytes()),
        (16, &member.to_le_bytes()),
    ])
}

/// How long that is which the device answers before the result: status in bytes 0..2, qualifier in
/// 2..4.
pub(crate) const STATUS_BYTES: usize = 8;

/// How a device answers a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Status {
    /// 0, or what is wrong: the errno of Linux.
    pub(crate) code: u16,
    /// More about it, for the log.
    pub(crate) qualifier: u16,
}

impl Status {
    /// `VIRTIO_ADMIN_STATUS_OK`.
    pub(crate) const OK: u16 = 0;
    /// `VIRTIO_ADMIN_STATUS_EAGAIN`.
    pub(crate) const EAGAIN: u16 = 11;
    /// `VIRTIO_ADMIN_STATUS_EINVAL`.
    pub(crate) const EINVAL: u16 = 22;

    /// The largest errno that programs know.
    const LAST: u16 = 133;

    /// The one in an answer, if that is long enough.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d, ..] = *bytes.first_chunk::<STATUS_BYTES>()?;

        Some(Self {
            code: u16::from_le_bytes([a, b]),
            qualifier: u16::from_le_bytes([c, d]),
        })
    }

    /// The number of the errno; a status that is none means `EINVAL`.
    pub(crate) const fn errno(self) -> u16 {
        match self.code {
            code @ Self::OK..=Self::LAST => code,
            _ => Self::EINVAL,
        }
    }
}

/// The one capability that this driver knows: parts of members' states.
pub(crate) const PARTS_CAPABILITY: u16 = 0;

/// Its bit in the list of capabilities.
pub(crate) const PARTS_CAPABILITY_BIT: u64 = 1 << PARTS_CAPABILITY;

/// The data of [`Opcode::CapabilityGet`]: its number in bytes 0..2.
pub(crate) fn capability_get() -> [u8; 8] {
    compose(&[(0, &PARTS_CAPABILITY.to_le_bytes())])
}

/// The data of [`Opcode::CapabilitySet`]: its number in bytes 0..2, how many objects there may be
/// to read parts in byte 8, how many to write them in 9. All of it is a multiple of 8 bytes.
pub(crate) fn capability_set(objects: u8) -> [u8; 16] {
    compose(&[
        (0, &PARTS_CAPABILITY.to_le_bytes()),
        (8, &[objects, objects]),
    ])
}

/// What a resource object is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Object {
    /// Its type; 0 are the parts of a member's state.
    pub(crate) kind: u16,
    /// Its number.
    pub(crate) id: u32,
}

impl Object {
    /// The type of objects for parts of a member's state.
    pub(crate) const PARTS: u16 = 0;

    /// Type in bytes 0..2, number in 4..8.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        compose(&[(0, &self.kind.to_le_bytes()), (4, &self.id.to_le_bytes())])
    }

    /// The data of [`Opcode::ObjectCreate`]: the object in bytes 0..8, flags in 8..16, whether it
    /// is to write parts in 16.
    pub(crate) fn create(self, writes: u8) -> [u8; 24] {
        compose(&[(0, &self.to_bytes()), (16, &[writes])])
    }

    /// The data of [`Opcode::PartsMetadata`] and [`Opcode::PartsGet`]: the object in bytes 0..8,
    /// what is wanted in 8.
    pub(crate) fn select(self, what: u8) -> [u8; 16] {
        compose(&[(0, &self.to_bytes()), (8, &[what])])
    }
}

/// Metadata wanted: the size of all parts, in bytes.
pub(crate) const METADATA_SIZE: u8 = 0;

/// Parts wanted: all of them.
pub(crate) const PARTS_ALL: u8 = 1;

/// The data of [`Opcode::ModeSet`]: flags in byte 0. All of it is a multiple of 8 bytes.
pub(crate) fn mode_set(flags: u8) -> [u8; 8] {
    compose(&[(0, &[flags])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_as_in_the_specification() {
        let mut wanted = [0; 24];

        wanted[0] = 0x11;
        wanted[2] = 1;
        wanted[16..18].copy_from_slice(&[0x34, 0x12]);
        assert_eq!(header(Opcode::ModeSet, Target::Function(0x1234)), wanted);
        assert_eq!(header(Opcode::ListQuery, Target::Own), [0; 24]);
    }

    #[test]
    fn data_is_a_multiple_of_8_bytes() {
        let object = Object { kind: 0, id: 7 };

        for bytes in [
            capability_get().len(),
            capability_set(3).len(),
            object.to_bytes().len(),
            object.create(1).len(),
            object.select(1).len(),
            mode_set(1).len(),
        ] {
            assert_eq!(bytes % 8, 0);
        }
    }

    #[test]
    fn objects() {
        let object = Object {
            kind: 0x102,
            id: 0x0403_0201,
        };

        assert_eq!(object.to_bytes(), [2, 1, 0, 0, 1, 2, 3, 4]);
        assert_eq!(object.create(1)[16], 1);
        assert_eq!(object.select(9)[8], 9);
        assert_eq!(capability_set(5)[8..10], [5, 5]);
    }

    #[test]
    fn sets_of_commands() {
        let some = Opcodes::from_bytes([0x7c, 0, 0, 0, 0, 0, 0, 0x80]);

        assert!(some.has_all(Opcodes::LEGACY));
        assert!(!some.has_all(Opcodes::PARTS));
        assert!(some.has(Opcode::LegacyNotifyInfo) && !some.has(Opcode::ModeSet));
        assert_eq!(
            some.both(Opcodes::LEGACY).to_bytes(),
            [0x7c, 0, 0, 0, 0, 0, 0, 0]
        );
        assert!(Opcodes::PARTS.has_all(Opcodes::CAPABILITY));
        assert_eq!(Opcodes::PARTS.to_bytes(), [0x80, 0xe7, 3, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_status_is_an_errno_or_invalid() {
        let status =
            |code: u16| Status::from_bytes(&[code.to_le_bytes(), [7, 0], [0; 2], [0; 2]].concat());
        let errno = |code| status(code).unwrap().errno();

        assert_eq!([0, 11, 22, 133].map(errno), [0, 11, 22, 133]);
        assert_eq!([134, 512, 4096, 0xffff].map(errno), [22; 4]);
        assert_eq!(status(1).unwrap().qualifier, 7);
        assert_eq!(Status::from_bytes(&[0; 7]), None);
    }
}
