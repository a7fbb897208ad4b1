// SPDX-License-Identifier: GPL-2.0

//! Indirect descriptor tables (Virtio 1.4, 2.7.5.3 and 2.8.7): how they are filled, and which sizes
//! of them are kept for the next buffer.
//!
//! Uses only `core`; `pool.rs` owns the memory.

#![deny(unsafe_code)]

use super::{
    layout::{
        desc,
        Desc,
        PackedDesc,
        Piece, //
    },
    state::{
        Mapped,
        Pieces, //
    },
};
use crate::virtio::endian::Le16;

use core::{
    convert::Infallible,
    num::NonZeroU16, //
};

/// A descriptor in a table.
pub(crate) trait TableDesc: Copy + 'static {
    /// Describes a piece that is followed by entry `next`.
    fn describe(piece: &Piece, next: u16) -> Self;

    /// Says that nothing follows, after the last piece, whose flags were `flags`.
    fn end(&mut self, flags: u16);
}

impl TableDesc for Desc {
    #[inline(always)]
    fn describe(piece: &Piece, next: u16) -> Self {
        Self::new(piece.addr, piece.len, piece.flags | desc::NEXT, next)
    }

    #[inline(always)]
    fn end(&mut self, flags: u16) {
        self.flags = Le16::from_cpu(flags);
    }
}

impl TableDesc for PackedDesc {
    #[inline(always)]
    fn describe(piece: &Piece, _next: u16) -> Self {
        Self::new(piece.addr, piece.len, 0, piece.flags)
    }

    #[inline(always)]
    fn end(&mut self, _flags: u16) {}
}

/// What is to be mapped, as a table of its own: addresses are still the physical ones.
impl TableDesc for Mapped {
    #[inline(always)]
    fn describe(piece: &Piece, _next: u16) -> Self {
        piece.into()
    }

    #[inline(always)]
    fn end(&mut self, _flags: u16) {}
}

/// Maps a buffer piece by piece with `map`: `maps`, filled by [`fill`], says what, and keeps the
/// addresses; `table` gets its descriptors. Ends at the first piece that cannot be mapped, and
/// returns how many were.
#[inline(always)]
pub(crate) fn map_into<D: TableDesc>(
    table: &mut [D],
    maps: &mut [Mapped],
    mut map: impl FnMut(&Mapped) -> Option<u64>,
) -> u16 {
    let mut done = 0u16;
    let mut last = None;
    for (entry, mapped) in table.iter_mut().zip(maps) {
        let Some(addr) = map(mapped) else {
            return done;
        };
        let flags = mapped.mapping.flags();
        mapped.addr = addr;
        done = done.wrapping_add(1);
        let piece = Piece {
            addr,
            len: mapped.len,
            flags,
            mapped: true,
        };
        *entry = D::describe(&piece, done);
        last = Some((entry, flags));
    }
    if let Some((entry, flags)) = last {
        entry.end(flags);
    }
    done
}

/// What was put into a table.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    /// Number of descriptors.
    pub(crate) count: NonZeroU16,
    /// How many bytes the device may write.
    pub(crate) writable: u32,
}

/// Puts `pieces` into a table. `None` if it has no room for all of them, or if there are more or
/// fewer than was said.
// By itself the loop has the registers that it needs.
#[inline(never)]
pub(crate) fn fill<D, P>(table: &mut [D], pieces: &P) -> Option<Content>
where
    D: TableDesc,
    P: Pieces<Error = Infallible>,
{
    let mut count = 0u16;
    let mut writable = 0u64;
    let mut flags = 0u16;
    let mut last = None;
    let mut free = table.iter_mut();
    let filled = pieces.each(|piece| {
        let Some(entry) = free.next() else {
            return false;
        };
        count = count.wrapping_add(1);
        *entry = D::describe(&piece, count);
        last = Some(entry);
        flags = piece.flags;
        writable = writable.wrapping_add(piece.writable_len().into());
        true
    });
    let Ok(filled) = filled;
    let (last, count) = (last?, NonZeroU16::new(count)?);
    if !filled || !pieces.may_be(count.get()) {
        return None;
    }
    last.end(flags);
    Some(Content {
        count,
        writable: u32::try_from(writable).unwrap_or(u32::MAX),
    })
}

/// Number of sizes that are kept.
pub(crate) const CLASSES: usize = 7;

const SMALLEST: usize = 128;

/// The class of an allocation of `bytes`: a power of two from 128 to 8192 bytes. `None` if it is
/// larger; such are not kept.
#[inline(always)]
pub(crate) fn class_of(bytes: usize) -> Option<usize> {
    let multiples = bytes.wrapping_sub(1) / SMALLEST;
    // CAST: At most 64.
    let class = usize::BITS.wrapping_sub(multiples.leading_zeros()) as usize;
    (class < CLASSES).then_some(class)
}

/// The size of an allocation of a class in bytes.
#[inline(always)]
pub(crate) const fn class_bytes(class: usize) -> usize {
    // CAST: Below 64.
    SMALLEST.wrapping_shl(class as u32)
}

/// How much memory a queue of `size` descriptors keeps in tables that are not in use, in bytes.
///
/// A full queue of small requests needs no more; large ones beyond it are allocated and freed as
/// they come. Of a large queue only a part is kept, so that a burst does not cost memory for ever.
pub(crate) const fn idle_limit(size: u16) -> u32 {
    const MOST: u32 = 64 << 10;
    let wanted = size as u32 * 256;
    if wanted < MOST {
        wanted
    } else {
        MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_are_for() {
        for bytes in 1..=8192 {
            let class = class_of(bytes).unwrap();
            assert!(class_bytes(class) >= bytes);
            assert!(class == 0 || class_bytes(class - 1) < bytes);
        }
        assert_eq!(class_of(8193), None);
        assert_eq!(class_of(1 << 20), None);
    }
}
