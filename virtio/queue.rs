// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as a driver sees them: they own the buffers that the device may touch.
//!
//! A buffer is moved into a queue and moved out again when the device has used it, or after a
//! reset. In between no reference to it exists, so the driver cannot touch what the device may
//! read.
//!
//! Nothing that the device writes is interpreted here but the fact that a buffer was used: the ring
//! below checks ids and lengths and breaks the queue of a device that lies.
//!
//! Follows Virtio 1.4, 2.6 and `include/linux/virtio.h`.

use super::{
    bindings,
    driver::Adapter,
    Device,
    Driver, //
};

use core::{
    marker::PhantomData,
    mem::{
        size_of,
        MaybeUninit, //
    },
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    device::Bound,
    error::to_result,
    prelude::*,
    transmute::AsBytes, //
};

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

/// The virtqueues of a device that is, or is about to be, live.
///
/// Dropping it resets the device, takes back the buffers that it still had, and deletes the queues.
///
/// # Invariants
///
/// - `vqs` are the queues that the transport made for `dev`, and they exist until it is asked to
///   delete them in [`Self::delete`].
/// - Each buffer that a queue holds was put there by [`Self::send`] as the raw pointer of a
///   `KBox<OutBuf<T, N, M>>`.
pub struct Queues<'a, T, const N: usize, M> {
    dev: &'a Device<Bound>,
    vqs: KVec<NonNull<bindings::virtqueue>>,
    _buffers: PhantomData<KBox<OutBuf<T, N, M>>>,
}

