// SPDX-License-Identifier: GPL-2.0

//! Buffers as drivers hand them over: arrays of scatterlists.
//!
//! Follows `include/linux/scatterlist.h`, whose accessors are inline there.

use super::{
    layout::{
        desc,
        Piece, //
    },
    map::{
        self,
        Mapper,
        SKIP_CPU_SYNC, //
    },
    state::{
        Mapped,
        Pieces, //
    },
};
use crate::{
    kernel_ext::phys::PageFrames,
    virtio::bindings::{
        dma_data_direction,
        scatterlist, //
    },
};

use core::{
    convert::Infallible,
    ptr::{
        self,
        with_exposed_provenance, //
    },
};
use kernel::{
    ffi::c_ulong,
    prelude::*, //
};

/// In `page_link`: the entry is not one, but points to where the list goes on.
const CHAIN: c_ulong = 1;

/// In `page_link`: the entry is the last one.
const END: c_ulong = 2;

/// Where a list goes on.
#[cold]
fn follow(link: c_ulong) -> *const scatterlist {
    with_exposed_provenance(link & !(CHAIN | END))
}

/// An entry of a list.
#[derive(Clone, Copy)]
struct Entry<'a> {
    sg: &'a scatterlist,
    /// Its `page_link`: the page, and flags in the two lowest bits.
    link: c_ulong,
}

impl Entry<'_> {
    /// The physical address of its first byte.
    #[inline(always)]
    fn phys(&self, frames: PageFrames) -> u64 {
        frames
            .phys(with_exposed_provenance(self.link))
            .wrapping_add(self.sg.offset.into())
    }
}

/// The buffer of one call: lists that the device reads, then lists that it writes.
///
/// # Invariants
///
/// `lists` points to `out + inward` pointers to well-formed, terminated lists, whose memory stays
/// valid until the buffer comes back; entries are mapped already if `premapped` says so.
pub(crate) struct Lists {
    lists: *const *mut scatterlist,
    out: u32,
    all: u32,
    /// Number of entries, or [`Self::UNKNOWN`].
    total: u32,
    premapped: bool,
    attrs: c_ulong,
}

impl Lists {
    /// For `total` when nobody has counted the entries.
    const UNKNOWN: u32 = u32::MAX;

