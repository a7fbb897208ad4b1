// SPDX-License-Identifier: GPL-2.0

//! The C functions that map memory for devices.

use super::super::{
    map::{
        Mapper,
        Side, //
    },
    queue::Queue, //
};
use crate::virtio::{
    bindings::{
        device,
        dma_addr_t,
        dma_data_direction,
        gfp_t,
        page,
        virtio_device,
        virtio_map,
        virtqueue, //
    },
    export::export_symbol_gpl, //
};

use kernel::ffi::{
    c_int,
    c_ulong,
    c_void, //
};

/// Mapping by the DMA API, for the parent of `vdev`.
///
/// # Safety
///
/// `vdev` is valid.
pub(super) unsafe fn parent_map(vdev: *mut virtio_device) -> virtio_map {
    virtio_map {
        // SAFETY: By the safety requirements.
        dma_dev: unsafe { (*vdev).dev.parent },
    }
}

/// The mapping of a device as a whole: its transport's, if it brings its own.
///
/// # Safety
///
/// `vdev` is valid.
unsafe fn device_map(vdev: *mut virtio_device) -> virtio_map {
    // SAFETY: By the safety requirements.
    if unsafe { (*vdev).map }.is_null() {
        // SAFETY: By the safety requirements.
        unsafe { parent_map(vdev) }
    } else {
        // SAFETY: By the safety requirements.
        unsafe { (*vdev).vmap }
    }
}

exported_for_queues! {
    /// The device of the DMA API, or null if the queue does not use it.
    fn virtqueue_dma_dev(queue: *mut) -> *mut device {
        queue.mapper.dma_dev()
    }

    /// Maps a part of a page for the device of a queue.
    fn virtqueue_map_page_attrs(
        queue: *const,
        page: *mut page,
        offset: c_ulong,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) -> dma_addr_t {
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.map_page(page, offset, size, dir, attrs) }
    }

    /// Undoes [`virtqueue_map_page_attrs`].
    fn virtqueue_unmap_page_attrs(
        queue: *const,
        map_handle: dma_addr_t,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) {
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.unmap_page(map_handle, size, dir, attrs) };
    }

    /// Maps memory for the device of a queue, if it is to be mapped.
    fn virtqueue_map_single_attrs(
        queue: *const,
        ptr: *mut c_void,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) -> dma_addr_t {
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.map_single(ptr, size, dir, attrs) }
    }

    /// Undoes [`virtqueue_map_single_attrs`].
    fn virtqueue_unmap_single_attrs(
        queue: *const,
        addr: dma_addr_t,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) {
        if queue.mapper.uses_api() {
            // SAFETY: By the contract of the function.
            unsafe { queue.mapper.unmap_page(addr, size, dir, attrs) };
        }
    }

    /// 0, or the error of a mapping.
    fn virtqueue_map_mapping_error(queue: *const, addr: dma_addr_t) -> c_int {
        queue.mapper.error(addr)
    }

    /// Whether a mapping has to be synchronised between CPU and device.
    fn virtqueue_map_need_sync(queue: *const, addr: dma_addr_t) -> bool {
        queue.mapper.needs_sync(addr)
    }

    /// Gives a part of a mapping to the CPU.
    fn virtqueue_map_sync_single_range_for_cpu(
        queue: *const,
        addr: dma_addr_t,
        offset: c_ulong,
        size: usize,
        dir: dma_data_direction,
    ) {
        // CAST: Both have 64 bits.
        let addr = addr.wrapping_add(offset as dma_addr_t);
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.sync(Side::Cpu, addr, size, dir) };
    }

    /// Gives a part of a mapping to the device.
    fn virtqueue_map_sync_single_range_for_device(
        queue: *const,
        addr: dma_addr_t,
        offset: c_ulong,
        size: usize,
        dir: dma_data_direction,
    ) {
        // CAST: Both have 64 bits.
        let addr = addr.wrapping_add(offset as dma_addr_t);
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.sync(Side::Device, addr, size, dir) };
    }
}

exported! {
    /// The largest single mapping for a device in bytes.
    fn virtio_max_dma_size(vdev: *const virtio_device) -> usize {
        let vdev = vdev.cast_mut();
        // SAFETY: By the contract of the function.
        let map = unsafe { device_map(vdev) };
        // SAFETY: By the contract of the function.
        unsafe { Mapper::new(vdev, map) }.max_size()
    }

    /// Allocates memory that driver and device see.
    fn virtqueue_map_alloc_coherent(
        vdev: *mut virtio_device,
        map: virtio_map,
        size: usize,
        map_handle: *mut dma_addr_t,
        gfp: gfp_t,
    ) -> *mut c_void {
        // SAFETY: By the contract of the function.
        let handle = unsafe { &mut *map_handle };
        // SAFETY: By the contract of the function.
        unsafe { Mapper::new(vdev, map) }.alloc_coherent(size, handle, gfp)
    }

    /// Frees what [`virtqueue_map_alloc_coherent`] gave.
    fn virtqueue_map_free_coherent(
        vdev: *mut virtio_device,
        map: virtio_map,
        size: usize,
        vaddr: *mut c_void,
        map_handle: dma_addr_t,
    ) {
        // SAFETY: By the contract of the function.
        let mapper = unsafe { Mapper::new(vdev, map) };
        // SAFETY: By the contract of the function.
        unsafe { mapper.free_coherent(size, vaddr, map_handle) };
    }
}
