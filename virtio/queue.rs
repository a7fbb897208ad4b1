// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as a driver sees them: they own the buffers that the device may touch.
//!
//! The binding of driver and device has the queues, from their creation in
//! [`Driver::probe`] or [`Driver::restore`] until the driver gives the device up. What the driver
//! has is a [`Queue`], a handle: it may be lost, moved and kept for as long as the driver likes.
//! Once the queue is deleted the handle refuses everything.
//!
//! A payload is moved into a queue and moved out again when the device has used it, or after a
//! reset. In between no reference to it exists, so the driver cannot touch what the device may read
//! or write. A device that does not finish its reset keeps what it has: that memory is lost.
//!
//! Nothing that the device writes is interpreted here but the fact that a buffer was used: the ring
//! below checks ids and lengths and breaks the queue of a device that lies.
//!
//! Follows Virtio 1.4, 2.6 and `include/linux/virtio.h`.

mod slot;

pub(super) use slot::Slot;

use super::{
    bindings,
    buffers::offer,
    device::Reset,
    driver::{
        Adapter,
        Binding, //
    },
    payload::Payload,
    Device,
    Driver, //
};
use crate::kernel_ext::sg::Lists;

use core::{
    marker::PhantomData,
    ptr::{
        null,
        NonNull, //
    },
};
use kernel::{
    device::Bound,
    prelude::*,
    sync::Arc, //
};

/// The most queues that a driver can ask for.
pub const MAX_QUEUES: usize = 8;

/// A queue that a driver wants.
#[derive(Clone, Copy)]
pub struct QueueInfo {
    name: Option<&'static CStr>,
    callback: bool,
    masked: bool,
}

impl QueueInfo {
    /// A queue that this device does not have.
    pub const ABSENT: Self = Self {
        name: None,
        callback: false,
        masked: false,
    };

    /// A queue with a name, which shows up in `/proc/interrupts`. When the device uses a buffer,
    /// [`Driver::notified`] is called, if the driver has that.
    pub const fn new(name: &'static CStr) -> Self {
        Self {
            name: Some(name),
            callback: true,
            masked: false,
        }
    }

    /// The same if the device has it, else [`Self::ABSENT`].
    pub const fn when(self, exists: bool) -> Self {
        match exists {
            true => self,
            false => Self::ABSENT,
        }
    }

    /// A queue whose used buffers the driver does not want to hear of: it has no interrupt.
    pub const fn without_callback(mut self) -> Self {
        self.callback = false;
        self
    }

    /// A queue whose used buffers the driver does not want to hear of before it calls
    /// [`Queue::enable_callback`].
    pub const fn masked(mut self) -> Self {
        self.masked = true;
        self
    }
}

/// The right to make the virtqueues of a device, once, for the callbacks of `D`.
///
/// Only [`Driver::probe`] and [`Driver::restore`] get it, and it does not outlive the call.
pub struct NewQueues<'a, D: Driver> {
    dev: &'a Device<Bound>,
    binding: &'a Binding,
    _driver: PhantomData<fn(D)>,
}

impl<'a, D: Driver> NewQueues<'a, D> {
    /// The right for a device that is not live, whose features were negotiated.
    pub(super) fn of(dev: &'a Device<Bound>, binding: &'a Binding) -> Self {
        Self {
            dev,
            binding,
            _driver: PhantomData,
        }
    }

    /// Creates the queues of `infos`, in the order of the queue numbers of the device.
    ///
    /// One that is [`QueueInfo::ABSENT`] takes no number, and those behind it move up (as
    /// `virtio_find_vqs()` does it). [`Driver::notified`] is given the place of the queue in
    /// `infos`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for more than [`MAX_QUEUES`] queues, `EBUSY` if the driver has reset the device
    /// before, or what the transport says: `ENOENT` if the device lacks a queue, `ENOMEM`, `EBUSY`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn create(self, infos: &[QueueInfo]) -> Result<Queues> {
        let mut raw = KVec::with_capacity(infos.len(), GFP_KERNEL)?;

