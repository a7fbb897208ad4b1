// SPDX-License-Identifier: GPL-2.0

//! The pieces of buffers, as far as they are mapped one by one and unmapped when they come back.

use super::{
    map::{
        Mapper,
        Way,
        ERROR,
        FROM_DEVICE,
        TO_DEVICE, //
    },
    state::{
        Mapped,
        Mapping, //
    },
};
use crate::virtio::bindings;

use kernel::ffi::c_ulong;

impl Mapper {
    /// Maps what `mapped` says, whose address is still the physical one; `None` when that failed.
    ///
    /// # Safety
    ///
    /// As for [`Self::map_phys`].
    #[inline(always)]
    pub(crate) unsafe fn map(&self, mapped: &Mapped, attrs: c_ulong) -> Option<u64> {
        let dir = match mapped.mapping {
            Mapping::FromDevice => FROM_DEVICE,
            _ => TO_DEVICE,
        };
        // CAST: Widening.
        // SAFETY: By the safety requirements.
        let addr = unsafe { self.map_phys(mapped.addr, mapped.len as usize, dir, attrs) };
        (addr != ERROR).then_some(addr)
    }

    /// Whether what was mapped so far has to be unmapped; with a direct mapping and nothing in
    /// bounce buffers it need not (`dma_need_unmap()`).
    ///
    /// To be asked after all mappings of a buffer were made.
    #[inline(always)]
    pub(crate) fn needs_unmap(&self) -> bool {
        match self.way {
            Way::Physical => false,
            #[cfg(CONFIG_DMA_NEED_SYNC)]
            // SAFETY: By the type invariant.
            Way::Dma => unsafe { bindings::dma_need_unmap(self.raw_dma_dev()) },
            #[cfg(not(CONFIG_DMA_NEED_SYNC))]
            Way::Dma => true,
            Way::Own => true,
        }
    }

    /// Unmaps a piece of a buffer that has come back, or, with [`SKIP_CPU_SYNC`], of one whose
    /// memory is not to be touched.
    ///
    /// # Safety
    ///
    /// The queue mapped it, and the device is done with it. Without [`SKIP_CPU_SYNC`] its memory is
    /// still that of the buffer.
    ///
    /// [`SKIP_CPU_SYNC`]: super::map::SKIP_CPU_SYNC
    #[inline(always)]
    pub(crate) unsafe fn unmap(&self, mapped: Mapped, attrs: c_ulong) {
        let dir = match mapped.mapping {
            Mapping::Caller => return,
            Mapping::ToDevice => TO_DEVICE,
            Mapping::FromDevice => FROM_DEVICE,
        };
        // CAST: Widening.
        let size = mapped.len as usize;
        match self.way {
            Way::Physical => (),
            // SAFETY: By the type invariant, and by the safety requirements.
            Way::Dma => unsafe {
                bindings::dma_unmap_phys(self.raw_dma_dev(), mapped.addr, size, dir, attrs)
            },
            // SAFETY: By the safety requirements.
            Way::Own => unsafe { self.unmap_page(mapped.addr, size, dir, attrs) },
        }
    }

    /// Unmaps several pieces.
    ///
    /// # Safety
    ///
    /// As for [`Self::unmap`].
    pub(crate) unsafe fn unmap_all(&self, maps: &[Mapped], attrs: c_ulong) {
        for &mapped in maps {
            // SAFETY: By the safety requirements.
            unsafe { self.unmap(mapped, attrs) };
        }
    }
}
