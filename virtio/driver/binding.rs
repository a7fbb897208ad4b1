// SPDX-License-Identifier: GPL-2.0

//! What a driver and a device have in common while they are bound, which belongs to neither: the
//! virtqueues and the buffers in them.
//!
//! The [`Adapter`](super::Adapter) makes it before the driver knows of the device, and ends it
//! whatever the driver has done with its handles. It hangs on `priv` of `struct virtio_device`, so
//! that it can be found without knowing the driver.

use super::super::{
    bindings,
    buffers::RawQueue,
    queue::Slot,
    Device, //
};

use core::{
    ptr::{
        null_mut,
        NonNull, //
    },
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    },
};
use kernel::{
    device::Bound,
    error::to_result,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// What the queues of a device are at present.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There are none, and they may be made: features were negotiated.
    None,
    /// The device may use them.
    InUse,
    /// The device was reset since.
    Reset,
    /// The device was to be reset since, but did not say that it was.
    Stuck,
}

/// What the mutex protects.
struct State {
    stage: Stage,
    /// Those that exist.
    slots: KVec<Arc<Slot>>,
    /// The transport has made queues, which it must be asked to delete.
    made: bool,
}

/// The virtqueues of a device, and the way from there to the driver's data.
///
/// The mutex is held while queues are made and while the device is reset or made live, so none of
/// that happens at once. No code of a driver runs with it held.
#[pin_data]
pub(in crate::virtio) struct Binding {
    #[pin]
    state: Mutex<State>,
    /// What the device carries for its driver, once that is complete.
    data: AtomicPtr<c_void>,
}

impl Binding {
    /// No queues yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                state <- new_mutex!(State {
                    stage: Stage::None,
                    slots: KVec::new(),
                    made: false,
                }),
                data: AtomicPtr::new(null_mut()),
            }),
            GFP_KERNEL,
        )
    }

    /// Lets callbacks in interrupts find the driver's data; null takes it back.
    pub(super) fn publish(&self, data: *mut c_void) {
        // Pairs with the load in `published`: who finds the data finds it complete.
        self.data.store(data, Ordering::Release);
    }

    /// What was published, or null.
    #[inline(always)]
    pub(super) fn published(&self) -> *mut c_void {
        self.data.load(Ordering::Acquire)
    }

    /// Makes queues, for which `infos` has names and callbacks; there is a slot for each name.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are queues, or the device was reset since the core has prepared it; what
    /// the transport says.
    pub(in crate::virtio) fn create(
        &self,
        dev: &Device<Bound>,
        mut infos: KVec<bindings::virtqueue_info>,
    ) -> Result<KVec<Option<Arc<Slot>>>> {
        let count = u32::try_from(infos.len())?;
        let find = dev.ops().find_vqs.ok_or(EINVAL)?;
        let mut raw = KVec::from_elem(null_mut(), infos.len(), GFP_KERNEL)?;
        let mut places = KVec::with_capacity(infos.len(), GFP_KERNEL)?;
        let mut slots = KVec::with_capacity(infos.len(), GFP_KERNEL)?;

        for info in &infos {
            let slot = match info.name.is_null() {
                true => None,
                false => Some(Slot::new()?),
            };

            if let Some(slot) = &slot {
                slots.push(slot.clone(), GFP_KERNEL)?;
            }
            places.push(slot, GFP_KERNEL)?;
        }
        let mut state = self.state.lock();
        if state.stage != Stage::None {
            return Err(EBUSY);
        }
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
        state.made = true;
        state.stage = Stage::InUse;
        state.slots = slots;

        for (slot, vq) in places.iter().zip(raw) {
            if let Some((slot, vq)) = slot.as_ref().zip(NonNull::new(vq)) {
                // SAFETY: The transport made the queue for this driver, and deletes it when `close`
                // has taken it out of the slot.
                slot.open(unsafe { RawQueue::new(vq) });
            }
        }
        Ok(places)
    }

    /// The core has reset the device and negotiated its features again, or for the first time:
    /// queues may be made.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are any, as the driver was not asked to give them up.
    pub(super) fn begin(&self) -> Result {
        let mut state = self.state.lock();

        if state.made {
            return Err(EBUSY);
        }
        state.stage = Stage::None;
        Ok(())
    }

    /// Makes the device live, and lets it be notified.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the driver has reset it before.
    pub(super) fn go_live(&self, dev: &Device<Bound>) -> Result {
        let state = self.state.lock();

        if !matches!(state.stage, Stage::None | Stage::InUse) {
            return Err(ENODEV);
        }
        dev.make_live();
        for slot in &state.slots {
            slot.go_live();
        }
        Ok(())
    }

    /// Ends the use of the queues and resets the device, unless that was done since they were made.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there are no queues, `EIO` if the device does not say that it was reset.
    pub(in crate::virtio) fn reset(&self, dev: &Device<Bound>) -> Result {
        Self::end(&mut self.state.lock(), dev)
    }

    /// [`Self::reset`], with the lock held.
    fn end(state: &mut State, dev: &Device<Bound>) -> Result {
        match state.stage {
            Stage::None => return Err(ENODEV),
            Stage::Reset => return Ok(()),
            Stage::Stuck => return Err(EIO),
            Stage::InUse => (),
        }
        for slot in &state.slots {
            slot.end();
        }
        let result = dev.reset_raw();

        Self::note(state, result.is_ok());
        result.inspect_err(|_| {
            dev_err!(
                dev,
                "the device is not reset: the buffers that it has are lost\n"
            );
        })
    }

    /// Takes note that the device was reset, or did not say so.
    fn note(state: &mut State, was_reset: bool) {
        if !was_reset {
            state.stage = Stage::Stuck;
            return;
        }
        state.stage = Stage::Reset;
        for slot in &state.slots {
            // SAFETY: The device has said so. No slot of these becomes live again.
            unsafe { slot.quiet() };
        }
    }

    /// Breaks all queues, waits for their callbacks and resets the device, which is of no more use
    /// until the core has prepared it anew.
    pub(in crate::virtio) fn shut_down(&self, dev: &Device<Bound>) {
        let mut state = self.state.lock();

        for slot in &state.slots {
            slot.end();
        }
        dev.shut_down_raw();
        let was_reset = dev.is_reset();
        Self::note(&mut state, was_reset);
    }

    /// Resets the device, drops the payloads that it still has, unless it does not finish the
    /// reset, and deletes the queues. Then it is ready to be prepared anew by the core.
    ///
    /// # Context
    ///
    /// May sleep. Only in bus callbacks, which the core serialises.
    pub(super) fn close(&self, dev: &Device<Bound>) {
        let mut state = self.state.lock();

        if state.stage == Stage::None && !dev.is_reset() {
            // Without queues there is nothing that it could keep.
            let _ = dev.reset_raw();
        } else {
            let _ = Self::end(&mut state, dev);
        }
        let slots = core::mem::replace(&mut state.slots, KVec::new());
        let made = core::mem::replace(&mut state.made, false);
        drop(state);

        for slot in &slots {
            slot.close();
        }
        if let (true, Some(del_vqs)) = (made, dev.ops().del_vqs) {
            // SAFETY: The device is bound, and a reset was tried: the transport knows what to do
            // with rings that a device does not give back. No slot has a queue any more. Callbacks
            // have ended when this returns.
            unsafe { del_vqs(dev.as_raw()) };
        }
        self.state.lock().stage = Stage::None;
    }
}
