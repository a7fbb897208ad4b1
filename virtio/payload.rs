// SPDX-License-Identifier: GPL-2.0

//! What can be put into a virtqueue: which memory of it the device may read, which it may write.
//!
//! A driver composes payloads of [`InBuf`]s, [`OutBuf`]s and whatever else can make a [`Readable`]
//! or a [`Writable`], without any `unsafe`.

pub use crate::kernel_ext::sg::{
    Parts,
    Readable,
    Writable, //
};

use super::endian::{
    Le16,
    Le32,
    Le64,
    Virtio16,
    Virtio32,
    Virtio64, //
};

use kernel::{
    prelude::*,
    transmute::AsBytes, //
};

macro_rules! plain_bytes {
    ($($int:ty),*) => {$(
        // SAFETY: A transparent integer, all of whose bytes are initialised.
        unsafe impl AsBytes for $int {}
    )*};
}

plain_bytes!(Le16, Le32, Le64, Virtio16, Virtio32, Virtio64);

/// A value that a driver puts into a `Queue` (`queue.rs`).
///
/// The queue owns the value until the device has used the buffer, or was reset. It asks once for
/// the memory, when the buffer is made available, and does not touch the value after that: so the
/// value is borrowed as long as the device has the memory. That is why an implementation cannot
/// take back or replace what it has shown, and the trait needs no `unsafe`.
///
/// # Examples
///
/// A request in two pieces, and room for data and a status:
///
/// ```
/// use crate::virtio::prelude::*;
///
/// struct Query {
///     header: KBox<OutBuf<Le32, 1, ()>>,
///     question: KBox<OutBuf<Le32, 2, ()>>,
///     answer: KBox<InBuf<8>>,
///     status: KBox<InBuf<1>>,
/// }
///
/// impl Payload for Query {
///     fn parts(&mut self) -> Parts<'_> {
///         Parts::new()
///             .readable(&*self.header)
///             .readable(&*self.question)
///             .writable(&mut *self.answer)
///             .writable(&mut *self.status)
///     }
///
///     fn used(&mut self, len: usize) {
///         self.answer.used(len);
///         self.status.used(len.saturating_sub(8));
///     }
/// }
///
/// impl Query {
///     fn new(number: u32) -> Result<KBox<Self>> {
///         let mut query = Self {
///             header: OutBuf::new(())?,
///             question: OutBuf::new(())?,
///             answer: InBuf::new()?,
///             status: InBuf::new()?,
///         };
///
///         query.header.push(Le32::from_cpu(1))?;
///         query.question.push(Le32::from_cpu(number))?;
///         Ok(KBox::new(query, GFP_KERNEL)?)
///     }
/// }
///
/// let mut query = Query::new(7)?;
///
/// // What was not written is not given out, whatever the device says.
/// assert!(query.answer.is_empty());
/// query.used(1000);
/// assert_eq!(query.answer.take(100), [0; 8]);
/// assert_eq!(query.status.take(100), [0; 1]);
/// ```
pub trait Payload: Send + 'static {
    /// The memory: the device sees what it may read before what it may write, each in the order of
    /// its pieces.
    fn parts(&mut self) -> Parts<'_>;

    /// The device has used the buffer, and says that it wrote `len` bytes from the beginning of
    /// the writable pieces. It may lie: `len` can be more than there is.
    fn used(&mut self, _len: usize) {}
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

    /// Appends `count` elements, which `fill` writes.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is no room for so many; `fill` is not called then.
    pub fn extend(&mut self, count: usize, fill: impl FnOnce(&mut [T])) -> Result {
        let end = self.len.checked_add(count).ok_or(ENOSPC)?;

        fill(self.data.get_mut(self.len..end).ok_or(ENOSPC)?);
        self.len = end;
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
        Self::first(&buf.data, buf.len)
    }
}

impl<T, const N: usize, M> Payload for OutBuf<T, N, M>
where
    T: AsBytes + Copy + Default + Send + 'static,
    M: Send + 'static,
{
    fn parts(&mut self) -> Parts<'_> {
        Parts::new().readable(&*self)
    }
}

/// A buffer of `N` bytes for the device to fill, and for the driver to empty.
///
/// # Invariants
///
/// `taken` is at most `filled`, which is at most `N`.
pub struct InBuf<const N: usize> {
    data: KBox<[u8; N]>,
    filled: usize,
    taken: usize,
}

impl<const N: usize> InBuf<N> {
    /// Makes a buffer that nothing was written to.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new() -> Result<KBox<Self>> {
        let data = KBox::init(pin_init::init_zeroed(), GFP_KERNEL)?;

        // INVARIANT: All are 0.
        Ok(KBox::new(
            Self {
                data,
                filled: 0,
                taken: 0,
            },
            GFP_KERNEL,
        )?)
    }

    /// Takes up to `max` bytes of what the device wrote and nobody took before.
    ///
    /// Only what the device says it wrote is ever given out.
    #[inline]
    pub fn take(&mut self, max: usize) -> &[u8] {
        let begin = self.taken;

        // INVARIANT: No more than is filled.
        self.taken = self.filled.min(begin.saturating_add(max));
        self.data.get(begin..self.taken).unwrap_or(&[])
    }

    /// Tells whether nothing is left to be taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.taken == self.filled
    }
}

/// Empties the buffer: nothing was written to it then.
impl<'p, const N: usize> From<&'p mut InBuf<N>> for Writable<'p> {
    fn from(buf: &'p mut InBuf<N>) -> Self {
        // INVARIANT: All are 0.
        buf.filled = 0;
        buf.taken = 0;
        Self::all(&mut buf.data)
    }
}

impl<const N: usize> Payload for InBuf<N> {
    fn parts(&mut self) -> Parts<'_> {
        Parts::new().writable(self)
    }

    fn used(&mut self, len: usize) {
        // INVARIANT: Holds whatever the device says; nothing was taken yet.
        self.filled = len.min(N);
    }
}
