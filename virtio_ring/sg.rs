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
        Mapper, //
    },
    state::Pieces, //
};
use crate::{
    kernel_ext::phys::PageFrames,
    virtio::bindings::{
        self,
        dma_data_direction,
        scatterlist, //
    },
};

use core::ptr::{
    null_mut,
    with_exposed_provenance,
    with_exposed_provenance_mut, //
};
use kernel::{
    ffi::c_ulong,
    prelude::*, //
};

/// In `page_link`: the entry is not one, but points to where the list goes on.
const CHAIN: c_ulong = 1;

/// In `page_link`: the entry is the last one.
const END: c_ulong = 2;

/// The entry after `sg`, or null (`sg_next()`).
///
/// # Safety
///
/// `sg` is an entry of a well-formed, terminated list.
#[inline(always)]
unsafe fn next(sg: *mut scatterlist) -> *mut scatterlist {
    // SAFETY: By the safety requirements.
    if unsafe { (*sg).page_link } & END != 0 {
        return null_mut();
    }
    // SAFETY: By the safety requirements: there is an entry after one that is not the last.
    let next = unsafe { sg.add(1) };
    // SAFETY: As above.
    let link = unsafe { (*next).page_link };
    if link & CHAIN == 0 {
        next
    } else {
        with_exposed_provenance_mut(link & !(CHAIN | END))
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
    total: u32,
    premapped: bool,
    attrs: c_ulong,
}

impl Lists {
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

    /// As [`Self::new`], with all entries of the lists, which are not mapped.
    ///
    /// # Safety
    ///
    /// As the type invariant says.
    #[inline(always)]
    pub(crate) unsafe fn count(lists: *const *mut scatterlist, (out, inward): (u32, u32)) -> Self {
        let mut total = 0u32;
        for index in 0..out.wrapping_add(inward) {
            // CAST: Widening.
            // SAFETY: By the safety requirements.
            let mut sg = unsafe { *lists.add(index as usize) };
            while !sg.is_null() {
                total = total.wrapping_add(1);
                // SAFETY: By the safety requirements.
                sg = unsafe { next(sg) };
            }
        }
        // SAFETY: By the safety requirements.
        unsafe { Self::new(lists, (out, inward), total, false, 0) }
    }

    /// Number of entries.
    #[inline(always)]
    pub(crate) fn total(&self) -> u32 {
        self.total
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
}

/// The entries one after the other, with the flags of their descriptors.
struct Walk<'a> {
    lists: &'a Lists,
    /// The entry that is next, or null at the end of a list.
    at: *mut scatterlist,
    /// Number of lists begun.
    begun: u32,
    /// `WRITE` if the device writes the present list.
    write: u16,
}

impl<'a> Walk<'a> {
    #[inline(always)]
    fn new(lists: &'a Lists) -> Self {
        Self {
            lists,
            at: null_mut(),
            begun: 0,
            write: 0,
        }
    }

    /// The next entry, which has to be there.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it is not.
    #[inline(always)]
    fn next(&mut self) -> Result<&'a scatterlist> {
        while self.at.is_null() {
            if self.begun == self.lists.all {
                return Err(EINVAL);
            }
            // CAST: Widening.
            // SAFETY: By the type invariant of the lists.
            self.at = unsafe { *self.lists.lists.add(self.begun as usize) };
            self.write = if self.begun < self.lists.out {
                0
            } else {
                desc::WRITE
            };
            self.begun = self.begun.wrapping_add(1);
        }
        // SAFETY: By the type invariant of the lists.
        let sg = unsafe { &*self.at };
        // SAFETY: As above.
        self.at = unsafe { next(self.at) };
        Ok(sg)
    }

    /// Hands over every entry as `map` has mapped it.
    ///
    /// # Errors
    ///
    /// Those of `map`; `EINVAL` when there are more or fewer entries than said.
    #[inline(always)]
    fn each(
        &mut self,
        mapped: bool,
        map: impl Fn(&scatterlist, u16) -> Result<(u64, u32)>,
        mut visit: impl FnMut(Piece),
    ) -> Result {
        let mut left = self.lists.total;
        while left != 0 {
            let sg = self.next()?;
            let (addr, len) = map(sg, self.write)?;
            left = left.wrapping_sub(1);
            let more = if left == 0 { 0 } else { desc::NEXT };
            visit(Piece {
                addr,
                len,
                flags: self.write | more,
                mapped,
            });
        }
        if self.at.is_null() {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }
}

/// The entries of a buffer for a device that takes physical addresses.
pub(crate) struct PhysicalLists<'a>(pub(crate) &'a Lists);

impl Pieces for PhysicalLists<'_> {
    type Error = Error;

    /// Hands over every entry, as many as the lists are said to have.
    ///
    /// # Errors
    ///
    /// `EINVAL` when there are more or fewer than said.
    #[inline(always)]
    fn each(&self, visit: impl FnMut(Piece)) -> Result {
        let frames = PageFrames::get();
        let map = |sg: &scatterlist, write: u16| {
            let page = with_exposed_provenance(sg.page_link);
            let addr = frames.phys(page).wrapping_add(sg.offset.into());
            map::kmsan_handle_dma(addr, sg.length as usize, direction(write));
            Ok((addr, sg.length))
        };
        Walk::new(self.0).each(false, map, visit)
    }
}

/// The entries of a buffer, mapped one by one unless the caller has mapped them.
pub(crate) struct MappedLists<'a> {
    /// The buffer.
    pub(crate) lists: &'a Lists,
    /// What maps it.
    pub(crate) mapper: &'a Mapper,
}

impl MappedLists<'_> {
    /// Maps the entry `sg`; [`map::ERROR`] if that fails.
    #[inline(never)]
    fn map(&self, sg: &scatterlist, write: u16) -> u64 {
        if self.lists.premapped {
            return sg.dma_address;
        }
        let (offset, size) = (sg.offset as c_ulong, sg.length as usize);
        let dir = direction(write);
        if !self.mapper.uses_api() {
            let addr = PageFrames::get()
                .phys(page_of(sg))
                .wrapping_add(sg.offset.into());
            map::kmsan_handle_dma(addr, size, dir);
            return addr;
        }
        // SAFETY: By the type invariant of the lists.
        let addr = unsafe {
            self.mapper
                .map_page(page_of(sg), offset, size, dir, self.lists.attrs)
        };
        if self.mapper.failed(addr) {
            map::ERROR
        } else {
            addr
        }
    }
}

impl Pieces for MappedLists<'_> {
    type Error = Error;

    /// Hands over every entry, as many as the lists are said to have.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when one cannot be mapped, `EINVAL` when there are more or fewer than said.
    #[inline(always)]
    fn each(&self, visit: impl FnMut(Piece)) -> Result {
        let premapped = self.lists.premapped;
        let map = |sg: &scatterlist, write| match self.map(sg, write) {
            map::ERROR => Err(ENOMEM),
            addr if premapped => Ok((addr, sg_dma_len(sg))),
            addr => Ok((addr, sg.length)),
        };
        Walk::new(self.lists).each(!premapped, map, visit)
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

/// The page of an entry.
#[inline(always)]
fn page_of(sg: &scatterlist) -> *mut bindings::page {
    with_exposed_provenance_mut(sg.page_link & !(CHAIN | END))
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
