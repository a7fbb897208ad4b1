// SPDX-License-Identifier: GPL-2.0

//! Memory that a device may be told of by a scatter list.
//!
//! Only types whose memory stays in place and belongs to nobody else can make a [`Readable`] or a
//! [`Writable`], so those who pass them on need no `unsafe`.
//!
//! C header: `include/linux/scatterlist.h`.

use core::{
    marker::PhantomData,
    mem::MaybeUninit, //
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

    /// Prepares the scatter list for it.
    pub fn list(&self) -> List {
        self.0.list()
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
    /// As for [`Self::pages`], for all pages in the list, and for the list itself.
    pub unsafe fn from_list(list: *mut bindings::scatterlist) -> Self {
        Self(Memory::List(list), PhantomData)
    }

    /// Prepares the scatter list for it.
    pub fn list(&self) -> List {
        self.0.list()
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

    /// Prepares a scatter list for it.
    fn list(&self) -> List {
        let mut entry = MaybeUninit::<bindings::scatterlist>::zeroed();

        match *self {
            Self::Nothing => return List::None,
            Self::List(list) => return List::Other(list),
            Self::Slab(data, len) => {
                // SAFETY: `data` is `len` long and from kmalloc, as `sg_init_one` demands.
                unsafe { bindings::sg_init_one(entry.as_mut_ptr(), data, len) };
            }
            Self::Pages(page, len) => {
                let entry = entry.as_mut_ptr();
                // SAFETY: `entry` has room for one.
                unsafe { bindings::sg_init_table(entry, 1) };
                // SAFETY: The table above has one entry, whose two lowest bits are flags and stay.
                unsafe {
                    (*entry).page_link |= page.expose_provenance() as c_ulong;
                    (*entry).length = len;
                }
            }
        }
        List::One(entry)
    }
}

/// A scatter list, for as long as it is not moved.
pub enum List {
    /// There is no memory in it.
    None,
    /// It has one entry.
    One(MaybeUninit<bindings::scatterlist>),
    /// It is kept elsewhere.
    Other(*mut bindings::scatterlist),
}

impl List {
    /// The list for C, or `None` if there is no memory in it.
    pub fn as_raw(&mut self) -> Option<*mut bindings::scatterlist> {
        match self {
            Self::None => None,
            Self::One(entry) => Some(entry.as_mut_ptr()),
            Self::Other(list) => Some(*list),
        }
    }
}
