// SPDX-License-Identifier: GPL-2.0

//! Indirect descriptor tables: a queue keeps those that come back, mapped, for its next buffers.
//!
//! So a queue that has warmed up allocates and maps nothing for a request. `indirect.rs` says how
//! large tables are and how many are kept.

use super::{
    indirect::{
        class_bytes,
        class_of,
        idle_limit,
        TableDesc,
        CLASSES, //
    },
    map::{
        Mapper,
        TO_DEVICE, //
    },
    state::Mapped, //
};
use crate::virtio::bindings;

use core::{
    ffi::c_void,
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::prelude::*;

/// Size of a descriptor in a table of either format, in bytes.
const DESC: usize = 16;

/// The beginning of a table's memory; then come the descriptors, then the mappings, if any.
#[repr(C, align(16))]
struct Header {
    /// In a pool: the next one of the same class.
    next: *mut Header,
    /// Address of the descriptors for the device.
    addr: u64,
    /// Number of descriptors there is room for.
    capacity: u16,
    /// Number of descriptors of the buffer.
    used: u16,
    /// Size class, [`CLASSES`] if it is larger than any.
    class: u8,
    /// Whether the device sees changes only after they were synchronised.
    sync: bool,
}

/// An indirect table.
///
/// # Invariants
///
/// Points to a header followed by `capacity` initialised descriptors and, if the queue maps, as
/// many initialised mappings. It owns that memory, which the device at most reads.
pub(crate) struct Table(NonNull<Header>);

impl Table {
    /// Takes a table back from where [`Self::into_raw`] has put it.
    ///
    /// # Safety
    ///
    /// `raw` came from [`Self::into_raw`] and is taken back only once.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(raw: *mut c_void) -> Option<Self> {
        // INVARIANT: By the safety requirements.
        NonNull::new(raw.cast()).map(Self)
    }

    /// Gives the table away.
    #[inline(always)]
    pub(crate) fn into_raw(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    #[inline(always)]
    fn header(&self) -> &Header {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn descs(&self) -> *mut u8 {
        // SAFETY: By the type invariant the descriptors begin behind the header.
        unsafe { self.0.add(1) }.as_ptr().cast()
    }

    /// The descriptors to fill, and where to note their mappings: nowhere if there are none.
    #[inline(always)]
    pub(crate) fn parts<D: TableDesc>(&mut self, mapper: &Mapper) -> (&mut [D], &mut [Mapped]) {
        const { assert!(size_of::<D>() == DESC && align_of::<D>() <= 16) };
        let capacity = usize::from(self.header().capacity);
        let descs = self.descs();
        // SAFETY: By the type invariant; a descriptor is plain data of that size.
        let table = unsafe { core::slice::from_raw_parts_mut(descs.cast::<D>(), capacity) };
        let maps = if mapper.uses_api() {
            let maps = descs.wrapping_add(capacity.wrapping_mul(DESC)).cast();
            // SAFETY: By the type invariant.
            unsafe { core::slice::from_raw_parts_mut(maps, capacity) }
        } else {
            &mut []
        };
        (table, maps)
    }

    /// Shows the first `count` descriptors to the device: returns their address and size in bytes.
    #[inline(always)]
    pub(crate) fn show(&mut self, count: u16, mapper: &Mapper) -> (u64, u32) {
        // SAFETY: By the type invariant.
        let header = unsafe { self.0.as_mut() };
        header.used = count;
        let bytes = u32::from(count).wrapping_mul(16);
        if header.sync {
            // CAST: Widening.
            // SAFETY: The table is mapped so.
            unsafe { mapper.sync_for_device(header.addr, bytes as usize, TO_DEVICE) };
        }
        (header.addr, bytes)
    }

    /// The mappings of the buffer.
    pub(crate) fn mappings<D: TableDesc>(&mut self, mapper: &Mapper) -> &[Mapped] {
        let used = usize::from(self.header().used);
        let (_, maps) = self.parts::<D>(mapper);
        maps.get(..used).unwrap_or_default()
    }
}

/// The tables that a queue keeps.
pub(crate) struct Pool {
    /// The first idle one of each class.
    idle: [*mut Header; CLASSES],
    /// How much memory may be idle, in bytes.
    room: usize,
}

impl Pool {
    /// An empty pool for a queue of `size` descriptors.
    pub(crate) fn new(size: u16) -> Self {
        Self {
            idle: [null_mut(); CLASSES],
            room: idle_limit(size),
        }
    }

    /// Takes a table for `count` descriptors, if there is memory.
    ///
    /// # Context
    ///
    /// As `gfp` says, if it has to allocate.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        count: u16,
        mapper: &Mapper,
        gfp: bindings::gfp_t,
    ) -> Option<Table> {
        let bytes = bytes_for(count, mapper);
        let class = class_of(bytes);
        if let Some(class) = class {
            let first = self.idle.get_mut(class)?;
            if let Some(table) = NonNull::new(*first) {
                // SAFETY: Tables in the pool are valid.
                *first = unsafe { table.as_ref() }.next;
                self.room = self.room.wrapping_add(class_bytes(class));
                // INVARIANT: The pool owned it.
                return Some(Table(table));
            }
        }
        allocate(count, class, mapper, gfp)
    }

    /// Keeps a table whose buffer has come back, or frees it.
    #[inline(always)]
    pub(crate) fn put(&mut self, mut table: Table, mapper: &Mapper) {
        // SAFETY: By the type invariant of tables.
        let header = unsafe { table.0.as_mut() };
        let class = usize::from(header.class);
        let bytes = class_bytes(class);
        if let Some(first) = self.idle.get_mut(class) {
            if !header.sync && bytes <= self.room {
                self.room = self.room.wrapping_sub(bytes);
                header.next = *first;
                *first = table.0.as_ptr();
                return;
            }
        }
        free(table, mapper);
    }

    /// Frees every table in the pool.
    pub(crate) fn clear(&mut self, mapper: &Mapper) {
        for class in 0..CLASSES {
            while let Some(table) = self.idle.get(class).copied().and_then(NonNull::new) {
                // SAFETY: Tables in the pool are valid.
                let next = unsafe { table.as_ref() }.next;
                if let Some(first) = self.idle.get_mut(class) {
                    *first = next;
                }
                self.room = self.room.wrapping_add(class_bytes(class));
                // INVARIANT: The pool owned it.
                free(Table(table), mapper);
            }
        }
    }
}

/// Bytes for each descriptor of a table.
#[inline(always)]
fn each(mapper: &Mapper) -> usize {
    if mapper.uses_api() {
        DESC + size_of::<Mapped>()
    } else {
        DESC
    }
}

#[inline(always)]
fn bytes_for(count: u16, mapper: &Mapper) -> usize {
    size_of::<Header>().wrapping_add(usize::from(count).wrapping_mul(each(mapper)))
}

/// Allocates and maps a table of a class, or for exactly `count` descriptors if there is none.
#[cold]
fn allocate(
    count: u16,
    class: Option<usize>,
    mapper: &Mapper,
    gfp: bindings::gfp_t,
) -> Option<Table> {
    let bytes = class.map_or_else(|| bytes_for(count, mapper), class_bytes);
    // Tables must be in the linear mapping. Zeroes are valid descriptors and mappings.
    let gfp = gfp & !bindings::__GFP_HIGHMEM | bindings::__GFP_ZERO;
    // SAFETY: It has no preconditions.
    let memory = NonNull::new(unsafe { bindings::__kmalloc_noprof(bytes, gfp) })?;
    let capacity = bytes.wrapping_sub(size_of::<Header>()) / each(mapper);
    let header = Header {
        next: null_mut(),
        addr: 0,
        // CAST: `count` or what 8 KiB hold.
        capacity: capacity as u16,
        used: 0,
        // CAST: At most `CLASSES`.
        class: class.unwrap_or(CLASSES) as u8,
        sync: false,
    };
    let memory = memory.cast::<Header>();
    // SAFETY: It is large enough; allocations of these sizes are aligned to 16 bytes at least.
    unsafe { memory.write(header) };
    // INVARIANT: As allocated, and all of it is zero but the header.
    let mut table = Table(memory);
    let size = capacity.wrapping_mul(DESC);
    // SAFETY: The memory stays valid until `free` has unmapped it.
    let addr = unsafe { mapper.map_single(table.descs().cast(), size, TO_DEVICE, 0) };
    if mapper.failed(addr) {
        // SAFETY: It was allocated above, and nothing knows of it.
        unsafe { bindings::kfree(memory.as_ptr().cast()) };
        return None;
    }
    // SAFETY: By the type invariant.
    let header = unsafe { table.0.as_mut() };
    header.addr = addr;
    header.sync = mapper.needs_sync(addr);
    Some(table)
}

#[cold]
fn free(table: Table, mapper: &Mapper) {
    let header = table.header();
    if mapper.uses_api() {
        let size = usize::from(header.capacity).wrapping_mul(DESC);
        // SAFETY: `allocate` has mapped it so; the device is done with its buffer.
        unsafe { mapper.unmap_page(header.addr, size, TO_DEVICE, 0) };
    }
    // SAFETY: By the type invariant the table owns its memory, and is gone.
    unsafe { bindings::kfree(table.into_raw()) };
}
