// SPDX-License-Identifier: GPL-2.0

//! Memory that driver and device see, as rings need it.

use super::map::Mapper;
use crate::{
    kernel_ext::phys,
    virtio::bindings::{
        self,
        dma_addr_t, //
    },
};

use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::{
    ffi::{
        c_ulong,
        c_void, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

impl Mapper {
    /// Allocates memory that the device sees, too, with its address for the device.
    ///
    /// # Context
    ///
    /// As `gfp` says.
    pub(crate) fn alloc_coherent(
        &self,
        size: usize,
        addr: &mut dma_addr_t,
        gfp: bindings::gfp_t,
    ) -> *mut c_void {
        match self.ops() {
            None => {
                let quiet = if gfp & bindings::__GFP_NOWARN != 0 {
                    bindings::DMA_ATTR_NO_WARN as c_ulong
                } else {
                    0
                };
                // SAFETY: By the type invariant.
                unsafe { bindings::dma_alloc_attrs(self.raw_dma_dev(), size, addr, gfp, quiet) }
            }
            Some(ops) => ops.alloc.map_or(null_mut(), |alloc| {
                // SAFETY: As above.
                unsafe { alloc(self.map, size, addr, gfp) }
            }),
        }
    }

    /// Frees what [`Self::alloc_coherent`] gave.
    ///
    /// # Safety
    ///
    /// It did, with this size and address, and nobody uses the memory any more.
    pub(crate) unsafe fn free_coherent(&self, size: usize, ptr: *mut c_void, addr: dma_addr_t) {
        match self.ops() {
            // SAFETY: By the type invariant, and by the safety requirements.
            None => unsafe { bindings::dma_free_attrs(self.raw_dma_dev(), size, ptr, addr, 0) },
            Some(ops) => {
                if let Some(free) = ops.free {
                    // SAFETY: As above.
                    unsafe { free(self.map, size, ptr, addr, 0) }
                }
            }
        }
    }
}

/// A part of a ring: zeroed memory that driver and device see.
///
/// # Invariants
///
/// `ptr` is the beginning of `bytes` bytes, allocated by `mapper`; `addr` is their address for the
/// device.
pub(crate) struct Area {
    ptr: NonNull<u8>,
    addr: dma_addr_t,
    bytes: usize,
    mapper: Mapper,
}

impl Area {
    /// Allocates `bytes` of memory, aligned to a page at least.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[inline(never)]
    pub(crate) fn new(mapper: Mapper, bytes: usize, gfp: bindings::gfp_t) -> Result<Self> {
        let gfp = gfp | bindings::__GFP_ZERO;
        let mut addr = 0;
        let ptr = if mapper.uses_api() {
            mapper.alloc_coherent(bytes, &mut addr, gfp)
        } else {
            // SAFETY: It has no preconditions.
            let ptr = unsafe { bindings::alloc_pages_exact_noprof(page_align(bytes), gfp) };
            addr = phys::virt_to_phys(ptr);
            ptr
        };
        let ptr = NonNull::new(ptr.cast()).ok_or(ENOMEM)?;
        // INVARIANT: As allocated.
        Ok(Self {
            ptr,
            addr,
            bytes,
            mapper,
        })
    }

    /// The memory.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The address for the device of a `part` of the memory.
    pub(crate) fn addr_of(&self, part: *const u8) -> dma_addr_t {
        // CAST: Both have 64 bits.
        let offset = part.addr().wrapping_sub(self.ptr.as_ptr().addr()) as dma_addr_t;
        self.addr.wrapping_add(offset)
    }

    /// Zeroes it.
    ///
    /// # Safety
    ///
    /// Neither the device nor anything else uses it.
    pub(crate) unsafe fn clear(&self) {
        // SAFETY: By the type invariant, and by the safety requirements.
        unsafe { self.ptr.write_bytes(0, self.bytes) };
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        let ptr = self.ptr.as_ptr().cast();
        if self.mapper.uses_api() {
            // SAFETY: By the type invariant; the owner drops it when the device is done with it.
            unsafe { self.mapper.free_coherent(self.bytes, ptr, self.addr) };
        } else {
            // SAFETY: As above.
            unsafe { bindings::free_pages_exact(ptr, page_align(self.bytes)) };
        }
    }
}

/// `bytes` rounded up to whole pages.
fn page_align(bytes: usize) -> usize {
    bytes.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}
