// SPDX-License-Identifier: GPL-2.0

//! A virtqueue in the hands of its driver: what stands between the two, so that neither a handle
//! that is lost nor one that is kept too long does any harm.
//!
//! The binding of driver and device makes the queue and deletes it; handles only borrow it, one
//! call at a time. No code of a driver runs with the lock held, and the device is notified without
//! it.

use super::super::{
    bindings,
    buffers::RawQueue, //
};
use crate::kernel_ext::sg::Lists;

use core::{
    ptr::NonNull,
    // The kernel's atomics call a function, here for each notification.
    sync::atomic::{
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq,
        SpinLockIrqGuard, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
};

/// How often to look whether nobody notifies the device any more.
const LOOK: Delta = Delta::from_micros(20);

/// What may be done with a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The device is not live yet: it must not be notified.
    Made,
    /// The device is live.
    Live,
    /// The device is being reset, or did not say that it was.
    Ended,
    /// The device was reset: it does not use the queue any more.
    Quiet,
}

/// What the lock protects.
struct State {
    stage: Stage,
    /// The queue, while there is one.
    queue: Option<RawQueue>,
    /// Drops the payload that a token stands for.
    drop_token: unsafe fn(NonNull<c_void>),
}

/// A virtqueue, between its creation and its deletion and beyond both.
///
/// # Invariants
///
/// All tokens in the queue are such that `drop_token` may be called with them.
#[pin_data]
pub(in crate::virtio) struct Slot {
    #[pin]
    state: SpinLockIrq<State>,
    /// How many are notifying the device.
    notifying: AtomicU32,
}

/// What a slot has before it is claimed.
///
/// # Safety
///
/// None, as it does nothing: there are no tokens.
unsafe fn no_token(_token: NonNull<c_void>) {}

impl Slot {
    /// A slot without a queue.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(in crate::virtio) fn new() -> Result<Arc<Self>> {
        let state = State {
            stage: Stage::Made,
            queue: None,
            drop_token: no_token,
        };

        // INVARIANT: There are no tokens.
        Arc::pin_init(
            pin_init!(Self {
                state <- new_spinlock_irq!(state, "virtio_queue"),
                notifying: AtomicU32::new(0),
            }),
            GFP_KERNEL,
        )
    }

    // For handles

    /// Says what the tokens will be, before there are any.
    ///
    /// # Safety
    ///
    /// All tokens that [`Self::add`] is given must be such that `drop_token` may be called with
    /// them.
    pub(super) unsafe fn claim(&self, drop_token: unsafe fn(NonNull<c_void>)) {
        // INVARIANT: By the requirements above.
        self.state.lock().drop_token = drop_token;
    }

    /// Does something with a queue that the device has.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not have it any more.
    #[inline]
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut RawQueue) -> R) -> Result<R> {
        let mut state = self.state.lock();

        match &mut *state {
            State {
                stage: Stage::Made | Stage::Live,
                queue: Some(queue),
                ..
            } => Ok(work(queue)),
            _ => Err(ENODEV),
        }
    }

    /// Makes a buffer available; if `send`, only to a live device, which is notified of it.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not have the queue any more, `EAGAIN` if it is not live yet, and
    /// those of [`RawQueue::add`].
    ///
    /// # Safety
    ///
    /// As for [`RawQueue::add`].
    #[inline]
    pub(super) unsafe fn add(
        &self,
        lists: &mut Lists<'_>,
        token: *mut c_void,
        send: bool,
    ) -> Result {
        let mut state = self.state.lock();
        let queue = match &mut *state {
            State {
                stage: Stage::Made, ..
            } if send => return Err(EAGAIN),
            State {
                stage: Stage::Made | Stage::Live,
                queue: Some(queue),
                ..
            } => queue,
            _ => return Err(ENODEV),
        };

        // SAFETY: By the requirements above.
        unsafe { queue.add(lists, token, bindings::GFP_NOWAIT) }?;
        if send {
            // The queue has the buffer, whatever becomes of the notification.
            let _ = self.notify_locked(state, false);
        }
        Ok(())
    }

    /// Notifies the device: of all that was added, if it wants to know, unless `prepared`, when
    /// that was asked before.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the device is not live yet, `ENODEV` if it does not have the queue any more,
    /// `EIO` if the transport cannot notify it.
    #[inline]
    pub(super) fn notify(&self, prepared: bool) -> Result {
        self.notify_locked(self.state.lock(), prepared)
    }

    /// [`Self::notify`], with the lock, which is dropped first.
    #[inline]
    fn notify_locked(&self, mut state: SpinLockIrqGuard<'_, State>, prepared: bool) -> Result {
        let queue = match &mut *state {
            State {
                stage: Stage::Made, ..
            } => return Err(EAGAIN),
            State {
                stage: Stage::Live,
                queue: Some(queue),
                ..
            } => queue,
            _ => return Err(ENODEV),
        };

        if !prepared && !queue.prepare_notification() {
            return Ok(());
        }
        let vq = queue.as_ptr();

        // `end` waits until the count is 0, so the queue is there and the device live.
        self.notifying.fetch_add(1, Ordering::Relaxed);
        drop(state);
        // SAFETY: The queue exists. Notifications may be sent in parallel with anything else.
        let sent = unsafe { bindings::virtqueue_notify(vq) };

        self.notifying.fetch_sub(1, Ordering::Release);
        match sent {
            true => Ok(()),
            false => Err(EIO),
        }
    }

    /// Takes out the token of a buffer that the device has not used, after it was reset.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the device may still use the queue, `ENODEV` if that is deleted.
    pub(super) fn take_unused(&self) -> Result<Option<NonNull<c_void>>> {
        let mut state = self.state.lock();

        match &mut *state {
            State { queue: None, .. } => Err(ENODEV),
            State {
                stage: Stage::Quiet,
                queue: Some(queue),
                ..
            } => {
                // SAFETY: The device was reset, and does not become live before all of its queues
                // have been made anew.
                Ok(unsafe { queue.take_unused() })
            }
            _ => Err(EBUSY),
        }
    }

    // For the binding

    /// Takes over a queue that was made for this.
    pub(in crate::virtio) fn open(&self, queue: RawQueue) {
        // INVARIANT: A new queue has no tokens.
        self.state.lock().queue = Some(queue);
    }

    /// The device has become live.
    pub(in crate::virtio) fn go_live(&self) {
        self.state.lock().stage = Stage::Live;
    }

    /// Lets nobody use the queue or notify the device any more.
    ///
    /// # Context
    ///
    /// May sleep, for as long as it takes others to send the notification that they are at.
    pub(in crate::virtio) fn end(&self) {
        self.state.lock().stage = Stage::Ended;
        while self.notifying.load(Ordering::Acquire) != 0 {
            fsleep(LOOK);
        }
    }

    /// The device was reset.
    ///
    /// # Safety
    ///
    /// It must be true.
    pub(in crate::virtio) unsafe fn quiet(&self) {
        self.state.lock().stage = Stage::Quiet;
    }

    /// Drops all payloads, if the device is known not to use them, and parts from the queue, which
    /// nobody uses afterwards.
    pub(in crate::virtio) fn close(&self) {
        let drop_token = self.state.lock().drop_token;

        while let Ok(Some(token)) = self.take_unused() {
            // SAFETY: By the type invariant; the ring gives each token back only once.
            unsafe { drop_token(token) };
        }
        self.state.lock().queue = None;
    }
}
