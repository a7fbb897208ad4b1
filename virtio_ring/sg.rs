// SPDX-License-Identifier: GPL-2.0

//! Buffers as drivers hand them over: arrays of scatterlists.
//!
//! Follows `include/linux/scatterlist.h`, whose accessors are inline there.

use super::{
    layout::Piece,
    map::{
        self,
        Mapper, //
    },
    state::Pieces, //
};
use crate::{
    kernel_ext::phys,
    virtio::bindings::{
        self,
        scatterlist, //
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

/// The entry after `sg`, or null (`sg_next()`).
///
/// # Safety
///
/// `sg` is an entry of a well-formed, terminated list.
#[inline(always)]
unsafe fn next(sg: *mut scatterlist) -> *mut scatterlist {
    // SAFETY: By the safety requirements.
    if unsafe { (*sg).page_link } & END != 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: By the safety requirements: there is an entry after one that is not the last.
    let next = unsafe { sg.add(1) };
    // SAFETY: As above.
    let link = unsafe { (*next).page_link };
    if link & CHAIN == 0 {
        next
    } else {
        core::ptr::with_exposed_provenance_mut(link & !(CHAIN | END))
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

    /// Whether the device reads a part of the buffer.
    #[inline(always)]
    pub(crate) fn has_out(&self) -> bool {
        self.out != 0
    }
}

/// The entries of a buffer, mapped one by one.
pub(crate) struct MappedLists<'a> {
    /// The buffer.
    pub(crate) lists: &'a Lists,
    /// What maps them.
    pub(crate) mapper: &'a Mapper,
}

impl MappedLists<'_> {
    /// Address and length of the entry `sg` for the device.
    ///
    /// # Safety
    ///
    /// `sg` is an entry of the lists.
    #[inline(always)]
    unsafe fn map(&self, sg: *mut scatterlist, writable: bool) -> Result<(u64, u32)> {
        // SAFETY: By the safety requirements.
        let sg = unsafe { &*sg };
        if self.lists.premapped {
            return Ok((sg.dma_address, sg_dma_len(sg)));
        }
        let dir = if writable {
            map::FROM_DEVICE
        } else {
            map::TO_DEVICE
        };
        let page: *mut bindings::page =
            core::ptr::with_exposed_provenance_mut(sg.page_link & !(CHAIN | END));
        let (offset, len) = (sg.offset as c_ulong, sg.length);
        if !self.mapper.uses_api() {
            let addr = phys::page_to_phys(page).wrapping_add(offset as u64);
            map::kmsan_handle_dma(addr, len as usize, dir);
            return Ok((addr, len));
        }
        // CAST: Widening.
        let size = len as usize;
        // SAFETY: By the type invariant of the lists.
        let addr = unsafe {
            self.mapper
                .map_page(page, offset, size, dir, self.lists.attrs)
        };
        if self.mapper.failed(addr) {
            return Err(ENOMEM);
        }
        Ok((addr, len))
    }
}

impl Pieces for MappedLists<'_> {
    type Error = Error;

    /// Hands over every entry, at most as many as the lists are said to have.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when one cannot be mapped, `EINVAL` when there are more or fewer than said.
    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(Piece)) -> Result {
        let mut left = self.lists.total;
        for index in 0..self.lists.all {
            let writable = index >= self.lists.out;
            // CAST: Widening.
            // SAFETY: By the type invariant of the lists.
            let mut sg = unsafe { *self.lists.lists.add(index as usize) };
            while !sg.is_null() {
                if left == 0 {
                    return Err(EINVAL);
                }
                // SAFETY: By the type invariant of the lists.
                let (addr, len) = unsafe { self.map(sg, writable) }?;
                left = left.wrapping_sub(1);
                visit(Piece {
                    addr,
                    len,
                    writable,
                    last: left == 0,
                    mapped: !self.lists.premapped,
                });
                // SAFETY: As above.
                sg = unsafe { next(sg) };
            }
        }
        if left != 0 {
            return Err(EINVAL);
        }
        Ok(())
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
