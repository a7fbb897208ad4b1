// SPDX-License-Identifier: GPL-2.0

//! Indirect descriptor tables (Virtio 1.4, 2.7.5.3 and 2.8.7): how they are filled, and which sizes
//! of them are kept for the next buffer.
//!
//! Uses only `core`; `pool.rs` owns the memory.

#![deny(unsafe_code)]

use super::{
    layout::{
        Desc,
        PackedDesc,
        Piece, //
    },
    state::{
        Chain,
        Mapped,
        Pieces, //
    },
};

/// A descriptor in a table.
pub(crate) trait TableDesc: Copy + 'static {
    /// Describes the piece before entry `next`.
    fn describe(piece: &Piece, next: u16) -> Self;
}

impl TableDesc for Desc {
    #[inline(always)]
    fn describe(piece: &Piece, next: u16) -> Self {
        Self::new(piece.addr, piece.len, piece.chain_flags(), next)
    }
}

impl TableDesc for PackedDesc {
    #[inline(always)]
    fn describe(piece: &Piece, _next: u16) -> Self {
        Self::new(piece.addr, piece.len, 0, piece.access_flags())
    }
}

/// Puts `pieces` into a table, as many as it has room for, and their mappings into `maps`, which
/// may be empty. Returns what was put there: a chain from 0.
///
/// # Errors
///
/// That of `pieces`; what was mapped before was handed to `undo`.
#[inline(always)]
pub(crate) fn fill<D: TableDesc, P: Pieces>(
    table: &mut [D],
    maps: &mut [Mapped],
    pieces: &P,
    mut undo: impl FnMut(Mapped),
) -> Result<Chain, P::Error> {
    let mut chain = Chain::new(0);
    let mut free = table.iter_mut();
    let mut free_maps = maps.iter_mut();
    let filled = pieces.each(|piece| {
        let Some(entry) = free.next() else {
            return;
        };
        let next = chain.next.wrapping_add(1);
        *entry = D::describe(&piece, next);
        if let Some(mapped) = free_maps.next() {
            *mapped = Mapped::from(&piece);
        }
        chain.push(&piece, next);
    });
    match filled {
        Ok(()) => Ok(chain),
        Err(error) => {
            maps.iter()
                .take(usize::from(chain.count))
                .for_each(|&mapped| undo(mapped));
            Err(error)
        }
    }
}

/// Number of sizes that are kept.
pub(crate) const CLASSES: usize = 7;

const SMALLEST: usize = 128;

/// The class of an allocation of `bytes`: a power of two from 128 to 8192 bytes. `None` if it is
/// larger; such are not kept.
#[inline(always)]
pub(crate) fn class_of(bytes: usize) -> Option<usize> {
    // CAST: Below 64.
    let class = (bytes.max(SMALLEST).wrapping_sub(1).ilog2() as usize).wrapping_sub(6);
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
/// they come.
pub(crate) const fn idle_limit(size: u16) -> usize {
    size as usize * 256
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
