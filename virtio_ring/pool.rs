// SPDX-License-Identifier: GPL-2.0

//! Indirect descriptor tables: a queue keeps those that come back, mapped, for its next buffers.
//!
//! So a queue that has warmed up allocates and maps nothing for a request. `indirect.rs` says how
//! large tables are and how many are kept.

use super::{
    indirect::{
        self,
        class_bytes,
        class_of,
        idle_limit,
        Content,
        TableDesc,
        CLASSES, //
    },
    layout::{
        desc,
        Desc,
        Piece,
        MAX_SIZE, //
    },
    map::{
        Mapper,
        Side,
        ERROR,
        SKIP_CPU_SYNC,
        TO_DEVICE, //
    },
    sg::{
        Entries,
        Lists, //
    },
    state::{
        Buffer,
        Mapped,
        Token, //
    },
};
use crate::virtio::bindings;

use core::{
    ffi::c_void,
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    ffi::c_ulong,
    prelude::*, //
};

/// Size of a descriptor in a table of either format, in bytes.
const DESC: usize = 16;

/// The beginning of a table's memory; then come the descriptors, then the mappings, if any.
#[repr(C, align(16))]
struct Header {
    /// In a pool: the next one of the same class.
    next: *mut Header,
    /// Address of the descriptors for the device, once they are mapped.
    addr: u64,
    /// How many bytes of descriptors are mapped.
    bytes_mapped: u32,
    /// Number of descriptors there is room for.
    capacity: u16,
    /// Number of mappings of the buffer.
    mapped: u16,
    /// Buffers of no more descriptors than that fit into a smaller table.
    smaller: u16,
    /// What the table takes of the room for idle ones, in bytes.
    bytes: u32,
    /// Size class; [`CLASSES`] if it is not kept: it is larger than any.
    class: u8,
    /// What has to be done before the device sees the descriptors.
    access: Access,
}

/// What has to be done before the device sees the descriptors of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing: the device sees what the CPU sees.
    Direct,
    /// They are synchronised after each change.
    Sync,
    /// They are mapped, which shows them as they are.
    Unmapped,
}

