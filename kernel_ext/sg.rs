// SPDX-License-Identifier: GPL-2.0

//! Memory that a device may be told of by scatter lists.
//!
//! Only types whose memory stays in place and belongs to nobody else can make a [`Readable`] or a
//! [`Writable`], so those who pass them on need no `unsafe`. A [`Parts`] has all the memory of one
//! buffer, under one borrow.
//!
//! C header: `include/linux/scatterlist.h`.

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::null_mut, //
};
use kernel::{
    bindings,
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    }, //
};

/// Memory that a device may read.
pub struct Readable<'a>(Memory, PhantomData<&'a ()>);

/// Memory that a device may write.
pub struct Writable<'a>(Memory, PhantomData<&'a mut ()>);

impl<'a> Readable<'a> {
    /// No memory at all.
    pub const NOTHING: Self = Self(Memory::Nothing, PhantomData);

    /// The first `count` elements of a box, or all if it has fewer.
    pub fn first<T: AsBytes, const N: usize>(data: &'a KBox<[T; N]>, count: usize) -> Self {
        let data = data.get(..count).unwrap_or(data.as_slice());

        Self(Memory::slab(data.as_ptr(), data.len()), PhantomData)
    }

    /// What a scatter list names.
    ///
    /// # Safety
    ///
    /// The list and the memory in it must belong to what is borrowed for `'a`, and a device may
    /// read them as long as that exists, even when it has moved.
    pub unsafe fn from_list(list: *const bindings::scatterlist) -> Self {
        Self(Memory::List(list.cast_mut()), PhantomData)
    }
}

impl<'a> Writable<'a> {
    /// No memory at all.
    pub const NOTHING: Self = Self(Memory::Nothing, PhantomData);

    /// All of a box.
    pub fn all<T: AsBytes + FromBytes, const N: usize>(data: &'a mut KBox<[T; N]>) -> Self {
        Self(Memory::slab(data.as_mut_ptr(), N), PhantomData)
    }

    /// Contiguous pages, from their first `struct page`, and their length in bytes.
    ///
    /// # Safety
    ///
    /// The pages must belong to what is borrowed for `'a`, and `len` must be no more than their
    /// size. A device may write to them as long as that exists, even when it has moved.
    pub unsafe fn pages(page: *mut bindings::page, len: usize) -> Self {
        match u32::try_from(len) {
            Ok(len) => Self(Memory::Pages(page, len), PhantomData),
            Err(_) => Self::NOTHING,
        }
    }

    /// What a scatter list names.
    ///
    /// # Safety
    ///
    /// The list and the memory in it must belong to what is borrowed for `'a`, and a device may
    /// write to that memory as long as it exists, even when it has moved.
    pub unsafe fn from_list(list: *mut bindings::scatterlist) -> Self {
        Self(Memory::List(list), PhantomData)
    }
}

/// Where memory is, as the constructors of [`Readable`] and [`Writable`] know it to be valid.
enum Memory {
    Nothing,
    /// Memory from kmalloc, and its length in bytes.
    Slab(*const c_void, u32),
    /// The first one of contiguous pages, and their length in bytes.
    Pages(*mut bindings::page, u32),
    /// What a scatter list names.
    List(*mut bindings::scatterlist),
}

impl Memory {
    /// `count` elements in memory from kmalloc.
    fn slab<T>(data: *const T, count: usize) -> Self {
        match u32::try_from(count * size_of::<T>()) {
            Ok(len @ 1..) => Self::Slab(data.cast(), len),
            _ => Self::Nothing,
        }
    }

    /// A scatter list for it, in `entry` unless there is one already.
    fn list(&self, entry: &mut Entry) -> *mut bindings::scatterlist {
        let entry = entry.as_mut_ptr();

        match *self {
            Self::Nothing => return null_mut(),
            Self::List(list) => return list,
            Self::Slab(data, len) => {
                // SAFETY: `data` is `len` long and from kmalloc, as `sg_init_one` demands.
                unsafe { bindings::sg_init_one(entry, data, len) };
            }
            Self::Pages(page, len) => {
                // SAFETY: `entry` has room for one.
                unsafe { bindings::sg_init_table(entry, 1) };
                // SAFETY: The table above has one entry, whose two lowest bits are flags and stay.
                unsafe {
                    (*entry).page_link |= page.expose_provenance() as c_ulong;
                    (*entry).length = len;
                }
            }
        }
        entry
    }
}

