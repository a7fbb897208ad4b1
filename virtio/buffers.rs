// SPDX-License-Identifier: GPL-2.0

//! The buffers in a virtqueue, which the queue owns as long as the device may touch them.
//!
//! What drivers (`queue.rs`) and transports with a queue of their own have in
//! common: the functions of `include/linux/virtio.h`, with payloads that are moved in and out.

use super::{
    bindings,
    payload::Payload, //
};
use crate::kernel_ext::sg::{
    Lists,
    Table, //
};

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    num::casts::u32_as_usize,
    prelude::*, //
};

/// A virtqueue, whatever is in it. Whoever has this excludes all other users, except those who
/// only notify the device.
///
/// # Invariants
///
/// The queue exists as long as this, and nobody else puts anything into it or takes it out.
pub struct RawQueue(NonNull<bindings::virtqueue>);

impl RawQueue {
    /// # Safety
    ///
    /// The queue must exist as long as the result, and be in nobody else's hands.
    pub unsafe fn new(vq: NonNull<bindings::virtqueue>) -> Self {
        // INVARIANT: By the requirements above.
        Self(vq)
    }

    /// The C structure.
    pub fn as_ptr(&self) -> *mut bindings::virtqueue {
        self.0.as_ptr()
    }

    /// Makes a buffer available, without notifying the device. `token` comes back with it.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the queue is full, `EIO` if it is broken, `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The memory that `lists` name must remain the device's until the token comes back. The token
    /// must not be null.
    #[inline]
    pub unsafe fn add(
        &mut self,
        lists: &mut Lists<'_>,
        token: *mut c_void,
        gfp: bindings::gfp_t,
    ) -> Result {
        // SAFETY: By the type invariant the queue exists and has no other user. There are as many
        // valid lists as announced, and their memory is the device's by the requirements above.
        to_result(unsafe {
            bindings::virtqueue_add_sgs(
                self.as_ptr(),
                lists.as_mut_ptr(),
                lists.readables,
                lists.writables,
                token,
                gfp,
            )
        })
    }

    /// Takes out a buffer that the device has used: its token, and how many bytes the device says
    /// it wrote.
    #[inline]
    pub fn take_used(&mut self) -> Option<(NonNull<c_void>, usize)> {
        let mut len = 0;
        // SAFETY: By the type invariant the queue exists and has no other user.
        let token = unsafe { bindings::virtqueue_get_buf(self.as_ptr(), &mut len) };

        Some((NonNull::new(token)?, u32_as_usize(len)))
    }

    /// Takes out a buffer that the device has not used: its token.
    ///
    /// # Safety
    ///
    /// The device must have been reset, or be gone: it still has the memory otherwise.
    pub unsafe fn take_unused(&mut self) -> Option<NonNull<c_void>> {
        // SAFETY: By the type invariant the queue exists and has no other user; by the requirements
        // above the device does not use it any more.
        NonNull::new(unsafe { bindings::virtqueue_detach_unused_buf(self.as_ptr()) })
    }

    /// Tells whether the device wants to be notified of what was added.
    #[inline]
    pub fn prepare_notification(&mut self) -> bool {
        // SAFETY: By the type invariant the queue exists and has no other user.
        unsafe { bindings::virtqueue_kick_prepare(self.as_ptr()) }
    }

    /// Tells the device that notifications are not needed; some may come all the same.
    pub fn disable_callback(&mut self) {
        // SAFETY: By the type invariant the queue exists and has no other user.
        unsafe { bindings::virtqueue_disable_cb(self.as_ptr()) };
    }

    /// Tells the device that notifications are wanted; returns what [`Self::poll`] wants.
    pub fn enable_callback(&mut self) -> u32 {
        // SAFETY: By the type invariant the queue exists and has no other user.
        unsafe { bindings::virtqueue_enable_cb_prepare(self.as_ptr()) }
    }

    /// As [`Self::enable_callback`], for when most of the buffers that the device has are used;
    /// returns whether there are not that many now.
    pub fn enable_callback_delayed(&mut self) -> bool {
        // SAFETY: By the type invariant the queue exists and has no other user.
        unsafe { bindings::virtqueue_enable_cb_delayed(self.as_ptr()) }
    }

    /// Tells whether the device has used buffers since [`Self::enable_callback`] returned `seen`.
    pub fn poll(&mut self, seen: u32) -> bool {
        // SAFETY: By the type invariant the queue exists. Any number will do.
        unsafe { bindings::virtqueue_poll(self.as_ptr(), seen) }
    }

    /// Tells whether the queue is unusable: the device lied, is gone, or was shut down.
    pub fn is_broken(&self) -> bool {
        // SAFETY: By the type invariant the queue exists.
        unsafe { bindings::virtqueue_is_broken(self.as_ptr()) }
    }

    /// Number of descriptors in the ring.
    pub fn size(&self) -> usize {
        // SAFETY: By the type invariant the queue exists.
        u32_as_usize(unsafe { bindings::virtqueue_get_vring_size(self.as_ptr()) })
    }
}