        for (place, info) in infos.iter().enumerate() {
            let callback = *Adapter::<D>::NOTIFIED.get(place).ok_or(EINVAL)?;

            raw.push(
                bindings::virtqueue_info {
                    name: info.name.map_or(null(), CStr::as_char_ptr),
                    callback: (D::HAS_NOTIFIED && info.callback).then_some(callback),
                    ctx: false,
                },
                GFP_KERNEL,
            )?;
        }
        let slots = self.binding.create(self.dev, raw)?;

        for (slot, info) in slots.iter().zip(infos) {
            if let (Some(slot), true) = (slot, info.masked) {
                slot.with(|queue| queue.disable_callback())?;
            }
        }
        Ok(Queues { slots })
    }

    /// Creates the only queue of a device, for payloads `P`.
    ///
    /// # Errors
    ///
    /// As for [`Self::create`].
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn single<P: Payload>(self, name: &'static CStr) -> Result<Queue<P>> {
        self.create(&[QueueInfo::new(name)])?.take(0).ok_or(ENOENT)
    }
}

/// The virtqueues of a device, as they were made.
///
/// A driver takes them out one by one with the type of what it will put into each. Those that it
/// does not take stay empty.
///
/// # Examples
///
/// ```
/// use crate::virtio::prelude::*;
///
/// type Requests = Queue<OutBuf<Le32, 4, ()>>;
/// type Events = Queue<InBuf<64>>;
///
/// /// The queues of a device that has one for events only with a feature. Requests that were
/// /// answered are taken back when the next one is sent, so nobody needs to hear of them.
/// fn connect<D: Driver>(
///     queues: NewQueues<'_, D>,
///     has_events: bool,
/// ) -> Result<(Requests, Option<Events>)> {
///     let mut queues = queues.create(&[
///         QueueInfo::new(c"requests").without_callback(),
///         QueueInfo::new(c"events").when(has_events),
///     ])?;
///
///     Ok((queues.take(0).ok_or(ENOENT)?, queues.take(1)))
/// }
/// ```
pub struct Queues {
    /// Those that were not taken.
    slots: KVec<Option<Arc<Slot>>>,
}

impl Queues {
    /// Takes out the queue at a place of what was given to [`NewQueues::create`], for payloads `P`.
    ///
    /// `None` if there is none, or it was taken before.
    pub fn take<P: Payload>(&mut self, place: usize) -> Option<Queue<P>> {
        let slot = self.slots.get_mut(place)?.take()?;

        // SAFETY: This takes the slot out, so only the handle made here and its like give it
        // tokens: the raw pointers of boxes of `P`.
        unsafe { slot.claim(drop_payload::<P>) };
        // INVARIANT: There are no tokens yet.
        Some(Queue {
            slot,
            _payloads: PhantomData,
        })
    }
}

/// Drops a payload.
///
/// # Safety
///
/// `token` must be the raw pointer of a `KBox<P>`, which the caller owns.
unsafe fn drop_payload<P>(token: NonNull<c_void>) {
    // SAFETY: By the requirements above.
    drop(unsafe { KBox::<P>::from_raw(token.as_ptr().cast()) });
}

/// A virtqueue, which owns the payloads that it holds: a handle of it.
///
/// A queue has a lock of its own, which is held for as long as it takes to look after the ring, so
/// all methods may be called in parallel and from interrupts. None of the driver's code runs
/// with it held.
///
/// When the queue is deleted the payloads in it are dropped, whether this exists or not. Nothing
/// can be done with the handle then.
///
/// # Examples
///
/// ```
/// use crate::virtio::prelude::*;
///
/// /// Sends a number, unless the device has no room for it; then it comes back.
/// fn send(queue: &Queue<OutBuf<Le32, 1, u32>>, number: u32) -> Result<Option<u32>> {
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
/// fn collect(queue: &Queue<OutBuf<Le32, 1, u32>>, mut done: impl FnMut(u32)) {
///     while let Some(buf) = queue.take_used() {
///         done(buf.meta);
///     }
/// }
/// ```
///
/// # Invariants
///
/// All tokens that the slot was given are raw pointers of a `KBox<P>`, and were put there by this.
pub struct Queue<P: Payload> {
    slot: Arc<Slot>,
    _payloads: PhantomData<fn(KBox<P>) -> KBox<P>>,
}

