// SPDX-License-Identifier: GPL-2.0

//! What user space reads of a device: the contents of its files in sysfs and its module alias.
//!
//! Uses only `core`.

#![deny(unsafe_code)]

use super::{
    ids::Id,
    status::Status, //
};
use crate::config::Features;

use core::fmt::{
    self,
    Write, //
};

/// The longest text here: a digit for each feature bit, a line feed, and a NUL.
const CAPACITY: usize = 128 + 2;

/// A short text that ends with a NUL.
pub(crate) struct Text {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Text {
    /// The text, without the NUL.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The text, with the NUL behind it.
    pub(crate) fn with_nul(&self) -> &[u8] {
        self.bytes.get(..=self.len).unwrap_or(&[0])
    }

    /// Formats; what has no room is cut off.
    fn of(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self {
            bytes: [0; CAPACITY],
            len: 0,
        };

        // Fails only where the text is full.
        let _ = text.write_fmt(arguments);
        text
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.saturating_add(text.len());
        // The last byte stays a NUL.
        let place = self.bytes.get_mut(self.len..end).filter(|_| end < CAPACITY);

        for (to, from) in place.ok_or(fmt::Error)?.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        self.len = end;
        Ok(())
    }
}

/// The files `device` and `vendor`.
pub(crate) fn id(id: u32) -> Text {
    Text::of(format_args!("{id:#06x}\n"))
}

/// The file `status`.
pub(crate) fn status(status: Status) -> Text {
    Text::of(format_args!("{:#010x}\n", status.bits()))
}

/// The module alias, which also stands in uevents.
pub(crate) fn alias(id: Id) -> Text {
    Text::of(format_args!("virtio:d{:08X}v{:08X}", id.device, id.vendor))
}

/// The file `modalias`.
pub(crate) fn modalias(id: Id) -> Text {
    let mut text = alias(id);

    // There is room: an alias has 26 bytes.
    let _ = text.write_str("\n");
    text
}

/// The file `features`: a digit for each bit, the lowest one first.
pub(crate) fn features(features: Features) -> Text {
    let mut text = Text::of(format_args!(""));

    for bit in 0..Features::BITS {
        // There is room for as many.
        let _ = text.write_str(if features.has(bit) { "1" } else { "0" });
    }
    let _ = text.write_str("\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: Text, expected: &str) {
        assert_eq!(text.as_bytes(), expected.as_bytes());
        assert_eq!(text.with_nul(), format!("{expected}\0").as_bytes());
    }

    #[test]
    fn ids_have_at_least_four_digits() {
        check(id(5), "0x0005\n");
        check(id(0x1af4), "0x1af4\n");
        check(id(0), "0x0000\n");
        check(id(0x554d_4551), "0x554d4551\n");
    }

    #[test]
    fn status_has_eight_digits() {
        check(status(Status::from_bits(15)), "0x0000000f\n");
        check(status(Status::from_bits(0xff)), "0x000000ff\n");
        check(status(Status::RESET), "0x00000000\n");
    }

    #[test]
    fn aliases_are_upper_case() {
        let device = Id {
            device: 0x1a,
            vendor: 0xdead_beef,
        };

        check(alias(device), "virtio:d0000001AvDEADBEEF");
        check(modalias(device), "virtio:d0000001AvDEADBEEF\n");
        let most = Id {
            device: Id::ANY,
            vendor: Id::ANY,
        };
        check(modalias(most), "virtio:dFFFFFFFFvFFFFFFFF\n");
    }

    #[test]
    fn features_begin_with_the_lowest() {
        let some = Features::from_words([1 | 1 << 63, 1 << 1 | 1 << 63]);
        let mut expected = String::new();
        for bit in 0..128 {
            expected.push(if [0, 63, 65, 127].contains(&bit) {
                '1'
            } else {
                '0'
            });
        }

        check(features(some), &(expected + "\n"));
    }

    #[test]
    fn what_has_no_room_is_cut_off() {
        let mut text = Text::of(format_args!("{:128}", ""));

        assert_eq!(text.as_bytes().len(), 128);
        assert!(text.write_str("ab").is_err());
        assert!(text.write_str("a").is_ok());
        assert!(text.write_str("b").is_err());
        assert_eq!(text.with_nul().len(), CAPACITY);
    }
}
