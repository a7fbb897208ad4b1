// SPDX-License-Identifier: GPL-2.0

//! What can be put into a virtqueue: which memory of it the device may read, which it may write.
//!
//! Only types whose memory stays in place and belongs to nobody else can make a [`Readable`] or a
//! [`Writable`]. So a driver composes payloads without any `unsafe`.

use super::bindings;
use crate::kernel_ext::{
    page_block::PageBlock,
    page_reporting, //
};

use core::{
    marker::PhantomData,
    mem::{
        size_of_val,
        MaybeUninit, //
    }, //
};
use kernel::{
    prelude::*,
    transmute::AsBytes, //
};

/// A value that a driver puts into a [`Queue`](super::queue::Queue).
///
/// The queue owns the value until the device has used the buffer, or was reset. Its two parts are
/// asked for once, when the buffer is made available.
pub trait Payload: Send + 'static {
    /// What the device may read.
    fn readable(&self) -> Readable<'_> {
        Readable::NOTHING
    }

    /// What the device may write.
    fn writable(&mut self) -> Writable<'_> {
        Writable::NOTHING
    }
}

/// Memory of a [`Payload`] that the device may read.
pub struct Readable<'p>(Memory, PhantomData<&'p ()>);

/// Memory of a [`Payload`] that the device may write.
pub struct Writable<'p>(Memory, PhantomData<&'p mut ()>);

impl Readable<'_> {
    /// No memory at all.
    pub const NOTHING: Self = Self(Memory::Nothing, PhantomData);

    /// Prepares the scatter list for it.
    pub(super) fn list(&self) -> List {
        self.0.list()
    }
}

impl Writable<'_> {
    /// No memory at all.
    pub const NOTHING: Self = Self(Memory::Nothing, PhantomData);

    /// Prepares the scatter list for it.
    pub(super) fn list(&self) -> List {
        self.0.list()
    }
}

impl<'p> From<&'p mut PageBlock> for Writable<'p> {
    fn from(block: &'p mut PageBlock) -> Self {
        match u32::try_from(PageBlock::BYTES) {
            Ok(len) => Self(Memory::Pages(block.as_raw(), len), PhantomData),
            Err(_) => Self::NOTHING,
        }
    }
}

impl<'p> From<&'p mut page_reporting::Pages> for Writable<'p> {
    fn from(pages: &'p mut page_reporting::Pages) -> Self {
        Self(Memory::List(pages.as_raw()), PhantomData)
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

/// A scatter list for the time of one call of the ring.
pub(super) enum List {
    None,
    One(MaybeUninit<bindings::scatterlist>),
    Other(*mut bindings::scatterlist),
}

impl List {
    /// The list for C, or `None` if there is no memory in it.
    pub(super) fn as_raw(&mut self) -> Option<*mut bindings::scatterlist> {
        match self {
            Self::None => None,
            Self::One(entry) => Some(entry.as_mut_ptr()),
            Self::Other(list) => Some(*list),
        }
    }
}

/// A buffer for the device to read: `N` elements of which the first `len` count, and what the
/// driver wants to remember about them.
pub struct OutBuf<T, const N: usize, M> {
    data: KBox<[T; N]>,
    len: usize,
    /// The driver's own note; the device never sees it.
    pub meta: M,
}

impl<T: AsBytes + Copy + Default, const N: usize, M> OutBuf<T, N, M> {
    /// Makes an empty buffer.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(meta: M) -> Result<KBox<Self>> {
        let data = KBox::new([T::default(); N], GFP_KERNEL)?;

        Ok(KBox::new(Self { data, len: 0, meta }, GFP_KERNEL)?)
    }

    /// Empties the buffer.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends an element.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the buffer has `N` already.
    pub fn push(&mut self, value: T) -> Result {
        *self.data.get_mut(self.len).ok_or(ENOSPC)? = value;
        self.len += 1;
        Ok(())
    }

    /// The elements, in the order in which the device will find them.
    pub fn elements(&self) -> &[T] {
        self.data.get(..self.len).unwrap_or(&[])
    }
}

impl<'p, T: AsBytes + Copy + Default, const N: usize, M> From<&'p OutBuf<T, N, M>>
    for Readable<'p>
{
    fn from(buf: &'p OutBuf<T, N, M>) -> Self {
        let elements = buf.elements();

        match u32::try_from(size_of_val(elements)) {
            Ok(len @ 1..) => Self(Memory::Slab(elements.as_ptr().cast(), len), PhantomData),
            _ => Self::NOTHING,
        }
    }
}

impl<T, const N: usize, M> Payload for OutBuf<T, N, M>
where
    T: AsBytes + Copy + Default + Send + 'static,
    M: Send + 'static,
{
    fn readable(&self) -> Readable<'_> {
        self.into()
    }
}