impl<P: Payload> Queue<P> {
    /// Makes a payload available, without notifying the device.
    ///
    /// # Errors
    ///
    /// With the payload given back: `EINVAL` if it has nothing for the device, `E2BIG` if it has
    /// too many pieces, `ENOSPC` if the queue is full, `EIO` if it is broken, `ENODEV` if the
    /// device does not have it any more, `ENOMEM`.
    ///
    /// # Context
    ///
    /// Any.
    pub fn add(&self, payload: KBox<P>) -> Result<(), (Error, KBox<P>)> {
        self.offer(payload, false)
    }

    /// [`Self::add`] or [`Self::send`].
    #[inline]
    fn offer(&self, payload: KBox<P>, send: bool) -> Result<(), (Error, KBox<P>)> {
        // SAFETY: `offer` gives lists of the payload, which is not touched until it is taken back.
        let add = |lists: &mut Lists<'_>, token| unsafe { self.slot.add(lists, token, send) };

        // SAFETY: By the type invariant the tokens of the slot are of `KBox<P>`.
        // INVARIANT: The token is the raw pointer of such a box.
        unsafe { offer(payload, add) }
    }

    /// Notifies the device of the payloads that were added, if it wants to know.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the device is not live yet: notify it from [`Driver::live`] on. `ENODEV` if it
    /// does not have the queue any more. `EIO` if the transport cannot notify it; then the queue is
    /// broken.
    ///
    /// # Context
    ///
    /// Any.
    pub fn notify(&self) -> Result {
        self.slot.notify(false)
    }

    /// Finds out whether the device wants to be notified of the payloads that were added; the
    /// notification is sent by [`Notification::send`], after a lock of the driver's was dropped for
    /// example.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not have the queue any more.
    ///
    /// # Context
    ///
    /// Any.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::virtio::prelude::*;
    /// use kernel::sync::SpinLock;
    ///
    /// /// Sends a buffer, and counts it. The lock is not held while the device is notified.
    /// fn send(queue: &Queue<InBuf<64>>, count: &SpinLock<usize>) -> Result {
    ///     let buf = InBuf::new()?;
    ///     let mut counted = count.lock();
    ///
    ///     queue.add(buf).map_err(|(error, _)| error)?;
    ///     *counted += 1;
    ///     let notification = queue.prepare_notification()?;
    ///     drop(counted);
    ///
    ///     match notification {
    ///         Some(notification) => notification.send(),
    ///         None => Ok(()),
    ///     }
    /// }
    /// ```
    pub fn prepare_notification(&self) -> Result<Option<Notification<'_>>> {
        let wanted = self.slot.with(|queue| queue.prepare_notification())?;

