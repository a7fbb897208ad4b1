// SPDX-License-Identifier: GPL-2.0

//! The buffers in a virtqueue, which the queue owns as long as the device may touch them.
//!
//! What drivers (`queue.rs`) and transports with a queue of their own have in
//! common: the functions of `include/linux/virtio.h`, with payloads that are moved in and out.

use super::{
    bindings,
    payload::Payload, //
};

use core::{
    marker::PhantomData,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::{
    error::to_result,
    num::casts::u32_as_usize,
    prelude::*, //
};

/// The buffers of one virtqueue.
///
/// Dropping it leaves those that the device has in the queue: their memory is lost.
///
/// # Invariants
///
/// - `vq` is a queue that exists as long as this, and that nobody else puts anything into.
/// - Each token in it is the raw pointer of a `KBox<P>` and was put there by [`Self::add`].
pub struct Buffers<P: Payload> {
    vq: NonNull<bindings::virtqueue>,
    _payloads: PhantomData<KBox<P>>,
}

impl<P: Payload> Buffers<P> {
    /// The buffers of a queue that has none.
    ///
    /// # Safety
    ///
    /// The queue must exist as long as the result, be empty, and be in nobody else's hands.
    pub unsafe fn new(vq: NonNull<bindings::virtqueue>) -> Self {
        // INVARIANT: By the requirements above; there are no tokens yet.
        Self {
            vq,
            _payloads: PhantomData,
        }
    }

    /// Makes a payload available, without notifying the device. `gfp` says how to find memory that
    /// the ring may need.
    ///
    /// # Errors
    ///
    /// With the payload given back: `EINVAL` if it has nothing for the device, `ENOSPC` if the
    /// queue is full, `EIO` if it is broken, `ENOMEM`.
    ///
    /// # Context
    ///
    /// Any that `gfp` allows.
    pub fn add(
        &mut self,
        mut payload: KBox<P>,
        gfp: bindings::gfp_t,
    ) -> Result<(), (Error, KBox<P>)> {
        let mut readable = payload.readable().list();
        let mut writable = payload.writable().list();
        let (readable, writable) = (readable.as_raw(), writable.as_raw());
        let outs = u32::from(readable.is_some());
        let ins = u32::from(writable.is_some());
        let mut lists = [readable.or(writable), writable].map(|list| list.unwrap_or(null_mut()));
        if outs + ins == 0 {
            return Err((EINVAL, payload));
        }
        let token = KBox::into_raw(payload);

        // SAFETY: By the type invariant `vq` is valid and `&mut self` excludes other users of it.
        // `lists` has as many valid lists as announced. The memory they name belongs to the
        // payload, which stays where it is and is not touched until it is taken back.
        // INVARIANT: `token` is the raw pointer of a box of the right type.
        let ret = to_result(unsafe {
            bindings::virtqueue_add_sgs(
                self.vq.as_ptr(),
                lists.as_mut_ptr(),
                outs,
                ins,
                token.cast(),
                gfp,
            )
        });
        // SAFETY: If the queue did not take the payload, `token` is still ours alone.
        ret.map_err(|e| (e, unsafe { KBox::from_raw(token) }))
    }

    /// Notifies the device of the payloads that were added, if it wants to know.
    ///
    /// A notification that fails marks the queue as broken: [`Self::is_broken`] tells.
    ///
    /// # Context
    ///
    /// Any. The device must be live.
    pub fn notify(&mut self) {
        // SAFETY: By the type invariant `vq` is valid, `&mut self` excludes other users of it.
        unsafe { bindings::virtqueue_kick(self.vq.as_ptr()) };
    }

    /// Takes back one payload that the device has used, and tells it how much the device wrote
    /// ([`Payload::used`]).
    ///
    /// # Context
    ///
    /// Any.
    pub fn take_used(&mut self) -> Option<KBox<P>> {
        let mut len = 0;
        // SAFETY: By the type invariant `vq` is valid, `&mut self` excludes other users of it.
        let token = unsafe { bindings::virtqueue_get_buf(self.vq.as_ptr(), &mut len) };

        if token.is_null() {
            return None;
        }
        // SAFETY: By the type invariant, and the ring gives each token back only once.
        let mut payload = unsafe { KBox::<P>::from_raw(token.cast()) };

        payload.used(u32_as_usize(len));
        Some(payload)
    }

    /// Takes back one payload that the device never used.
    ///
    /// # Context
    ///
    /// Any.
    pub fn take_unused(&mut self, _quiet: &Quiet) -> Option<KBox<P>> {
        // SAFETY: By the type invariant `vq` is valid, and the device does not use it any more.
        let token = unsafe { bindings::virtqueue_detach_unused_buf(self.vq.as_ptr()) };

        // SAFETY: By the type invariant; the ring gives each token back only once.
        (!token.is_null()).then(|| unsafe { KBox::from_raw(token.cast()) })
    }

    /// Tells whether the queue is unusable: the device lied, is gone, or was shut down.
    pub fn is_broken(&self) -> bool {
        // SAFETY: By the type invariant `vq` is valid.
        unsafe { bindings::virtqueue_is_broken(self.vq.as_ptr()) }
    }

    /// Number of descriptors in the ring: how many parts fit in at a time.
    pub fn size(&self) -> usize {
        // SAFETY: By the type invariant `vq` is valid.
        u32_as_usize(unsafe { bindings::virtqueue_get_vring_size(self.vq.as_ptr()) })
    }
}

// SAFETY: A virtqueue may be used from any thread as long as users exclude each other, which
// `&mut self` ensures; payloads are `Send`.
unsafe impl<P: Payload> Send for Buffers<P> {}

// SAFETY: Through a shared reference the queue can only be asked for its size and state.
unsafe impl<P: Payload> Sync for Buffers<P> {}

/// Proof that a device does not touch the memory of its queues: it was reset, or is gone.
pub struct Quiet(());

impl Quiet {
    /// # Safety
    ///
    /// It must be true, and remain so as long as the proof exists.
    pub unsafe fn new() -> Self {
        Self(())
    }
}