    /// `total` entries in `out` lists for the device to read, then `inward` ones to write.
    ///
    /// # Safety
    ///
    /// As the type invariant says.
    #[inline(always)]
    pub(crate) unsafe fn new(
        lists: *const *mut scatterlist,
        (out, inward): (u32, u32),
        total: u32,
        premapped: bool,
        attrs: c_ulong,
    ) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            lists,
            out,
            all: out.wrapping_add(inward),
            total,
            premapped,
            attrs,
        }
    }

    /// As [`Self::new`], when nobody has counted the entries; a single list of one entry says that
    /// it is one.
    ///
    /// # Safety
    ///
    /// As the type invariant says.
    #[inline(always)]
    pub(crate) unsafe fn uncounted(lists: *const *mut scatterlist, parts: (u32, u32)) -> Self {
        // SAFETY: By the safety requirements.
        let mut made = unsafe { Self::new(lists, parts, Self::UNKNOWN, false, 0) };
        if made.all == 1 {
            // SAFETY: By the safety requirements there is one list.
            let first = unsafe { *lists };
            // SAFETY: By the safety requirements; a list may be empty.
            if unsafe { first.as_ref() }.is_some_and(|sg| sg.page_link & END != 0) {
                made.total = 1;
            }
        }
        made
    }

    /// Number of entries.
    #[inline(always)]
    pub(crate) fn total(&self) -> u32 {
        if self.total == Self::UNKNOWN {
            self.count()
        } else {
            self.total
        }
    }

    #[inline(never)]
    fn count(&self) -> u32 {
        let mut total = 0u32;
        let Ok(_) = self.walk::<Infallible>(|_, _| {
            total = total.wrapping_add(1);
            Ok(true)
        });
        total
    }

    /// The entry, if there is but one and the lists say so.
    #[inline(always)]
    fn one(&self) -> Option<(Entry<'_>, u16)> {
        if self.total != 1 || self.all != 1 {
            return None;
        }
        // SAFETY: By the type invariant.
        let first = unsafe { *self.lists };
        // SAFETY: By the type invariant.
        let sg = unsafe { first.as_ref() }?;
        let link = sg.page_link;
        let flags = if self.out == 0 { desc::WRITE } else { 0 };
        (link & END != 0).then_some((Entry { sg, link }, flags))
    }

    /// Whether it may be more than one entry.
    #[inline(always)]
    pub(crate) fn may_be_several(&self) -> bool {
        self.total != 1
    }

    /// Whether `count`, which is not 0, can be the number of entries.
    #[inline(always)]
    pub(crate) fn has(&self, count: u16) -> bool {
        self.total == Self::UNKNOWN || self.total == u32::from(count)
    }

    /// Attributes for mapping the entries.
    #[inline(always)]
    pub(crate) fn attrs(&self) -> c_ulong {
        self.attrs
    }

    /// Whether the caller has mapped the entries.
    #[inline(always)]
    pub(crate) fn premapped(&self) -> bool {
        self.premapped
    }

    /// Whether the device reads a part of the buffer.
    #[inline(always)]
    pub(crate) fn has_out(&self) -> bool {
        self.out != 0
    }

    /// Where the lists begin that the device reads, those that it writes, and the end.
    #[inline(always)]
    fn bounds(&self) -> [*const *mut scatterlist; 3] {
        // CAST: Widening.
        [0, self.out, self.all].map(|index| self.lists.wrapping_add(index as usize))
    }

    /// Hands every entry to `visit`, with `WRITE` if the device writes it. False if that had no
    /// room for one, and has seen none after it.
    ///
    /// # Errors
    ///
    /// Those of `visit`.
    #[inline(always)]
    fn walk<E>(&self, mut visit: impl FnMut(Entry<'_>, u16) -> Result<bool, E>) -> Result<bool, E> {
        let [mut list, inward, end] = self.bounds();
        let mut next = None;
        loop {
            let Some(sg) = next else {
                if list == end {
                    return Ok(true);
                }
                // SAFETY: By the type invariant; it is before the end.
                let first = unsafe { *list };
                // SAFETY: By the type invariant; a list may be empty.
                next = unsafe { first.as_ref() };
                list = list.wrapping_add(1);
                continue;
            };
            let link = sg.page_link;
            let flags = if list > inward { desc::WRITE } else { 0 };
            if !visit(Entry { sg, link }, flags)? {
                return Ok(false);
            }
            next = Self::after(sg, link);
        }
    }

    /// The entry after one with this `link`, in the same list.
    #[inline(always)]
    fn after<'a>(sg: &'a scatterlist, link: c_ulong) -> Option<&'a scatterlist> {
        if link & END != 0 {
            return None;
        }
        // SAFETY: By the type invariant: there is one after it.
        let next = unsafe { &*ptr::from_ref(sg).add(1) };
        if next.page_link & CHAIN == 0 {
            return Some(next);
        }
        // SAFETY: By the type invariant the list goes on there.
        Some(unsafe { &*follow(next.page_link) })
    }

    /// Walks through the lists from `list` to `end`, which are some of ours.
    #[inline(always)]
    fn walk_part<E>(
        &self,
        mut list: *const *mut scatterlist,
        end: *const *mut scatterlist,
        mut visit: impl FnMut(Entry<'_>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        while list != end {
            // SAFETY: By the type invariant; it is before the end.
            let first = unsafe { *list };
            // SAFETY: By the type invariant; a list may be empty.
            if let Some(mut sg) = unsafe { first.as_ref() } {
                let mut link = sg.page_link;
                loop {
                    if !visit(Entry { sg, link })? {
                        return Ok(false);
                    }
                    if link & END != 0 {
                        break;
                    }
                    // SAFETY: By the type invariant: there is one after it.
                    let next = unsafe { &*ptr::from_ref(sg).add(1) };
                    (sg, link) = (next, next.page_link);
                    if link & CHAIN != 0 {
                        // SAFETY: By the type invariant the list goes on there.
                        sg = unsafe { &*follow(link) };
                        link = sg.page_link;
                    }
                }
            }
            list = list.wrapping_add(1);
        }
        Ok(true)
    }
}

/// The entry, if there is but one and the lists say so, for a device that takes physical addresses.
#[inline(always)]
pub(crate) fn one_physical(lists: &Lists) -> Option<Piece> {
    let (entry, flags) = lists.one()?;
    Some(physical(PageFrames::get(), entry, flags))
}