        Ok(wanted.then_some(Notification(&self.slot)))
    }

    /// [`Self::add`] and [`Self::notify`].
    ///
    /// If the device cannot be notified the queue is broken: [`Self::is_broken`] tells.
    ///
    /// # Errors
    ///
    /// As for [`Self::add`], and `EAGAIN` if the device is not live yet.
    ///
    /// # Context
    ///
    /// Any.
    pub fn send(&self, payload: KBox<P>) -> Result<(), (Error, KBox<P>)> {
        self.offer(payload, true)
    }

    /// Takes back one payload that the device has used, and tells it how much the device wrote
    /// ([`Payload::used`]).
    ///
    /// # Context
    ///
    /// Any.
    pub fn take_used(&self) -> Option<KBox<P>> {
        let (token, len) = self.slot.with(|queue| queue.take_used()).ok()??;
        // SAFETY: By the type invariant, and the ring gives each token back only once.
        let mut payload = unsafe { KBox::<P>::from_raw(token.as_ptr().cast()) };

        payload.used(len);
        Some(payload)
    }

    /// Takes back one payload that the device never used, after a reset: [`Device::reset`] gives
    /// the proof of that.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it was another device that was reset, `ENODEV` if the queue is deleted.
    ///
    /// # Context
    ///
    /// Any.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::virtio::prelude::*;
    ///
    /// /// Resets the device and counts the buffers that it had left.
    /// fn count_left(dev: &Device<Bound>, queue: &Queue<InBuf<64>>) -> Result<usize> {
    ///     let reset = dev.reset()?;
    ///     let mut count = 0;
    ///
    ///     while queue.take_unused(&reset)?.is_some() {
    ///         count += 1;
    ///     }
    ///     Ok(count)
    /// }
    /// ```
    pub fn take_unused(&self, _reset: &Reset<'_>) -> Result<Option<KBox<P>>> {
        let token = self.slot.take_unused()?;

        // SAFETY: By the type invariant, and the ring gives each token back only once.
        Ok(token.map(|token| unsafe { KBox::from_raw(token.as_ptr().cast()) }))
    }

    /// Tells the device that the driver need not hear of used buffers. Some calls of
    /// [`Driver::notified`] may come all the same.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not have the queue any more.
    ///
    /// # Context
    ///
    /// Any.
    pub fn disable_callback(&self) -> Result {
        self.slot.with(|queue| queue.disable_callback())
    }

    /// Tells the device that the driver wants to hear of used buffers; returns whether there are
    /// some already, of which it may not hear: then take them back first, and try again.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not have the queue any more.
    ///
    /// # Context
    ///
    /// Any.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::virtio::prelude::*;
    ///
    /// /// Takes back all that is used, with one notification however much that is.
    /// fn drain(queue: &Queue<InBuf<64>>, mut done: impl FnMut(&[u8])) -> Result {
    ///     loop {
    ///         queue.disable_callback()?;
    ///         while let Some(mut buf) = queue.take_used() {
    ///             done(buf.take(64));
    ///         }
    ///         if !queue.enable_callback()? {
    ///             return Ok(());
    ///         }
    ///     }
    /// }
    /// ```
    pub fn enable_callback(&self) -> Result<bool> {
        self.slot.with(|queue| {
            let seen = queue.enable_callback();

            queue.poll(seen)
        })
    }

    /// As [`Self::enable_callback`], for a driver that wants to hear of used buffers only when most
    /// of those that the device has are used; the device may not know how to wait.
    ///
    /// Returns whether so many are used already.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not have the queue any more.
    ///
    /// # Context
    ///
    /// Any.
    pub fn enable_callback_delayed(&self) -> Result<bool> {
        self.slot.with(|queue| !queue.enable_callback_delayed())
    }

    /// Tells the device that the driver wants to hear of used buffers; returns how far it has come,
    /// for [`Self::poll`].
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not have the queue any more.
    ///
    /// # Context
    ///
    /// Any.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::virtio::prelude::*;
    ///
    /// /// Waits for a buffer, a moment without a notification.
    /// fn spin(queue: &Queue<InBuf<64>>) -> Result<Option<KBox<InBuf<64>>>> {
    ///     let seen = queue.enable_callback_prepare()?;
    ///
    ///     for _ in 0..1000 {
    ///         if queue.poll(seen)? {
    ///             break;
    ///         }
    ///     }
    ///     Ok(queue.take_used())
    /// }
    /// ```
    pub fn enable_callback_prepare(&self) -> Result<Seen> {
        self.slot.with(|queue| Seen(queue.enable_callback()))
    }

    /// Tells whether the device has used buffers since [`Self::enable_callback_prepare`] returned
    /// `seen`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not have the queue any more.
    ///
    /// # Context
    ///
    /// Any.
    pub fn poll(&self, seen: Seen) -> Result<bool> {
        self.slot.with(|queue| queue.poll(seen.0))
    }

    /// Tells whether the queue is unusable: the device lied, is gone, was reset or shut down.
    pub fn is_broken(&self) -> bool {
        self.slot.with(|queue| queue.is_broken()).unwrap_or(true)
    }

    /// Number of descriptors in the ring: how many pieces fit in at a time. 0 if the device does
    /// not have the queue any more.
    pub fn size(&self) -> usize {
        self.slot.with(|queue| queue.size()).unwrap_or(0)
    }
}

/// How far a device has come with the buffers of a queue: see [`Queue::poll`].
#[derive(Clone, Copy)]
pub struct Seen(u32);

/// A notification that the device wants: see [`Queue::prepare_notification`].
#[must_use = "the device waits for it"]
pub struct Notification<'a>(&'a Slot);

impl Notification<'_> {
    /// Sends it.
    ///
    /// # Errors
    ///
    /// As for [`Queue::notify`].
    ///
    /// # Context
    ///
    /// Any.
    pub fn send(self) -> Result {
        self.0.notify(true)
    }
}
