// SPDX-License-Identifier: GPL-2.0

//! A queue is stopped, made anew, perhaps in another size, and started again (Virtio 1.4, 2.6.1).

use super::{
    create::{
        new_packed,
        new_split, //
    },
    queue::{
        Queue,
        Ring, //
    },
};
use crate::virtio::bindings::virtqueue;

use kernel::{
    ffi::c_void,
    interrupt::local_interrupt_disable,
    prelude::*, //
};

/// A function that gets a queue of a driver or transport.
pub(crate) type Callback = Option<unsafe extern "C" fn(*mut virtqueue)>;

/// A driver's function that takes a buffer back, by its token.
pub(crate) type Recycle = Option<unsafe extern "C" fn(*mut virtqueue, *mut c_void)>;

/// Resets a queue; all buffers go to `recycle`, then `done` is called.
///
/// # Errors
///
/// `EPERM` if the ring is the caller's, `ENOENT` if the transport cannot reset queues, `EBUSY` if
/// it cannot start the queue again, otherwise what it says.
///
/// # Safety
///
/// `vq` is a queue of this module that nothing else uses, and whose device is live.
pub(crate) unsafe fn reset(vq: *mut virtqueue, recycle: Recycle, done: Callback) -> Result {
    // SAFETY: By the safety requirements.
    unsafe { stop(vq, recycle, done) }?;
    // SAFETY: `stop` has stopped the device, and the transport waits for interrupt handlers.
    unsafe { Queue::from_raw(vq).reset() };
    // SAFETY: By the safety requirements.
    unsafe { restart(vq) }
}

/// Gives a queue `size` descriptors; all buffers go to `recycle`, then `done` is called.
///
/// # Errors
///
/// As for [`reset`]; `E2BIG` and `EINVAL` for sizes that the queue cannot have, `ENOMEM`: the queue
/// goes on in the old size.
///
/// # Safety
///
/// As for [`reset`].
pub(crate) unsafe fn resize(
    vq: *mut virtqueue,
    size: u32,
    recycle: Recycle,
    done: Callback,
) -> Result {
    // SAFETY: By the safety requirements; the transport has set the field.
    if size > unsafe { (*vq).num_max } {
        return Err(E2BIG);
    }
    if size == 0 {
        return Err(EINVAL);
    }
    // SAFETY: By the safety requirements.
    let queue = unsafe { Queue::from_raw(vq) };
    if u32::from(queue.size()) == size {
        return Ok(());
    }
    // SAFETY: By the safety requirements.
    unsafe { stop(vq, recycle, done) }?;
    // SAFETY: `stop` has stopped the device, and the transport waits for interrupt handlers.
    let resized = unsafe { queue.resize(size) };
    // SAFETY: By the safety requirements.
    unsafe { restart(vq) }.and(resized)
}

/// Stops a queue and gives all its buffers to `recycle`.
///
/// # Safety
///
/// As for [`reset`].
#[inline(never)]
unsafe fn stop(vq: *mut virtqueue, recycle: Recycle, done: Callback) -> Result {
    // SAFETY: By the safety requirements.
    let queue = unsafe { Queue::from_raw(vq) };
    if !queue.owns_ring() {
        return Err(EPERM);
    }
    // SAFETY: By the safety requirements; the device and its operations are valid.
    let config = unsafe { &*(*(*vq).vdev).config };
    let (Some(disable), Some(_)) = (config.disable_vq_and_reset, config.enable_vq_after_reset)
    else {
        return Err(ENOENT);
    };
    // Before the transport waits for interrupt handlers: those that begin later see it.
    queue.set_stopped(true);
    // SAFETY: By the safety requirements.
    match unsafe { disable(vq) } {
        0 => (),
        errno => {
            queue.set_stopped(false);
            // One that came meanwhile was not looked at, and there may be no other.
            let _disabled = local_interrupt_disable();
            queue.interrupt();
            return Err(Error::from_errno(errno));
        }
    }
    loop {
        let token = queue.detach();
        if token.is_null() {
            break;
        }
        if let Some(recycle) = recycle {
            // SAFETY: By the safety requirements.
            unsafe { recycle(vq, token) };
        }
    }
    if let Some(done) = done {
        // SAFETY: By the safety requirements.
        unsafe { done(vq) };
    }
    Ok(())
}

/// Lets a stopped queue run again.
///
/// # Safety
///
/// As for [`reset`]; [`stop`] has succeeded.
unsafe fn restart(vq: *mut virtqueue) -> Result {
    // SAFETY: By the safety requirements; the device and its operations are valid.
    let config = unsafe { &*(*(*vq).vdev).config };
    let enable = config.enable_vq_after_reset.ok_or(ENOENT)?;
    // SAFETY: By the safety requirements. The ring is a fresh one, which stays.
    unsafe { Queue::from_raw(vq) }.set_stopped(false);
    // SAFETY: By the safety requirements.
    match unsafe { enable(vq) } {
        0 => Ok(()),
        _ => Err(EBUSY),
    }
}

impl Queue {
    /// Begins anew after a reset of the queue; no buffer is outstanding.
    ///
    /// # Safety
    ///
    /// The device has been stopped and nothing else uses the queue.
    pub(crate) unsafe fn reset(&self) {
        let area = match self.ring() {
            Ring::Split { state, area, .. } => {
                // SAFETY: By the safety requirements.
                unsafe { &mut *state.get() }.reset();
                area.as_ref()
            }
            Ring::Packed { state, area, .. } => {
                // SAFETY: By the safety requirements.
                unsafe { &mut *state.get() }.reset();
                Some(area)
            }
        };
        if let Some(area) = area {
            // SAFETY: By the safety requirements.
            unsafe { area.clear() };
        }
        self.begin();
    }

    /// Puts another, fresh ring in the place of the present one.
    ///
    /// # Safety
    ///
    /// As for [`Self::reset`].
    pub(crate) unsafe fn replace(&self, ring: Ring) {
        // SAFETY: By the safety requirements.
        unsafe { *self.ring.get() = ring };
        self.begin();
    }

    /// Gives the queue `size` descriptors, if there is memory; otherwise it is as after a reset.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// As for [`Queue::reset`].
    pub(crate) unsafe fn resize(&self, size: u32) -> Result {
        let ring = match self.ring() {
            Ring::Split { .. } => new_split(self.mapper, &self.features, size),
            Ring::Packed { .. } => new_packed(self.mapper, &self.features, size),
        };
        match ring {
            Ok(ring) => {
                // SAFETY: By the safety requirements.
                unsafe { self.replace(ring) };
                self.show_vring();
                Ok(())
            }
            Err(_) => {
                // SAFETY: By the safety requirements.
                unsafe { self.reset() };
                Err(ENOMEM)
            }
        }
    }
}
