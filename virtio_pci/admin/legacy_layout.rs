// SPDX-License-Identifier: GPL-2.0

//! What administration commands for the legacy interface of members look like (Virtio 1.4,
//! 2.12.1.1); `layout.rs` has what all commands have in common.
//!
//! Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

/// The data of commands that read a legacy register: its offset.
pub(crate) fn legacy_read(offset: u8) -> [u8; 1] {
    [offset]
}

/// The data of commands that write one, before what is written: its offset in byte 0.
pub(crate) fn legacy_write(offset: u8) -> [u8; 8] {
    [offset, 0, 0, 0, 0, 0, 0, 0]
}

/// Whose BAR has the place for notifications.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    /// The device that has the queue.
    Owner = 1,
    /// The member.
    Member = 2,
}

impl Holder {
    /// The one with a number.
    pub(crate) const fn from_flags(flags: u8) -> Option<Self> {
        match flags {
            1 => Some(Self::Owner),
            2 => Some(Self::Member),
            _ => None,
        }
    }
}

/// Where notifications of a member's legacy interface go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Notification {
    /// Which BAR.
    pub(crate) bar: u8,
    /// Where in it, in bytes.
    pub(crate) offset: u64,
}

/// The result of `Opcode::LegacyNotifyInfo`: entries with flags in byte 0, BAR in 1, offset in
/// 8..16.
pub(crate) type NotifyInfo = [[u8; 16]; 4];

/// The first place of an answer that is in a BAR of `holder`; `bar_len` says how long a BAR is. The
/// list ends where flags are 0. Places that are odd, or outside of their BAR, are passed over.
pub(crate) fn notification(
    answer: &NotifyInfo,
    holder: Holder,
    bar_len: impl Fn(u8) -> u64,
) -> Option<Notification> {
    for entry in answer.iter().take_while(|entry| entry[0] != 0) {
        let [flags, bar, _, _, _, _, _, _, a, b, c, d, e, f, g, h] = *entry;
        let offset = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let inside = offset.checked_add(2).is_some_and(|end| end <= bar_len(bar));

        if Holder::from_flags(flags) == Some(holder) && offset % 2 == 0 && inside {
            return Some(Notification { bar, offset });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_begins_at_a_multiple_of_8_bytes() {
        assert_eq!(legacy_write(20), [20, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(legacy_read(20), [20]);
    }

    /// An answer with these entries; bars have 0x1000 bytes, but there are only 0 to 5.
    fn first(entries: &[(u8, u8, u64)]) -> Option<Notification> {
        let mut answer = NotifyInfo::default();

        for (place, (flags, bar, offset)) in answer.iter_mut().zip(entries) {
            place[..2].copy_from_slice(&[*flags, *bar]);
            place[8..].copy_from_slice(&offset.to_le_bytes());
        }
        notification(
            &answer,
            Holder::Member,
            |bar| if bar < 6 { 0x1000 } else { 0 },
        )
    }

    #[test]
    fn the_first_good_place_is_taken() {
        let good = Some(Notification {
            bar: 2,
            offset: 0xffe,
        });

        assert_eq!(first(&[(2, 2, 0xffe)]), good);
        assert_eq!(first(&[(1, 0, 0), (2, 2, 0xffe), (2, 0, 0)]), good);
        assert_eq!(
            first(&[(2, 6, 0), (2, 2, 1), (2, 0, 0x1000), (2, 2, 0xffe)]),
            good
        );
        assert_eq!(
            first(&[(3, 2, 0), (2, 2, u64::MAX - 1), (2, 2, 0xffe)]),
            good
        );
    }

    #[test]
    fn the_list_ends() {
        assert_eq!(first(&[]), None);
        assert_eq!(first(&[(1, 0, 0), (0, 0, 0), (2, 0, 0)]), None);
        assert_eq!(first(&[(1, 0, 0); 4]), None);
    }
}