impl<'a, T, const N: usize, M> Queues<'a, T, N, M> {
    /// Creates one queue for each name, in the order of the queue numbers of the device.
    ///
    /// The names show up in `/proc/interrupts`. When the device uses a buffer,
    /// [`Driver::notified`] of `D` is called.
    ///
    /// # Errors
    ///
    /// What the transport says: `ENOENT` if the device lacks a queue, `ENOMEM`, `EBUSY`.
    ///
    /// # Context
    ///
    /// May sleep. The device must not be live: only from [`Driver::probe`] and [`Driver::restore`].
    pub fn new<D: Driver>(dev: &'a Device<Bound>, names: &[&'static CStr]) -> Result<Self> {
        let mut infos = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        let mut raw = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        let mut vqs = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        for name in names {
            infos.push(
                bindings::virtqueue_info {
                    name: name.as_char_ptr(),
                    callback: Some(Adapter::<D>::notified_callback),
                    ctx: false,
                },
                GFP_KERNEL,
            )?;
            raw.push(null_mut(), GFP_KERNEL)?;
        }
        let find = dev.ops().find_vqs.ok_or(EINVAL)?;
        let count = u32::try_from(names.len())?;

        // SAFETY: The device is bound and both arrays have `count` elements. The names are static,
        // the transport copies the rest.
        to_result(unsafe {
            find(
                dev.as_raw(),
                count,
                raw.as_mut_ptr(),
                infos.as_mut_ptr(),
                null_mut(),
            )
        })?;
        for vq in raw.iter().copied().filter_map(NonNull::new) {
            vqs.push(vq, GFP_KERNEL)?;
        }

        // INVARIANT: The queues are those of the transport, one for each name, and still empty.
        Ok(Self {
            dev,
            vqs,
            _buffers: PhantomData,
        })
    }

    /// The C structure of queue `index`.
    fn raw(&self, index: usize) -> Option<*mut bindings::virtqueue> {
        self.vqs.get(index).map(|vq| vq.as_ptr())
    }

    /// Makes a buffer available in queue `index` and notifies the device.
    ///
    /// # Errors
    ///
    /// With the buffer given back: `EINVAL` if there is no such queue or the buffer is empty,
    /// `ENOSPC` if the queue is full, `EIO` if it is broken, `ENOMEM`.
    ///
    /// # Context
    ///
    /// Any.
    pub fn send(
        &mut self,
        index: usize,
        buf: KBox<OutBuf<T, N, M>>,
    ) -> Result<(), (Error, KBox<OutBuf<T, N, M>>)>
    where
        T: AsBytes,
    {
        let bytes = buf.len * size_of::<T>();
        let Some(vq) = self.raw(index).filter(|_| bytes > 0) else {
            return Err((EINVAL, buf));
        };
        let Ok(bytes) = u32::try_from(bytes) else {
            return Err((EINVAL, buf));
        };
        let data: *const [T; N] = &*buf.data;
        let token = KBox::into_raw(buf);
        let mut sg = MaybeUninit::<bindings::scatterlist>::zeroed();

        // SAFETY: `data` is `bytes` long or longer, and from kmalloc as `sg_init_one` demands.
        unsafe { bindings::sg_init_one(sg.as_mut_ptr(), data.cast(), bytes) };

        // SAFETY: By the type invariant `vq` is valid and `&mut self` excludes other users of it.
        // The buffer is owned by `token` and stays where it is until it is taken back.
        // INVARIANT: `token` is the raw pointer of a box of the right type.
        let ret = to_result(unsafe {
            bindings::virtqueue_add_outbuf(
                vq,
                sg.as_mut_ptr(),
                1,
                token.cast(),
                bindings::GFP_NOWAIT,
            )
        });
        if let Err(e) = ret {
            // SAFETY: The queue did not take the buffer, so `token` is still ours alone.
            return Err((e, unsafe { KBox::from_raw(token) }));
        }
        // A notification that fails marks the queue as broken: `is_broken` tells.
        // SAFETY: As above.
        unsafe { bindings::virtqueue_kick(vq) };
        Ok(())
    }

    /// Takes back one buffer of queue `index` that the device has used.
    pub fn take_used(&mut self, index: usize) -> Option<KBox<OutBuf<T, N, M>>> {
        let vq = self.raw(index)?;
        let mut len = 0;
        // SAFETY: By the type invariant `vq` is valid, `&mut self` excludes other users of it.
        let token = unsafe { bindings::virtqueue_get_buf(vq, &mut len) };

        // The reported length is of no meaning for a buffer that the device only reads.
        // SAFETY: By the type invariant, and the ring gives each buffer back only once.
        (!token.is_null()).then(|| unsafe { KBox::from_raw(token.cast()) })
    }

    /// Tells whether queue `index` is unusable: the device lied, is gone, or was shut down.
    pub fn is_broken(&self, index: usize) -> bool {
        self.raw(index)
            // SAFETY: By the type invariant `vq` is valid.
            .is_none_or(|vq| unsafe { bindings::virtqueue_is_broken(vq) })
    }

    /// Resets the device, hands each buffer that it still had to `take`, and deletes the queues.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn delete(mut self, take: impl FnMut(usize, KBox<OutBuf<T, N, M>>)) {
        self.tear_down(take);
    }

    /// [`Self::delete`] for use by `drop`; a second call does nothing.
    fn tear_down(&mut self, mut take: impl FnMut(usize, KBox<OutBuf<T, N, M>>)) {
        if self.vqs.is_empty() {
            return;
        }
        self.dev.reset();
        for (index, vq) in self.vqs.iter().enumerate() {
            loop {
                // SAFETY: `vq` is valid by the type invariant, and the device was reset.
                let token = unsafe { bindings::virtqueue_detach_unused_buf(vq.as_ptr()) };
                if token.is_null() {
                    break;
                }
                // SAFETY: By the type invariant; the ring gives each buffer back only once.
                take(index, unsafe { KBox::from_raw(token.cast()) });
            }
        }
        // INVARIANT: Nothing refers to the queues after this.
        self.vqs.clear();
        if let Some(del_vqs) = self.dev.ops().del_vqs {
            // SAFETY: The device is bound and was reset; the queues are empty.
            unsafe { del_vqs(self.dev.as_raw()) };
        }
    }
}

impl<T, const N: usize, M> Drop for Queues<'_, T, N, M> {
    fn drop(&mut self) {
        self.tear_down(|_, buf| drop(buf));
    }
}

// SAFETY: A virtqueue may be used from any thread as long as users exclude each other, which
// `&mut self` ensures; the buffers are `Send` if their parts are.
unsafe impl<T: Send, const N: usize, M: Send> Send for Queues<'_, T, N, M> {}