/// What an idle table that has to be synchronised takes of the room for idle ones in bytes: as it
/// is most likely in a bounce buffer, of which there are few, a queue keeps 8 at most.
const SCARCE: u32 = 8 << 10;

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
    pub(crate) unsafe fn from_raw(raw: *mut c_void) -> Self {
        // INVARIANT: By the safety requirements.
        // SAFETY: By the safety requirements it points to a table.
        Self(unsafe { NonNull::new_unchecked(raw.cast()) })
    }

    /// Gives the table away.
    #[inline(always)]
    fn into_raw(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// Gives the table away with the buffer in it.
    #[inline(always)]
    pub(crate) fn into_buffer(self, token: Token) -> Buffer {
        Buffer {
            token,
            extra: self.into_raw(),
            indirect: true,
        }
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

    /// The descriptors to fill.
    #[inline(always)]
    pub(crate) fn table<D: TableDesc>(&mut self) -> &mut [D] {
        const { assert!(size_of::<D>() == DESC && align_of::<D>() <= 16) };
        let capacity = usize::from(self.header().capacity);
        // SAFETY: By the type invariant; a descriptor is plain data of that size.
        unsafe { core::slice::from_raw_parts_mut(self.descs().cast(), capacity) }
    }

    /// The descriptors to fill, and where to note their mappings, if the queue maps.
    #[inline(always)]
    fn parts<D: TableDesc>(&mut self, mapper: &Mapper) -> (&mut [D], &mut [Mapped]) {
        let capacity = usize::from(self.header().capacity);
        let maps = if mapper.uses_api() {
            let maps = self.descs().wrapping_add(capacity.wrapping_mul(DESC));
            // SAFETY: By the type invariant; they lie behind the descriptors.
            unsafe { core::slice::from_raw_parts_mut(maps.cast(), capacity) }
        } else {
            &mut []
        };
        (self.table(), maps)
    }

    /// Fills the table with the buffer of `lists`, which is mapped if need be. `None` if the table
    /// has no room for all of it, or if the lists are longer or shorter than said.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when a part of the buffer could not be mapped.
    #[inline(always)]
    pub(crate) fn fill<D: TableDesc>(
        &mut self,
        lists: &Lists,
        mapper: &Mapper,
    ) -> Result<Option<Content>> {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_mut() }.mapped = 0;
        if lists.premapped() {
            return Ok(indirect::fill(self.table::<D>(), &Entries(lists)));
        }
        if !mapper.uses_api() {
            return Ok(indirect::fill(self.table::<D>(), lists));
        }
        // First what there is, then, with fewer things to keep in mind, where the device finds it.
        let (table, maps) = self.parts::<D>(mapper);
        let Some(content) = indirect::fill(maps, lists) else {
            return Ok(None);
        };
        let count = content.count.get();
        let maps = maps.get_mut(..count.into()).unwrap_or_default();
        // SAFETY: By the type invariant of the lists.
        let map = |mapped: &Mapped| unsafe { mapper.map(mapped, lists.attrs()) };
        let mapped = indirect::map_into(table, maps, map);
        if mapped != count {
            let maps = maps.get(..mapped.into()).unwrap_or_default();
            // SAFETY: They were just mapped, and the device has not seen them.
            unsafe { mapper.unmap_all(maps, SKIP_CPU_SYNC) };
            return Err(ENOMEM);
        }
        // SAFETY: By the type invariant.
        unsafe { self.0.as_mut() }.mapped = count;
        Ok(Some(content))
    }

    /// Shows the first `count` descriptors to the device; returns what to put into the ring.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when they could not be mapped; then the buffer is unmapped.
    #[inline(always)]
    pub(crate) fn show(&mut self, count: u16, mapper: &Mapper) -> Result<Piece> {
        let bytes = u32::from(count).wrapping_mul(16);
        if self.header().access != Access::Direct {
            self.prepare(bytes, mapper)?;
        }
        Ok(Piece {
            addr: self.header().addr,
            len: bytes,
            flags: desc::INDIRECT,
            mapped: false,
        })
    }

    /// Does what [`Access`] says for the first `bytes` bytes of the descriptors.
    #[cold]
    #[inline(never)]
    fn prepare(&mut self, bytes: u32, mapper: &Mapper) -> Result {
        let header = self.header();
        if header.access == Access::Sync {
            // CAST: Widening.
            // SAFETY: The table is mapped so.
            unsafe { mapper.sync(Side::Device, header.addr, bytes as usize, TO_DEVICE) };
            return Ok(());
        }
        // All of a table that is kept, since the next buffer may be larger.
        let bytes = if usize::from(header.class) < CLASSES {
            u32::from(header.capacity).wrapping_mul(16)
        } else {
            bytes
        };
        // CAST: Widening.
        let size = bytes as usize;
        // SAFETY: The memory stays valid until `free` has unmapped it.
        let addr = unsafe { mapper.map_single(self.descs().cast(), size, TO_DEVICE, 0) };
        if addr == ERROR {
            // SAFETY: `fill` has mapped the buffer; the device has not seen it.
            unsafe { self.unmap(mapper, SKIP_CPU_SYNC) };
            return Err(ENOMEM);
        }
        // SAFETY: By the type invariant.
        let header = unsafe { self.0.as_mut() };
        header.addr = addr;
        header.bytes_mapped = bytes;
        header.access = Access::Direct;
        if mapper.needs_sync(addr) {
            header.access = Access::Sync;
            header.bytes = header.bytes.max(SCARCE);
        }
        Ok(())
    }

    /// Unmaps what [`Self::fill`] has mapped; `attrs` as for [`Mapper::unmap`].
    ///
    /// # Safety
    ///
    /// The device is done with the buffer, and this was not called for it before. Without
    /// [`SKIP_CPU_SYNC`] the memory is still that of the buffer.
    #[inline(never)]
    pub(crate) unsafe fn unmap(&mut self, mapper: &Mapper, attrs: c_ulong) {
        let mapped = usize::from(self.header().mapped);
        // The format of the descriptors does not matter for the mappings behind them.
        let (_, maps) = self.parts::<Desc>(mapper);
        let maps = maps.get(..mapped).unwrap_or_default();
        // SAFETY: `fill` has mapped them; the rest by the safety requirements.
        unsafe { mapper.unmap_all(maps, attrs) };
    }
}

