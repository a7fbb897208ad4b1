// SPDX-License-Identifier: GPL-2.0

//! Addresses for the device: the DMA API, the transport's own mapping, or physical addresses.
//!
//! Devices without `ACCESS_PLATFORM` use physical addresses, whatever IOMMU there is, as they
//! always have; only Xen guests map then, too. A transport may bring its own `virtio_map_ops`,
//! otherwise the DMA API maps for the queue's DMA device. Follows Virtio 1.4, 6
//! (`VIRTIO_F_ACCESS_PLATFORM`) and `include/linux/dma-mapping.h`.

use crate::{
    config::{
        Features,
        ACCESS_PLATFORM, //
    },
    kernel_ext::phys,
    virtio::bindings::{
        self,
        dma_addr_t,
        dma_data_direction, //
    },
};

use core::ptr::null_mut;
use kernel::{
    device::Device,
    ffi::{
        c_ulong,
        c_void, //
    },
    page::PAGE_SIZE,
    prelude::*,
    warn_on, //
};

/// The address that says that a mapping failed (`DMA_MAPPING_ERROR`).
pub(crate) const ERROR: dma_addr_t = dma_addr_t::MAX;

/// For the device to read.
pub(crate) const TO_DEVICE: dma_data_direction = dma_data_direction::DMA_TO_DEVICE;

/// For the device to write.
pub(crate) const FROM_DEVICE: dma_data_direction = dma_data_direction::DMA_FROM_DEVICE;

/// For an unmapping that touches neither the memory nor what the caches have of it: what is in a
/// bounce buffer is dropped, the bounce buffer and the address are given back.
pub(crate) const SKIP_CPU_SYNC: c_ulong = bindings::DMA_ATTR_SKIP_CPU_SYNC as c_ulong;

/// Who is to see what the other one wrote.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// The driver.
    Cpu,
    /// The device.
    Device,
}

/// How addresses for a device are made.
///
/// # Invariants
///
/// `vdev` points to a virtio device that outlives this; `map` is what its mapping operations, or
/// the DMA API if it has none, take.
#[derive(Clone, Copy)]
pub(crate) struct Mapper {
    vdev: *mut bindings::virtio_device,
    pub(super) map: bindings::virtio_map,
    pub(super) way: Way,
}

/// Who maps buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nobody: the device takes physical addresses.
    Physical,
    /// The DMA API.
    Dma,
    /// The transport.
    Own,
}

impl Mapper {
    /// For the device `vdev` and one of its queues, whose mapping is described by `map`.
    ///
    /// # Safety
    ///
    /// `vdev` is valid, its features are negotiated, and it outlives what is returned. `map` is
    /// what its mapping operations take or, if it has none, names the device for the DMA API.
    pub(crate) unsafe fn new(
        vdev: *mut bindings::virtio_device,
        map: bindings::virtio_map,
    ) -> Self {
        // SAFETY: By the safety requirements; both members of the union are plain words.
        let words = unsafe { (*vdev).__bindgen_anon_1.features_array };
        let api = Features::from_words(words).has(ACCESS_PLATFORM) || xen_domain();
        // SAFETY: By the safety requirements.
        let own = !unsafe { (*vdev).map }.is_null();
        let way = match (api, own) {
            (false, _) => Way::Physical,
            (true, false) => Way::Dma,
            (true, true) => Way::Own,
        };
        // INVARIANT: By the safety requirements.
        Self { vdev, map, way }
    }

    /// Whether buffers have to be mapped; otherwise the device takes physical addresses.
    #[inline(always)]
    pub(crate) fn uses_api(&self) -> bool {
        self.way != Way::Physical
    }

    /// The mapping operations of the transport, if it brings its own.
    #[inline(always)]
    pub(super) fn ops(&self) -> Option<&bindings::virtio_map_ops> {
        // SAFETY: By the type invariant the device is valid.
        let ops = unsafe { (*self.vdev).map };
        // SAFETY: A transport sets it before it registers the device, and keeps it for ever.
        unsafe { ops.as_ref() }
    }

    /// The device of the DMA API; of no meaning when the transport maps by itself.
    #[inline(always)]
    pub(super) fn raw_dma_dev(&self) -> *mut bindings::device {
        // SAFETY: Both members of the union are pointers.
        unsafe { self.map.dma_dev }
    }