/// Room for an entry of a scatter list.
type Entry = MaybeUninit<bindings::scatterlist>;

/// The most pieces of a buffer that a device may read, and the most that it may write. One piece
/// may be a scatter list with many entries.
pub const PIECES: usize = 4;

/// The memory of one buffer: what a device may read, and what it may write, each in pieces.
pub struct Parts<'a> {
    readable: [Readable<'a>; PIECES],
    writable: [Writable<'a>; PIECES],
    readables: usize,
    writables: usize,
}

impl<'a> Parts<'a> {
    /// No memory yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self {
            readable: [const { Readable::NOTHING }; PIECES],
            writable: [const { Writable::NOTHING }; PIECES],
            readables: 0,
            writables: 0,
        }
    }

    /// Appends a piece that the device may read.
    #[inline(always)]
    pub fn readable(mut self, piece: impl Into<Readable<'a>>) -> Self {
        let piece = piece.into();

        if !matches!(piece.0, Memory::Nothing) {
            if let Some(free) = self.readable.get_mut(self.readables) {
                *free = piece;
            }
            self.readables += 1;
        }
        self
    }

    /// Appends a piece that the device may write.
    #[inline(always)]
    pub fn writable(mut self, piece: impl Into<Writable<'a>>) -> Self {
        let piece = piece.into();

        if !matches!(piece.0, Memory::Nothing) {
            if let Some(free) = self.writable.get_mut(self.writables) {
                *free = piece;
            }
            self.writables += 1;
        }
        self
    }

    /// Makes scatter lists of it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no memory, `E2BIG` if there are more than [`PIECES`] of a kind.
    #[inline(always)]
    pub fn lists(self, table: &mut Table) -> Result<Lists<'_>> {
        let readable = self.readable.get(..self.readables).ok_or(E2BIG)?;
        let writable = self.writable.get(..self.writables).ok_or(E2BIG)?;
        let readable = readable.iter().map(|piece| &piece.0);
        let writable = writable.iter().map(|piece| &piece.0);
        let memories = Iterator::chain(readable, writable);

        if self.readables + self.writables == 0 {
            return Err(EINVAL);
        }
        let places = table.lists.iter_mut().zip(&mut table.entries);
        for ((list, entry), memory) in places.zip(memories) {
            *list = memory.list(entry);
        }
        Ok(Lists {
            lists: &mut table.lists,
            // CAST: There are a few pieces only.
            readables: self.readables as u32,
            // CAST: There are a few pieces only.
            writables: self.writables as u32,
        })
    }
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// How many scatter lists a buffer has at most.
const LISTS: usize = 2 * PIECES;

/// Room for the scatter lists of a buffer.
pub struct Table {
    entries: [Entry; LISTS],
    lists: [*mut bindings::scatterlist; LISTS],
}

impl Table {
    /// Nothing is in it yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self {
            entries: [const { Entry::uninit() }; LISTS],
            lists: [null_mut(); LISTS],
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

/// The scatter lists of a buffer, for C: those that a device may read, then those that it may
/// write. At least one of the numbers is not 0.
///
/// They name the memory of the value that the [`Parts`] were made of, so they are good as long as
/// that is borrowed.
pub struct Lists<'t> {
    lists: &'t mut [*mut bindings::scatterlist; LISTS],
    /// How many the device may read.
    pub readables: u32,
    /// How many the device may write.
    pub writables: u32,
}

impl Lists<'_> {
    /// The array of all lists.
    pub fn as_mut_ptr(&mut self) -> *mut *mut bindings::scatterlist {
        self.lists.as_mut_ptr()
    }
}