/// The tables that a queue keeps.
pub(crate) struct Pool {
    /// The first idle one of each class.
    idle: [*mut Header; CLASSES],
    /// How much memory may be idle, in bytes.
    room: u32,
    /// The class of the table that was right for the last buffer; most of a queue are alike.
    likely: usize,
}

impl Pool {
    /// An empty pool for a queue of `size` descriptors.
    pub(crate) fn new(size: u16) -> Self {
        Self {
            idle: [null_mut(); CLASSES],
            room: idle_limit(size),
            likely: 0,
        }
    }

    /// Takes a table that may be large enough for the next buffer, if one is idle.
    #[inline(always)]
    pub(crate) fn take_likely(&mut self) -> Option<Table> {
        self.take_idle(self.likely)
    }

    #[inline(always)]
    fn take_idle(&mut self, class: usize) -> Option<Table> {
        let first = self.idle.get_mut(class)?;
        let table = NonNull::new(*first)?;
        // SAFETY: Tables in the pool are valid.
        let header = unsafe { table.as_ref() };
        *first = header.next;
        self.room = self.room.wrapping_add(header.bytes);
        // INVARIANT: The pool owned it.
        Some(Table(table))
    }

    /// Notes that a table of [`Self::take_likely`] holds `count` descriptors, to take a smaller one
    /// for the next buffer if that would have done.
    #[inline(always)]
    pub(crate) fn likely_held(&mut self, table: &Table, count: u16) {
        if count <= table.header().smaller {
            self.likely = self.likely.wrapping_sub(1);
        }
    }

    /// Takes a table for `count` descriptors, if they need one and there is memory.
    ///
    /// # Context
    ///
    /// As `gfp` says, if it has to allocate.
    #[inline(never)]
    pub(crate) fn take(
        &mut self,
        count: u32,
        mapper: &Mapper,
        gfp: bindings::gfp_t,
    ) -> Option<Table> {
        if !(2..=MAX_SIZE).contains(&count) {
            return None;
        }
        // CAST: At most `MAX_SIZE`.
        let count = count as u16;
        let class = class_of(bytes_for(count, mapper));
        if let Some(class) = class {
            self.likely = class;
            if let Some(table) = self.take_idle(class) {
                return Some(table);
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
        if let Some(first) = self.idle.get_mut(class) {
            if let Some(room) = self.room.checked_sub(header.bytes) {
                self.room = room;
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
            while let Some(table) = self.take_idle(class) {
                free(table, mapper);
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

/// Number of descriptors that a table of `bytes` has room for.
fn capacity_of(bytes: usize, mapper: &Mapper) -> u16 {
    // CAST: What was asked for, or what 8 KiB hold.
    (bytes.wrapping_sub(size_of::<Header>()) / each(mapper)) as u16
}

/// Allocates a table of a class, or for exactly `count` descriptors if there is none.
#[cold]
#[inline(never)]
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
    let capacity = capacity_of(bytes, mapper);
    let smaller = match class {
        Some(class) if class != 0 => capacity_of(class_bytes(class) / 2, mapper),
        _ => 0,
    };
    let header = Header {
        next: null_mut(),
        addr: 0,
        bytes_mapped: 0,
        capacity,
        mapped: 0,
        smaller,
        // CAST: At most what `MAX_SIZE` descriptors need.
        bytes: bytes as u32,
        // CAST: At most `CLASSES`.
        class: class.unwrap_or(CLASSES) as u8,
        access: Access::Unmapped,
    };
    let memory = memory.cast::<Header>();
    // SAFETY: It is large enough; allocations of these sizes are aligned to 16 bytes at least.
    unsafe { memory.write(header) };
    // INVARIANT: As allocated, and all of it is zero but the header.
    Some(Table(memory))
}

/// Unmaps and frees a table that the device is done with.
#[cold]
#[inline(never)]
pub(super) fn free(table: Table, mapper: &Mapper) {
    let header = table.header();
    if mapper.uses_api() && header.bytes_mapped != 0 {
        // CAST: Widening.
        let size = header.bytes_mapped as usize;
        // SAFETY: `show` has mapped it so; the device is done with its buffer, and has written
        // nothing that the CPU would have to see.
        unsafe { mapper.unmap_page(header.addr, size, TO_DEVICE, SKIP_CPU_SYNC) };
    }
    // SAFETY: By the type invariant the table owns its memory, and is gone.
    unsafe { bindings::kfree(table.into_raw()) };
}
