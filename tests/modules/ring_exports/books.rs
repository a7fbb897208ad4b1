// SPDX-License-Identifier: GPL-2.0

//! Mapping operations of a transport that keep books: whether what is unmapped is what was mapped.

#![expect(
    clippy::missing_safety_doc,
    reason = "the contract is that of `struct virtio_map_ops`, for all of them"
)]

use crate::{
    kernel_ext::phys,
    virtio::bindings::{
        self,
        dma_addr_t,
        dma_data_direction,
        gfp_t,
        page,
        virtio_map,
        virtio_map_ops, //
    },
};

use core::{
    ptr::{
        null_mut,
        without_provenance_mut, //
    },
    sync::atomic::{
        AtomicI32,
        AtomicU64,
        Ordering::Relaxed, //
    },
};
use kernel::{
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*, //
};

/// What the device sees is so far from where it is.
pub(crate) const FAR: u64 = 1 << 56;

/// Mappings there are.
pub(crate) static MAPPINGS: AtomicI32 = AtomicI32::new(0);

/// Mappings made since the module was loaded.
pub(crate) static MADE: AtomicI32 = AtomicI32::new(0);

/// Parts of rings there are.
pub(crate) static RINGS: AtomicI32 = AtomicI32::new(0);

/// Synchronisations so far.
pub(crate) static SYNCS: AtomicI32 = AtomicI32::new(0);

/// How many more mappings succeed; below 0: all.
pub(crate) static SUCCEED: AtomicI32 = AtomicI32::new(-1);

/// Unmappings so far that may have written to the memory: a copy, or a cache operation.
pub(crate) static COPIES: AtomicI32 = AtomicI32::new(0);

/// All mappings there are, combined: 0 if each was undone with the same address, size and
/// direction.
pub(crate) static DIFFERENCE: AtomicU64 = AtomicU64::new(0);

/// Forgets what tests before have left.
pub(crate) fn begin() {
    MAPPINGS.store(0, Relaxed);
    RINGS.store(0, Relaxed);
    DIFFERENCE.store(0, Relaxed);
    SUCCEED.store(-1, Relaxed);
}

/// What the operations get as their map.
pub(crate) fn map() -> virtio_map {
    virtio_map {
        dma_dev: without_provenance_mut(0x7001),
    }
}

fn is_ours(map: virtio_map) -> bool {
    // SAFETY: Both members of the union are pointers.
    unsafe { map.dma_dev }.addr() == 0x7001
}

fn note(map: virtio_map, addr: u64, size: usize, dir: dma_data_direction, change: i32) {
    // CAST: Both have 64 bits.
    let entry = addr ^ (size as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (dir.0 as u64) << 62;

    MAPPINGS.fetch_add(change, Relaxed);
    DIFFERENCE.fetch_xor(if is_ours(map) { entry } else { 1 }, Relaxed);
}

unsafe extern "C" fn map_page(
    map: virtio_map,
    page: *mut page,
    offset: c_ulong,
    size: usize,
    dir: dma_data_direction,
    _attrs: c_ulong,
) -> dma_addr_t {
    let left = SUCCEED.load(Relaxed);

    if left == 0 {
        return dma_addr_t::MAX;
    }
    if left > 0 {
        SUCCEED.store(left - 1, Relaxed);
    }
    // CAST: Both have 64 bits.
    let addr = FAR | (phys::PageFrames::get().phys(page) + offset as u64);
    MADE.fetch_add(1, Relaxed);
    note(map, addr, size, dir, 1);
    addr
}

unsafe extern "C" fn unmap_page(
    map: virtio_map,
    addr: dma_addr_t,
    size: usize,
    dir: dma_data_direction,
    attrs: c_ulong,
) {
    // CAST: The bit is a low one.
    if attrs & bindings::DMA_ATTR_SKIP_CPU_SYNC as c_ulong == 0 {
        COPIES.fetch_add(1, Relaxed);
    }
    note(map, addr, size, dir, -1);
}

unsafe extern "C" fn sync(
    _map: virtio_map,
    _addr: dma_addr_t,
    _size: usize,
    _dir: dma_data_direction,
) {
    SYNCS.fetch_add(1, Relaxed);
}

unsafe extern "C" fn alloc(
    map: virtio_map,
    size: usize,
    handle: *mut dma_addr_t,
    gfp: gfp_t,
) -> *mut c_void {
    if !is_ours(map) {
        return null_mut();
    }
    // SAFETY: It has no preconditions.
    let ptr = unsafe { bindings::alloc_pages_exact_noprof(size, gfp) };

    RINGS.fetch_add(1, Relaxed);
    // SAFETY: Callers have room for an address.
    unsafe { *handle = FAR | phys::virt_to_phys(ptr) };
    ptr
}

unsafe extern "C" fn free(
    _map: virtio_map,
    size: usize,
    ptr: *mut c_void,
    addr: dma_addr_t,
    _attrs: c_ulong,
) {
    if addr == FAR | phys::virt_to_phys(ptr) {
        RINGS.fetch_sub(1, Relaxed);
    }
    // SAFETY: `alloc` gave it.
    unsafe { bindings::free_pages_exact(ptr, size) };
}

unsafe extern "C" fn need_sync(_map: virtio_map, _addr: dma_addr_t) -> bool {
    false
}

unsafe extern "C" fn mapping_error(_map: virtio_map, addr: dma_addr_t) -> c_int {
    if addr == dma_addr_t::MAX {
        ENOMEM.to_errno()
    } else {
        0
    }
}

unsafe extern "C" fn max_mapping_size(_map: virtio_map) -> usize {
    1 << 20
}

/// A table that is only read.
pub(crate) struct Table(pub(crate) virtio_map_ops);

// SAFETY: Nobody writes to it.
unsafe impl Sync for Table {}

/// The operations.
pub(crate) static OPS: Table = Table(virtio_map_ops {
    map_page: Some(map_page),
    unmap_page: Some(unmap_page),
    sync_single_for_cpu: Some(sync),
    sync_single_for_device: Some(sync),
    alloc: Some(alloc),
    free: Some(free),
    need_sync: Some(need_sync),
    mapping_error: Some(mapping_error),
    max_mapping_size: Some(max_mapping_size),
});