    /// The device of the DMA API, or null if the queue does not use it.
    pub(crate) fn dma_dev(&self) -> *mut bindings::device {
        if self.way == Way::Dma {
            self.raw_dma_dev()
        } else {
            null_mut()
        }
    }

    /// The virtio device, for messages.
    pub(crate) fn device(&self) -> &Device {
        // SAFETY: By the type invariant the device is valid.
        let dev = unsafe { &raw mut (*self.vdev).dev };
        // SAFETY: As above; it outlives `self`.
        unsafe { Device::from_raw(dev) }
    }

    /// Maps `size` bytes at `offset` in `page`; the result is to be checked by [`Self::error`].
    ///
    /// # Safety
    ///
    /// The memory is valid, and stays so until it is unmapped.
    pub(crate) unsafe fn map_page(
        &self,
        page: *mut bindings::page,
        offset: c_ulong,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) -> dma_addr_t {
        match self.ops() {
            // SAFETY: By the type invariant, and by the safety requirements.
            None => unsafe {
                bindings::dma_map_page_attrs(self.raw_dma_dev(), page, offset, size, dir, attrs)
            },
            Some(ops) => ops.map_page.map_or(ERROR, |map_page| {
                // SAFETY: As above.
                unsafe { map_page(self.map, page, offset, size, dir, attrs) }
            }),
        }
    }

    /// Undoes [`Self::map_page`].
    ///
    /// # Safety
    ///
    /// `addr` was mapped so, with the same size and direction, and the device is done with it.
    pub(crate) unsafe fn unmap_page(
        &self,
        addr: dma_addr_t,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) {
        match self.ops() {
            // SAFETY: By the type invariant, and by the safety requirements.
            None => unsafe {
                bindings::dma_unmap_page_attrs(self.raw_dma_dev(), addr, size, dir, attrs)
            },
            Some(ops) => {
                if let Some(unmap_page) = ops.unmap_page {
                    // SAFETY: As above.
                    unsafe { unmap_page(self.map, addr, size, dir, attrs) }
                }
            }
        }
    }

    /// Maps `size` bytes of memory at the physical address `phys`, unless the queue does not map;
    /// [`ERROR`] when that failed.
    ///
    /// # Safety
    ///
    /// The memory is valid, and stays so until it is unmapped.
    #[inline(always)]
    pub(crate) unsafe fn map_phys(
        &self,
        phys: u64,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) -> dma_addr_t {
        if self.way != Way::Dma {
            // SAFETY: By the safety requirements.
            return unsafe { self.map_otherwise(phys, size, dir, attrs) };
        }
        // SAFETY: By the type invariant, and by the safety requirements.
        let addr = unsafe { bindings::dma_map_phys(self.raw_dma_dev(), phys, size, dir, attrs) };
        // CONFIG_DMA_API_DEBUG wants to see a check.
        if cfg!(CONFIG_DMA_API_DEBUG) && self.error(addr) != 0 {
            return ERROR;
        }
        addr
    }

    /// As [`Self::map_phys`], without the DMA API; [`ERROR`] when that failed.
    ///
    /// # Safety
    ///
    /// As for [`Self::map_phys`].
    #[inline(never)]
    unsafe fn map_otherwise(
        &self,
        phys: u64,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) -> dma_addr_t {
        if self.way == Way::Physical {
            kmsan_handle_dma(phys, size, dir);
            return phys;
        }
        // CAST: Within a page.
        let offset = (phys & (PAGE_SIZE as u64 - 1)) as usize;
        // SAFETY: By the safety requirements.
        let addr = unsafe { self.map_page(phys::phys_to_page(phys), offset, size, dir, attrs) };
        if self.error(addr) == 0 {
            addr
        } else {
            ERROR
        }
    }

    /// The error of a mapping, or 0.
    pub(crate) fn error(&self, addr: dma_addr_t) -> c_int {
        if !self.uses_api() {
            return 0;
        }
        if let Some(ops) = self.ops() {
            return ops.mapping_error.map_or(0, |mapping_error| {
                // SAFETY: By the type invariant.
                unsafe { mapping_error(self.map, addr) }
            });
        }
        #[cfg(CONFIG_DMA_API_DEBUG)]
        // SAFETY: By the type invariant.
        unsafe {
            bindings::debug_dma_mapping_error(self.raw_dma_dev(), addr)
        };
        if addr == ERROR {
            ENOMEM.to_errno()
        } else {
            0
        }
    }

