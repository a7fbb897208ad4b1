// SPDX-License-Identifier: GPL-2.0

//! Memory of any length for a device, in pieces, with the scatter list that names them.
//!
//! A device that does not answer keeps what it was given. So what belongs to others is copied into
//! such memory, and out of it, instead of being given to the device.
//!
//! C header: `include/linux/scatterlist.h`.

use super::sg::{
    Readable,
    Writable, //
};

use kernel::{
    bindings,
    num::casts::u32_as_usize,
    prelude::*, //
};

/// How long a piece is, in bytes, as long as there are not too many: what the page allocator can
/// always find.
const PIECE: usize = kernel::page::PAGE_SIZE << 3;

/// How many are not too many: a device has room for a limited number.
const MANY: usize = 32;

/// Bit of `page_link`: the list ends with this entry.
const SG_END: c_ulong = bindings::SG_END as c_ulong;

/// Memory in pieces.
///
/// # Invariants
///
/// No piece is empty. `list` has an entry for each of `pieces`, in their order, which names all of
/// it, and the last entry says that the list ends. Pieces do not move when this does.
pub struct Pieces {
    pieces: KVec<KVec<u8>>,
    list: KVec<bindings::scatterlist>,
}

impl Pieces {
    /// No memory at all.
    // INVARIANT: There are no pieces.
    pub const NOTHING: Self = Self {
        pieces: KVec::new(),
        list: KVec::new(),
    };

    /// Appends a copy of some bytes, not in one piece with those before.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn push(&mut self, bytes: &[u8]) -> Result {
        for part in bytes.chunks(piece(bytes.len())) {
            let mut piece = KVec::with_capacity(part.len(), GFP_KERNEL)?;

            piece.extend_from_slice(part, GFP_KERNEL)?;
            self.push_piece(piece)?;
        }
        Ok(())
    }

    /// Appends `len` bytes of 0; otherwise as [`Self::push`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn push_zeroes(&mut self, len: usize) -> Result {
        let mut left = len;

        while left > 0 {
            let part = left.min(piece(len));

            self.push_piece(KVec::from_elem(0, part, GFP_KERNEL)?)?;
            left -= part;
        }
        Ok(())
    }

    /// Appends a copy of what a scatter list names; otherwise as [`Self::push`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn push_list(&mut self, from: &ForeignList) -> Result {
        let first = self.pieces.len();
        let mut skip = 0;

        self.push_zeroes(from.len)?;
        for piece in self.pieces.iter_mut().skip(first) {
            let at = skip.try_into()?;

            // SAFETY: By its type invariant the list is valid, and `piece` has as many bytes.
            skip += unsafe {
                bindings::sg_pcopy_to_buffer(
                    from.list,
                    from.entries,
                    piece.as_mut_ptr().cast(),
                    piece.len(),
                    at,
                )
            };
        }
        Ok(())
    }

    /// Appends a piece, which is not empty.
    fn push_piece(&mut self, piece: KVec<u8>) -> Result {
        let mut entry = bindings::scatterlist::default();
        let len = u32::try_from(piece.len())?;

        // SAFETY: `entry` is one entry; the piece is `len` long and from kmalloc.
        unsafe { bindings::sg_init_one(&mut entry, piece.as_ptr().cast(), len) };
        self.pieces.reserve(1, GFP_KERNEL)?;
        self.list.reserve(1, GFP_KERNEL)?;
        if let Some(last) = self.list.last_mut() {
            last.page_link &= !SG_END;
        }
        // INVARIANT: Neither fails, as there is room, so both are appended.
        self.pieces.push(piece, GFP_KERNEL)?;
        self.list.push(entry, GFP_KERNEL)?;
        Ok(())
    }

    /// How many pieces there are.
    pub fn count(&self) -> usize {
        self.pieces.len()
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// The bytes of the first piece.
    pub fn first(&self) -> &[u8] {
        self.pieces.first().map_or(&[], |piece| piece)
    }

    /// The pieces from the one with number `first` on, of which the first `len` bytes count.
    fn parts(&self, first: usize, len: usize) -> impl Iterator<Item = &[u8]> {
        let mut left = len;

        self.pieces.iter().skip(first).map(move |piece| {
            let part = piece.get(..left).unwrap_or(piece);

            left -= part.len();
            part
        })
    }

    /// Copies the first `len` bytes behind the first piece, or as many as there are, to the
    /// beginning of `to`, the rest of which becomes 0.
    pub fn copy_rest(&self, len: usize, to: &mut [u8]) {
        let mut bytes = self.parts(1, len).flatten();

        to.fill_with(|| bytes.next().copied().unwrap_or(0));
    }

    /// Copies the same to what a scatter list names; returns how many bytes it were.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are more than can be counted.
    pub fn copy_rest_to_list(&self, len: usize, to: &ForeignList) -> Result<usize> {
        let mut done = 0;

        for part in self.parts(1, len) {
            let at = done.try_into()?;

            // SAFETY: By its type invariant the list is valid, and `part` has as many bytes, which
            // are only read.
            done += unsafe {
                bindings::sg_pcopy_from_buffer(
                    to.list,
                    to.entries,
                    part.as_ptr().cast(),
                    part.len(),
                    at,
                )
            };
        }
        Ok(done)
    }
}

/// How long the pieces of `len` bytes are at most.
fn piece(len: usize) -> usize {
    PIECE.max(len.div_ceil(MANY).next_multiple_of(kernel::page::PAGE_SIZE))
}

impl<'a> From<&'a Pieces> for Readable<'a> {
    fn from(pieces: &'a Pieces) -> Self {
        match pieces.list.is_empty() {
            true => Self::NOTHING,
            // SAFETY: By the type invariant; both vectors keep their elements in place.
            false => unsafe { Self::from_list(pieces.list.as_ptr()) },
        }
    }
}

impl<'a> From<&'a mut Pieces> for Writable<'a> {
    fn from(pieces: &'a mut Pieces) -> Self {
        match pieces.list.is_empty() {
            true => Self::NOTHING,
            // SAFETY: As above.
            false => unsafe { Self::from_list(pieces.list.as_mut_ptr()) },
        }
    }
}

// SAFETY: The list names memory that belongs to the value.
unsafe impl Send for Pieces {}

// SAFETY: Through a shared reference nothing changes.
unsafe impl Sync for Pieces {}

/// A scatter list of somebody else.
///
/// # Invariants
///
/// `list` is a valid list of `entries` entries, which name `len` bytes that nobody else uses.
pub struct ForeignList {
    list: *mut bindings::scatterlist,
    entries: c_uint,
    len: usize,
}

impl ForeignList {
    /// # Safety
    ///
    /// The list must be valid or null, and the memory that it names the caller's, as long as the
    /// result.
    pub unsafe fn new(list: *mut bindings::scatterlist) -> Self {
        let (mut entries, mut len) = (0, 0_usize);
        let mut entry = list;

        while !entry.is_null() {
            // SAFETY: By the requirements above.
            len = len.saturating_add(u32_as_usize(unsafe { (*entry).length }));
            entries += 1;
            // SAFETY: By the requirements above.
            entry = unsafe { bindings::sg_next(entry) };
        }
        // INVARIANT: Counted just now.
        Self { list, entries, len }
    }

    /// How many bytes it names.
    pub fn bytes(&self) -> usize {
        self.len
    }
}