// SAFETY: A virtqueue may be used from any thread, as long as its users exclude each other.
unsafe impl Send for RawQueue {}

// SAFETY: Through a shared reference the queue can only be asked for its size and state.
unsafe impl Sync for RawQueue {}

/// Turns a payload into what a queue takes: has `add` put its token, the raw pointer of the box,
/// into a queue with the scatter lists of its memory.
///
/// # Errors
///
/// With the payload given back: `EINVAL` if it has nothing for the device, `E2BIG` if it has too
/// many pieces, and what `add` says.
///
/// # Safety
///
/// `add` must put the token into a queue whose tokens are of `KBox<P>`, and must do so exactly if
/// it returns `Ok`.
#[inline(always)]
pub unsafe fn offer<P: Payload>(
    mut payload: KBox<P>,
    add: impl FnOnce(&mut Lists<'_>, *mut c_void) -> Result,
) -> Result<(), (Error, KBox<P>)> {
    let mut table = Table::new();
    let mut lists = match payload.parts().lists(&mut table) {
        Ok(lists) => lists,
        Err(error) => return Err((error, payload)),
    };
    // The payload stays where it is, and is not touched until its token comes back, as if it were
    // borrowed as long as the device has the memory.
    let token = KBox::into_raw(payload);

    // SAFETY: If the queue did not take the token, it is still ours alone.
    add(&mut lists, token.cast()).map_err(|error| (error, unsafe { KBox::from_raw(token) }))
}

/// The buffers of one virtqueue.
///
/// Dropping it leaves those that the device has in the queue: their memory is lost.
///
/// # Invariants
///
/// Each token in the queue is the raw pointer of a `KBox<P>` and was put there by [`Self::add`].
pub struct Buffers<P: Payload> {
    queue: RawQueue,
    _payloads: PhantomData<KBox<P>>,
}

impl<P: Payload> Buffers<P> {
    /// The buffers of a queue that has none.
    ///
    /// # Safety
    ///
    /// The queue must exist as long as the result, be empty, and be in nobody else's hands.
    pub unsafe fn new(vq: NonNull<bindings::virtqueue>) -> Self {
        // INVARIANT: There are no tokens yet.
        Self {
            // SAFETY: By the requirements above.
            queue: unsafe { RawQueue::new(vq) },
            _payloads: PhantomData,
        }
    }

    /// Makes a payload available, without notifying the device. `gfp` says how to find memory that
    /// the ring may need.
    ///
    /// # Errors
    ///
    /// With the payload given back: `EINVAL` if it has nothing for the device, `E2BIG` if it has
    /// too many pieces, `ENOSPC` if the queue is full, `EIO` if it is broken, `ENOMEM`.
    ///
    /// # Context
    ///
    /// Any that `gfp` allows.
    pub fn add(&mut self, payload: KBox<P>, gfp: bindings::gfp_t) -> Result<(), (Error, KBox<P>)> {
        // SAFETY: `offer` gives lists of the payload, which is not touched until it is taken back.
        let add = |lists: &mut Lists<'_>, token| unsafe { self.queue.add(lists, token, gfp) };

        // SAFETY: By the type invariant the queue is one of `KBox<P>`.
        // INVARIANT: The token is the raw pointer of such a box.
        unsafe { offer(payload, add) }
    }

    /// Notifies the device of the payloads that were added, if it wants to know.
    ///
    /// A notification that fails marks the queue as broken: [`Self::is_broken`] tells.
    ///
    /// # Context
    ///
    /// Any. The device must be live.
    pub fn notify(&mut self) {
        if self.queue.prepare_notification() {
            // SAFETY: By the type invariant of `RawQueue` the queue exists.
            unsafe { bindings::virtqueue_notify(self.queue.as_ptr()) };
        }
    }

    /// Takes back one payload that the device has used, and tells it how much the device wrote
    /// ([`Payload::used`]).
    ///
    /// # Context
    ///
    /// Any.
    pub fn take_used(&mut self) -> Option<KBox<P>> {
        let (token, len) = self.queue.take_used()?;
        // SAFETY: By the type invariant, and the ring gives each token back only once.
        let mut payload = unsafe { KBox::<P>::from_raw(token.as_ptr().cast()) };

        payload.used(len);
        Some(payload)
    }

    /// Takes back one payload that the device never used.
    ///
    /// # Context
    ///
    /// Any.
    pub fn take_unused(&mut self, _quiet: &Quiet) -> Option<KBox<P>> {
        // SAFETY: The proof says that the device does not use the queue any more.
        let token = unsafe { self.queue.take_unused() }?;

        // SAFETY: By the type invariant, and the ring gives each token back only once.
        Some(unsafe { KBox::from_raw(token.as_ptr().cast()) })
    }

    /// Tells whether the queue is unusable: the device lied, is gone, or was shut down.
    pub fn is_broken(&self) -> bool {
        self.queue.is_broken()
    }

    /// Number of descriptors in the ring: how many parts fit in at a time.
    pub fn size(&self) -> usize {
        self.queue.size()
    }
}

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