    /// Maps `size` bytes at `ptr`, or gives their physical address if the queue does not map;
    /// [`ERROR`] when that failed.
    ///
    /// # Safety
    ///
    /// The memory is valid, and stays so until it is unmapped.
    pub(crate) unsafe fn map_single(
        &self,
        ptr: *mut c_void,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) -> dma_addr_t {
        let phys = phys::virt_to_phys(ptr);
        // DMA must never operate on memory that might be mapped elsewhere later.
        // SAFETY: It only looks at the address.
        let vmalloc = self.uses_api() && unsafe { bindings::is_vmalloc_addr(ptr) };
        if warn_on!(vmalloc) {
            dev_warn!(self.device(), "rejecting DMA map of vmalloc memory\n");
            return ERROR;
        }
        // SAFETY: By the safety requirements.
        unsafe { self.map_phys(phys, size, dir, attrs) }
    }

    /// Whether any mapping of the DMA API may have to be synchronised (`dma_dev_need_sync()`).
    fn may_need_sync(&self) -> bool {
        let skip = bindings::struct_device_flags_DEV_FLAG_DMA_SKIP_SYNC;
        // SAFETY: By the type invariant the device is valid; flags are read one word at a time.
        let [flags] = unsafe { (*self.raw_dma_dev()).flags };
        cfg!(CONFIG_DMA_API_DEBUG) || flags >> skip & 1 == 0
    }

    /// Whether the CPU and the device see different memory at `addr` until it is synchronised.
    pub(crate) fn needs_sync(&self, addr: dma_addr_t) -> bool {
        if !self.uses_api() {
            return false;
        }
        match self.ops() {
            // SAFETY: By the type invariant.
            None if self.may_need_sync() => unsafe {
                bindings::__dma_need_sync(self.raw_dma_dev(), addr)
            },
            None => false,
            Some(ops) => ops.need_sync.is_some_and(|need_sync| {
                // SAFETY: As above.
                unsafe { need_sync(self.map, addr) }
            }),
        }
    }

    /// Gives `size` bytes at `addr` to the CPU or to the device.
    ///
    /// # Safety
    ///
    /// They are mapped in this direction.
    pub(crate) unsafe fn sync(
        &self,
        side: Side,
        addr: dma_addr_t,
        size: usize,
        dir: dma_data_direction,
    ) {
        if !self.uses_api() {
            return;
        }
        if let Some(ops) = self.ops() {
            let sync = match side {
                Side::Cpu => ops.sync_single_for_cpu,
                Side::Device => ops.sync_single_for_device,
            };
            if let Some(sync) = sync {
                // SAFETY: By the type invariant, and by the safety requirements.
                unsafe { sync(self.map, addr, size, dir) }
            }
        } else if self.may_need_sync() {
            let sync = match side {
                Side::Cpu => bindings::__dma_sync_single_for_cpu,
                Side::Device => bindings::__dma_sync_single_for_device,
            };
            // SAFETY: As above.
            unsafe { sync(self.raw_dma_dev(), addr, size, dir) }
        }
    }

    /// The largest mapping there can be, in bytes.
    pub(crate) fn max_size(&self) -> usize {
        if !self.uses_api() {
            return usize::MAX;
        }
        match self.ops() {
            // SAFETY: By the type invariant.
            None => unsafe { bindings::dma_max_mapping_size(self.raw_dma_dev()) },
            Some(ops) => ops.max_mapping_size.map_or(usize::MAX, |max_mapping_size| {
                // SAFETY: As above.
                unsafe { max_mapping_size(self.map) }
            }),
        }
    }
}

/// Whether this is a Xen guest; those use the DMA API for every device.
fn xen_domain() -> bool {
    #[cfg(CONFIG_XEN)]
    // SAFETY: The variable is set once, early during boot.
    let xen = unsafe { bindings::xen_domain_type != bindings::xen_domain_type_XEN_NATIVE };
    #[cfg(not(CONFIG_XEN))]
    let xen = false;
    xen
}

/// Tells KMSAN that a device reads or writes memory that was not mapped for it.
#[inline(always)]
pub(crate) fn kmsan_handle_dma(addr: u64, size: usize, dir: dma_data_direction) {
    #[cfg(CONFIG_KMSAN)]
    // SAFETY: It only marks the memory.
    unsafe {
        bindings::kmsan_handle_dma(addr, size, dir)
    };
    #[cfg(not(CONFIG_KMSAN))]
    let _ = (addr, size, dir);
}