#[inline(always)]
fn physical(frames: PageFrames, entry: Entry<'_>, flags: u16) -> Piece {
    let (addr, len) = (entry.phys(frames), entry.sg.length);
    map::kmsan_handle_dma(addr, len as usize, direction(flags));
    Piece {
        addr,
        len,
        flags,
        mapped: true,
    }
}

/// The entries of a buffer as a device sees them that takes physical addresses.
impl Pieces for Lists {
    type Error = Infallible;
    const MAY_BE_MAPPED: bool = false;

    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(Piece) -> bool) -> Result<bool, Infallible> {
        let frames = PageFrames::get();
        let [out, inward, end] = self.bounds();
        // A loop for each direction, so that neither has to ask for it.
        let mut part = |from, to, flags| {
            self.walk_part::<Infallible>(from, to, |entry| {
                Ok(visit(physical(frames, entry, flags)))
            })
        };
        Ok(part(out, inward, 0)? && part(inward, end, desc::WRITE)?)
    }

    #[inline(always)]
    fn may_be(&self, count: u16) -> bool {
        self.has(count)
    }

    #[inline(always)]
    fn undo(&self, _mapped: Mapped) {}
}

/// The entries of a buffer as they are: mapped if the caller has done so, else with their physical
/// addresses.
pub(crate) struct Entries<'a>(pub(crate) &'a Lists);

impl Entries<'_> {
    #[inline(always)]
    fn piece(&self, frames: PageFrames, entry: Entry<'_>, flags: u16) -> Piece {
        if !self.0.premapped {
            return physical(frames, entry, flags);
        }
        Piece {
            addr: entry.sg.dma_address,
            len: sg_dma_len(entry.sg),
            flags,
            mapped: false,
        }
    }
}

impl Pieces for Entries<'_> {
    type Error = Infallible;
    const MAY_BE_MAPPED: bool = false;

    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(Piece) -> bool) -> Result<bool, Infallible> {
        let frames = PageFrames::get();
        self.0
            .walk(|entry, flags| Ok(visit(self.piece(frames, entry, flags))))
    }

    #[inline(always)]
    fn may_be(&self, count: u16) -> bool {
        self.0.has(count)
    }

    #[inline(always)]
    fn undo(&self, _mapped: Mapped) {}
}

/// The entries of a buffer, mapped one by one unless the caller has done so.
pub(crate) struct Mapping<'a> {
    /// The buffer.
    pub(crate) lists: &'a Lists,
    /// What maps it.
    pub(crate) mapper: &'a Mapper,
}

impl Pieces for Mapping<'_> {
    type Error = Error;
    const MAY_BE_MAPPED: bool = true;

    /// As [`Pieces::each`].
    ///
    /// # Errors
    ///
    /// `ENOMEM` when an entry cannot be mapped.
    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(Piece) -> bool) -> Result<bool> {
        let frames = PageFrames::get();
        let entries = Entries(self.lists);
        self.lists.walk(|entry, flags| {
            let mut piece = entries.piece(frames, entry, flags);
            if piece.mapped {
                // SAFETY: By the type invariant of the lists.
                let addr = unsafe { self.mapper.map(&(&piece).into(), self.lists.attrs) };
                piece.addr = addr.ok_or(ENOMEM)?;
            }
            let room = visit(piece);
            if !room {
                self.undo((&piece).into());
            }
            Ok(room)
        })
    }

    #[inline(always)]
    fn may_be(&self, count: u16) -> bool {
        self.lists.has(count)
    }

    #[cold]
    #[inline(never)]
    fn undo(&self, mapped: Mapped) {
        // SAFETY: It was mapped by `each`, and the device has not seen it.
        unsafe { self.mapper.unmap(mapped, SKIP_CPU_SYNC) };
    }
}

/// What `WRITE`, or nothing, means to the DMA API.
#[inline(always)]
fn direction(write: u16) -> dma_data_direction {
    if write == 0 {
        map::TO_DEVICE
    } else {
        map::FROM_DEVICE
    }
}

/// The length of a mapped entry in bytes (`sg_dma_len()`).
#[inline(always)]
fn sg_dma_len(sg: &scatterlist) -> u32 {
    #[cfg(CONFIG_NEED_SG_DMA_LENGTH)]
    let len = sg.dma_length;
    #[cfg(not(CONFIG_NEED_SG_DMA_LENGTH))]
    let len = sg.length;
    len
}
