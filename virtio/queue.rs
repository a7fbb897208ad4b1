// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as a driver sees them: they own the buffers that the device may touch.
//!
//! A payload is moved into a queue and moved out again when the device has used it, or after a
//! reset. In between no reference to it exists, so the driver cannot touch what the device may read
//! or write. A device that does not finish its reset keeps what it has: that memory is lost.
//!
//! Nothing that the device writes is interpreted here but the fact that a buffer was used: the ring
//! below checks ids and lengths and breaks the queue of a device that lies.
//!
//! Follows Virtio 1.4, 2.6 and `include/linux/virtio.h`.

use super::{
    bindings,
    buffers::{
        Buffers,
        Quiet, //
    },
    driver::Adapter,
    payload::Payload,
    Device,
    Driver, //
};

use core::ptr::{
    null_mut,
    NonNull, //
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

/// The virtqueues of a device that is, or is about to be, live.
///
/// A driver takes them out one by one with the type of what it will put into each. When all are
/// gone, taken or not, the transport is asked to delete them; the device is reset before.
///
/// # Examples
///
/// ```
/// use crate::virtio::prelude::*;
///
/// type Requests<'a> = Queue<'a, OutBuf<Le32, 4, ()>>;
/// type Events<'a> = Queue<'a, InBuf<64>>;
///
/// /// The queues of a device that has one for events only with a feature.
/// fn queues<D: Driver>(
///     dev: &Device<Bound>,
///     has_events: bool,
/// ) -> Result<(Requests<'_>, Option<Events<'_>>)> {
///     let names = [Some(c"requests"), has_events.then_some(c"events")];
///     let mut queues = Queues::new::<D>(dev, &names)?;
///     let requests = queues.take(0).ok_or(ENOENT)?;
///
///     Ok((requests, queues.take(1)))
/// }
/// ```
pub struct Queues<'a> {
    vqs: KVec<Option<NonNull<bindings::virtqueue>>>,
    owner: Arc<Owner<'a>>,
}

impl<'a> Queues<'a> {
    /// The most queues that a driver can ask for.
    pub const MAX: usize = 8;

    /// Creates a queue for each name, in the order of the queue numbers of the device.
    ///
    /// A queue without a name is one that this device does not have: it takes no number, and those
    /// behind it move up (as `virtio_find_vqs()` does it). The names show up in `/proc/interrupts`.
    /// When the device uses a buffer, [`Driver::notified`] of `D` is called with the place of the
    /// queue in `names`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for more than [`Self::MAX`] names, or what the transport says: `ENOENT` if the
    /// device lacks a queue, `ENOMEM`, `EBUSY`.
    ///
    /// # Context
    ///
    /// May sleep. The device must not be live: only from [`Driver::probe`] and [`Driver::restore`].
    pub fn new<D: Driver>(dev: &'a Device<Bound>, names: &[Option<&'static CStr>]) -> Result<Self> {
        let owner = Owner::new(dev)?;
        let mut infos = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        let mut raw = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        let mut vqs = KVec::with_capacity(names.len(), GFP_KERNEL)?;
        for (place, name) in names.iter().enumerate() {
            let callback = Adapter::<D>::NOTIFIED.get(place).ok_or(EINVAL)?;

            infos.push(
                bindings::virtqueue_info {
                    name: name.map_or(core::ptr::null(), CStr::as_char_ptr),
                    callback: Some(*callback),
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
        owner.has_queues();
        for vq in raw {
            vqs.push(NonNull::new(vq), GFP_KERNEL)?;
        }
        Ok(Self { vqs, owner })
    }

    /// Creates the only queue of a device, for payloads `P`.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    ///
    /// # Context
    ///
    /// As for [`Self::new`].
    pub fn single<D: Driver, P: Payload>(
        dev: &'a Device<Bound>,
        name: &'static CStr,
    ) -> Result<Queue<'a, P>> {
        Self::new::<D>(dev, &[Some(name)])?.take(0).ok_or(ENOENT)
    }

    /// Takes out the queue at a place of the names given to [`Self::new`], for payloads `P`.
    ///
    /// `None` if it has no name, or was taken before.
    pub fn take<P: Payload>(&mut self, place: usize) -> Option<Queue<'a, P>> {
        let vq = self.vqs.get_mut(place)?.take()?;

        // INVARIANT: The queue is one of the owner's.
        Some(Queue {
            // SAFETY: Nobody else has the queue, it is empty, and `owner` keeps it.
            buffers: unsafe { Buffers::new(vq) },
            owner: self.owner.clone(),
        })
    }
}

/// One virtqueue, which owns the payloads that it holds.
///
/// # Examples
///
/// ```
/// use crate::virtio::prelude::*;
///
/// /// Sends a number, unless the device has no room for it; then it comes back.
/// fn send(queue: &mut Queue<'_, OutBuf<Le32, 1, u32>>, number: u32) -> Result<Option<u32>> {
///     let mut buf = OutBuf::new(number)?;
///
///     buf.push(Le32::from_cpu(number))?;
///     match queue.send(buf) {
///         Ok(()) => Ok(None),
///         Err((error, buf)) if error == ENOSPC => Ok(Some(buf.meta)),
///         Err((error, _)) => Err(error),
///     }
/// }
///
/// /// Takes back what the device has seen.
/// fn collect(queue: &mut Queue<'_, OutBuf<Le32, 1, u32>>, mut done: impl FnMut(u32)) {
///     while let Some(buf) = queue.take_used() {
///         done(buf.meta);
///     }
/// }
/// ```
///
/// Dropping it resets the device, unless another queue of it did so before, and drops the payloads
/// that the device still had; if the device does not finish the reset they are leaked.
///
/// # Invariants
///
/// The queue is one of `owner`'s; the transport deletes it after `owner` is gone.
pub struct Queue<'a, P: Payload> {
    buffers: Buffers<P>,
    owner: Arc<Owner<'a>>,
}

impl<P: Payload> Queue<'_, P> {
    /// Makes a payload available, without notifying the device.
    ///
    /// # Errors
    ///
    /// With the payload given back: `EINVAL` if it has nothing for the device, `ENOSPC` if the
    /// queue is full, `EIO` if it is broken, `ENOMEM`.
    ///
    /// # Context
    ///
    /// Any.
    pub fn add(&mut self, payload: KBox<P>) -> Result<(), (Error, KBox<P>)> {
        self.buffers.add(payload, bindings::GFP_NOWAIT)
    }

    /// Notifies the device of the payloads that were added, if it wants to know.
    ///
    /// A notification that fails marks the queue as broken: [`Self::is_broken`] tells.
    ///
    /// # Context
    ///
    /// Any. The device must be live.
    pub fn notify(&mut self) {
        self.buffers.notify();
    }

    /// [`Self::add`] and [`Self::notify`].
    ///
    /// # Errors
    ///
    /// As for [`Self::add`].
    ///
    /// # Context
    ///
    /// As for both.
    pub fn send(&mut self, payload: KBox<P>) -> Result<(), (Error, KBox<P>)> {
        self.add(payload)?;
        self.notify();
        Ok(())
    }

    /// Takes back one payload that the device has used, and tells it how much the device wrote
    /// ([`Payload::used`]).
    ///
    /// # Context
    ///
    /// Any.
    pub fn take_used(&mut self) -> Option<KBox<P>> {
        self.buffers.take_used()
    }

    /// Tells whether the queue is unusable: the device lied, is gone, or was shut down.
    pub fn is_broken(&self) -> bool {
        self.buffers.is_broken()
    }

    /// Number of descriptors in the ring: how many parts fit in at a time.
    pub fn size(&self) -> usize {
        self.buffers.size()
    }

    /// Resets the device, unless another queue of it did so before, and hands each payload that
    /// this queue still had to `take`; none if the device does not finish the reset.
    ///
    /// The queue is deleted together with the last one.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn close(mut self, take: impl FnMut(KBox<P>)) {
        self.drain(take);
    }

    /// [`Self::close`] for use by `drop`; a second call finds nothing.
    fn drain(&mut self, mut take: impl FnMut(KBox<P>)) {
        if !self.owner.reset() {
            // The device may touch them at any time.
            return;
        }
        // SAFETY: The device was reset, and makes no queues before the owner of these is gone.
        let quiet = unsafe { Quiet::new() };

        while let Some(payload) = self.buffers.take_unused(&quiet) {
            take(payload);
        }
    }
}

impl<P: Payload> Drop for Queue<'_, P> {
    fn drop(&mut self) {
        self.drain(drop);
    }
}

/// What the queues of a device are at present.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There are none.
    None,
    /// The device may use them.
    InUse,
    /// The device was reset since.
    Reset,
    /// The device was to be reset since, but did not say that it was.
    Stuck,
}

/// Whom all queues of a device belong to.
#[pin_data(PinnedDrop)]
struct Owner<'a> {
    dev: &'a Device<Bound>,
    #[pin]
    stage: Mutex<Stage>,
}

impl<'a> Owner<'a> {
    /// Makes an owner without queues.
    fn new(dev: &'a Device<Bound>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                dev,
                stage <- new_mutex!(Stage::None),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes note that the transport has made the queues.
    fn has_queues(&self) {
        *self.stage.lock() = Stage::InUse;
    }

    /// Resets the device, if nobody did since the queues were made; returns whether it has let go
    /// of them.
    fn reset(&self) -> bool {
        let mut stage = self.stage.lock();

        if *stage == Stage::InUse {
            *stage = match self.dev.reset() {
                Ok(()) => Stage::Reset,
                Err(_) => Stage::Stuck,
            };
            if *stage == Stage::Stuck {
                dev_err!(
                    self.dev,
                    "the device is not reset: the buffers that it has are lost\n"
                );
            }
        }
        *stage != Stage::Stuck
    }
}

#[pinned_drop]
impl PinnedDrop for Owner<'_> {
    fn drop(self: Pin<&mut Self>) {
        if *self.stage.lock() == Stage::None {
            return;
        }
        self.reset();
        if let Some(del_vqs) = self.dev.ops().del_vqs {
            // SAFETY: The device is bound, and a reset was tried: the transport knows what to do
            // with rings that a device does not give back. No queue is in anybody's hands, as each
            // would keep this alive, and each gave up its payloads when it was dropped, or leaked
            // them.
            unsafe { del_vqs(self.dev.as_raw()) };
        }
    }
}
