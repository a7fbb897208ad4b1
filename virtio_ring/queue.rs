// SPDX-License-Identifier: GPL-2.0

//! A virtqueue: the C structure that drivers and transports see, and the ring behind it.
//!
//! # Who may do what at the same time
//!
//! Callers serialise all that adds or takes buffers, notifies, resets or deletes: that is the rule
//! of `include/linux/virtio.h`, and what makes the state in [`Ring`] exclusive. Interrupts, masking
//! of notifications, polling and breaking need no serialisation; they use only atomics, what never
//! changes, and the ring's memory. A ring is replaced only while the queue is stopped: its device
//! has been told to, [`Queue::set_stopped`] keeps interrupt handlers that begin later away from the
//! ring, whatever the device does, and the transport has waited for those that ran.
//!
//! No reference to exclusive state is kept while a driver or a transport is called.

use super::{
    area::Area,
    event::Place,
    map::{
        self,
        Mapper, //
    },
    memory::{
        PackedView,
        SplitView, //
    },
    packed::Packed,
    pool::Pool,
    split::Split,
    state::{
        Fault,
        Mapped,
        Slot, //
    },
    suppression::Suppression, //
};
use crate::virtio::bindings::{
    self,
    dma_addr_t,
    virtqueue, //
};

use core::{
    cell::UnsafeCell,
    ffi::CStr,
    sync::atomic::{
        AtomicU16,
        AtomicU8,
        Ordering::{
            AcqRel,
            Acquire,
            Relaxed, //
        }, //
    },
};
use kernel::{
    ffi::c_uint,
    prelude::*,
    str::CStrExt,
    warn_on, //
};

/// A split ring as the kernel keeps it.
pub(crate) type SplitState = Split<KVVec<Slot>, KVVec<Mapped>>;

/// A packed ring as the kernel keeps it.
pub(crate) type PackedState = Packed<KVVec<Slot>, KVVec<Mapped>>;

/// The function of a transport that notifies the device; false when that failed.
pub(crate) type Notify = unsafe extern "C" fn(*mut virtqueue) -> bool;

/// One of the two formats, chosen when the queue is created; both have an in-order variant.
pub(crate) enum Ring {
    /// A split virtqueue.
    Split {
        /// The shared memory.
        view: SplitView,
        /// The driver's side, which callers serialise.
        state: UnsafeCell<SplitState>,
        /// Owns the shared memory, unless the caller does.
        area: Option<Area>,
    },
    /// A packed virtqueue.
    Packed {
        /// The shared memory.
        view: PackedView,
        /// The driver's side, which callers serialise.
        state: UnsafeCell<PackedState>,
        /// Owns the shared memory.
        area: Area,
    },
}

/// What is chosen when a queue is created and stays.
#[derive(Clone, Copy)]
pub(crate) struct Features {
    /// `INDIRECT_DESC`, and the driver has no context for its buffers.
    pub(crate) indirect: bool,
    /// `IN_ORDER`.
    pub(crate) in_order: bool,
    /// `EVENT_IDX`.
    pub(crate) event: bool,
    /// The device runs on CPUs like ours.
    pub(crate) weak_barriers: bool,
    /// Split: alignment of the used ring in bytes.
    pub(crate) align: usize,
    /// Split: a smaller ring will do when there is not enough memory.
    pub(crate) may_reduce: bool,
}

/// A virtqueue.
///
/// # Invariants
///
/// `vq` is the first member, and what C sees; its `vdev` is valid, its `num_free` the number of
/// free slots, and it is on the device's list of queues.
#[repr(C)]
pub(crate) struct Queue {
    pub(super) vq: UnsafeCell<virtqueue>,
    /// [`Self::BROKEN`], [`Self::STOPPED`].
    flags: AtomicU8,
    /// Number of descriptors, for those who do not keep others from replacing the ring.
    size: AtomicU16,
    /// Where the driver adds next, for notifications, which callers need not serialise.
    next_avail: AtomicU16,
    pub(super) features: Features,
    pub(super) suppression: Suppression,
    notify: Notify,
    pub(super) mapper: Mapper,
    pub(super) ring: UnsafeCell<Ring>,
    pool: UnsafeCell<Pool>,
    /// What `virtqueue_get_vring()` shows.
    pub(super) vring: UnsafeCell<bindings::vring>,
}

/// Runs `$body` with the ring's shared memory and, if asked for, its state.
macro_rules! with_ring {
    ($queue:expr, $view:ident => $split:expr, $packed:expr) => {
        match $queue.ring() {
            Ring::Split { view: $view, .. } => $split,
            Ring::Packed { view: $view, .. } => $packed,
        }
    };
    ($queue:expr, $view:ident, $state:ident => $split:expr, $packed:expr) => {
        match $queue.ring() {
            Ring::Split {
                view: $view,
                state: $state,
                ..
            } => {
                // SAFETY: The caller serialises, see the head of this file; `$state` is used only
                // within this expression.
                let $state = unsafe { &mut *$state.get() };
                $split
            }
            Ring::Packed {
                view: $view,
                state: $state,
                ..
            } => {
                // SAFETY: As above.
                let $state = unsafe { &mut *$state.get() };
                $packed
            }
        }
    };
}

impl Queue {
    /// Nothing is added or taken any more.
    const BROKEN: u8 = 1;

    /// The ring may be replaced at any time; interrupt handlers do not look at it.
    const STOPPED: u8 = 2;

    /// A queue on `ring`; `vq` is what C sees of it but for `num_free`.
    pub(crate) fn new(
        vq: virtqueue,
        features: Features,
        notify: Notify,
        mapper: Mapper,
        ring: Ring,
    ) -> Self {
        let queue = Self {
            suppression: Suppression::new(features.event, vq.callback.is_none()),
            vq: UnsafeCell::new(vq),
            flags: AtomicU8::new(if cfg!(CONFIG_VIRTIO_HARDEN_NOTIFICATION) {
                Self::BROKEN
            } else {
                0
            }),
            size: AtomicU16::new(0),
            next_avail: AtomicU16::new(0),
            features,
            notify,
            mapper,
            pool: UnsafeCell::new(Pool::new(0)),
            ring: UnsafeCell::new(ring),
            vring: UnsafeCell::new(bindings::vring::default()),
        };
        queue.begin();
        queue
    }

    /// The queue behind what C sees of it.
    ///
    /// # Safety
    ///
    /// `vq` is a queue of this module, and not deleted during `'a`.
    #[inline(always)]
    pub(crate) unsafe fn from_raw<'a>(vq: *const virtqueue) -> &'a Self {
        // SAFETY: By the safety requirements; by the type invariant it is the first member.
        unsafe { &*vq.cast() }
    }

    /// What C sees.
    #[inline(always)]
    pub(crate) fn as_raw(&self) -> *mut virtqueue {
        self.vq.get()
    }

    #[inline(always)]
    pub(super) fn ring(&self) -> &Ring {
        // SAFETY: It is replaced only when nothing uses it, see the head of this file.
        unsafe { &*self.ring.get() }
    }

    #[inline(always)]
    pub(super) fn pool(&self) -> *mut Pool {
        self.pool.get()
    }

    fn callback(&self) -> Option<unsafe extern "C" fn(*mut virtqueue)> {
        // SAFETY: The field is set when the queue is created.
        unsafe { (*self.as_raw()).callback }
    }

    /// Shows what an add has changed.
    #[inline(always)]
    pub(super) fn added(&self, free: u16, next: u16) {
        self.set_free(free);
        self.next_avail.store(next, Relaxed);
    }

    /// How many descriptors are free.
    pub(super) fn free(&self) -> u32 {
        // SAFETY: Callers serialise; C only reads it.
        unsafe { (*self.as_raw()).num_free }
    }

    #[inline(always)]
    pub(super) fn set_free(&self, free: u16) {
        // SAFETY: Callers serialise; C only reads it.
        unsafe { (*self.as_raw()).num_free = c_uint::from(free) };
    }

    /// Begins with the ring as it is: empty, its memory zero.
    #[inline(never)]
    pub(super) fn begin(&self) {
        let masked = self.callback().is_none();
        let size = with_ring!(self, view, state => {
            self.suppression.reset(masked, SplitState::START);
            if masked {
                self.suppression.tell_split(view);
            }
            self.added(state.slots.free(), state.next_avail());
            view.size()
        }, {
            self.suppression.reset(masked, PackedState::START);
            if masked {
                self.suppression.tell_packed(view);
            }
            self.added(state.slots.free(), state.next_avail());
            view.size()
        });
        // SAFETY: Callers serialise.
        let pool = unsafe { &mut *self.pool() };
        self.size.store(size, Relaxed);
        pool.clear(&self.mapper);
        *pool = Pool::new(size);
    }

    /// Whether the queue is broken.
    #[inline(always)]
    pub(crate) fn is_broken(&self) -> bool {
        self.flags.load(Relaxed) & Self::BROKEN != 0
    }

    /// Breaks or unbreaks the queue.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.set_flag(Self::BROKEN, broken);
    }

    /// Keeps interrupt handlers away from the ring, or lets them look at it.
    ///
    /// Those that run do not count: the transport waits for them when it stops the queue.
    pub(super) fn set_stopped(&self, stopped: bool) {
        self.set_flag(Self::STOPPED, stopped);
    }

    fn set_flag(&self, flag: u8, on: bool) {
        // What was done before is seen before the flag, what is done after it after it.
        if on {
            self.flags.fetch_or(flag, AcqRel);
        } else {
            self.flags.fetch_and(!flag, AcqRel);
        }
    }

    /// Breaks the queue of a device that lies.
    #[cold]
    #[inline(never)]
    pub(super) fn fail(&self, fault: Fault) {
        self.set_broken(true);
        // SAFETY: The field is set when the queue is created.
        let name = unsafe { (*self.as_raw()).name };
        let name = if name.is_null() {
            c""
        } else {
            // SAFETY: Transports keep the name as long as the queue.
            unsafe { CStr::from_char_ptr(name) }
        };
        let (what, number, why) = fault.words();
        dev_err!(self.mapper.device(), "{}:{}{}{}\n", name, what, number, why);
    }

    /// Addresses of the ring's three parts for the device; those of a caller's ring only it knows.
    #[inline]
    pub(crate) fn addresses(&self) -> [dma_addr_t; 3] {
        let (area, parts) = match self.ring() {
            Ring::Split { view, area, .. } => (area.as_ref(), view.parts()),
            Ring::Packed { view, area, .. } => (Some(area), view.parts()),
        };
        if warn_on!(area.is_none()) {
            return [map::ERROR; 3];
        }
        parts.map(|part| area.map_or(map::ERROR, |area| area.addr_of(part)))
    }

    /// Number of descriptors.
    #[inline]
    pub(crate) fn size(&self) -> u16 {
        self.size.load(Relaxed)
    }

    /// Tells whether the device wants to be notified of what was added since the last call.
    #[inline(never)]
    pub(crate) fn kick_prepare(&self) -> bool {
        with_ring!(self, view, state => {
            state.kick_prepare(view, self.features.event)
        }, {
            state.kick_prepare(view)
        })
    }

    pub(super) fn call_notify(&self) -> bool {
        // SAFETY: The transport's function takes every queue of its device.
        unsafe { (self.notify)(self.as_raw()) }
    }

    /// Notifies the device; false if the queue is broken, also by this attempt.
    #[inline]
    pub(crate) fn notify(&self) -> bool {
        if self.is_broken() {
            return false;
        }
        let notified = self.call_notify();
        if !notified {
            self.set_broken(true);
        }
        notified
    }

    /// Notifies the device if it wants to be; false if the queue is broken.
    #[inline]
    pub(crate) fn kick(&self) -> bool {
        !self.kick_prepare() || self.notify()
    }

    /// Asks for no notifications; a hint.
    #[inline]
    pub(crate) fn disable_cb(&self) {
        let suppression = &self.suppression;
        with_ring!(self, view => {
            suppression.disable_split(view)
        }, {
            suppression.disable_packed(view)
        })
    }

    /// Asks for notifications; false if there are used buffers already.
    #[inline]
    pub(crate) fn enable_cb(&self) -> bool {
        let suppression = &self.suppression;
        suppression.rearm();
        let position = suppression.position();
        with_ring!(self, view => {
            suppression.enable_split(view, 0);
            self.is_broken() || !SplitState::poll(view, position)
        }, {
            suppression.enable_packed(view, Place::from_bits(position));
            self.is_broken() || !self.poll_packed(view, position)
        })
    }

    /// Asks for notifications; what is returned is for [`Self::poll`].
    #[inline]
    pub(crate) fn enable_cb_prepare(&self) -> c_uint {
        let suppression = &self.suppression;
        suppression.rearm();
        let position = suppression.position();
        with_ring!(self, view => {
            suppression.enable_split(view, 0)
        }, {
            suppression.enable_packed(view, Place::from_bits(position))
        });
        position.into()
    }

    /// Whether there are used buffers beyond `position`; false if the queue is broken.
    #[inline]
    pub(crate) fn poll(&self, position: c_uint) -> bool {
        if self.is_broken() {
            return false;
        }
        // CAST: The low half is what `enable_cb_prepare` has given.
        let position = position as u16;
        with_ring!(self, view => {
            SplitState::poll(view, position)
        }, {
            self.poll_packed(view, position)
        })
    }

    #[inline(always)]
    fn poll_packed(&self, view: &PackedView, position: u16) -> bool {
        self.suppression.is_open() || PackedState::poll(view, Place::from_bits(position))
    }

    #[inline(always)]
    fn more_used_packed(&self, view: &PackedView, position: u16) -> bool {
        self.suppression.is_open() || PackedState::more_used(view, Place::from_bits(position))
    }

    /// Asks for a notification when most of what is outstanding was used; false if it was already.
    /// True if the queue is broken, so that nobody waits.
    pub(crate) fn enable_cb_delayed(&self) -> bool {
        if self.is_broken() {
            return true;
        }
        let suppression = &self.suppression;
        suppression.rearm();
        with_ring!(self, view, state => {
            state.enable_delayed(view, suppression)
        }, {
            state.enable_delayed(view, suppression)
        })
    }

    /// Handles an interrupt; returns whether it was for this queue.
    ///
    /// # Context
    ///
    /// Any.
    #[inline]
    pub(crate) fn interrupt(&self) -> bool {
        // Before the ring; pairs with `set_stopped`.
        let flags = self.flags.load(Acquire);
        if flags != 0 {
            return self.is_ours_though(flags);
        }
        if !self.more_used() {
            return false;
        }
        self.suppression.notified();
        if let Some(callback) = self.callback() {
            // SAFETY: The driver's function takes its own queue.
            unsafe { callback(self.as_raw()) };
        }
        true
    }

    #[inline(always)]
    fn more_used(&self) -> bool {
        let position = self.suppression.position();
        with_ring!(self, view => {
            SplitState::more_used(view, position)
        }, {
            self.more_used_packed(view, position)
        })
    }

    /// Whether an interrupt was for this queue, which is broken or stopped, as `flags` say.
    #[cold]
    #[inline(never)]
    fn is_ours_though(&self, flags: u8) -> bool {
        // With the option a queue is broken until the device is ready.
        let counts = !cfg!(CONFIG_VIRTIO_HARDEN_NOTIFICATION);
        counts && flags & Self::STOPPED == 0 && self.more_used()
    }

    /// What a notification with data says of the ring, in the upper half, and the queue's index.
    pub(crate) fn notification_data(&self) -> u32 {
        let next = self.next_avail.load(Relaxed);
        // SAFETY: The field is set when the queue is created.
        let index = unsafe { (*self.as_raw()).index };
        u32::from(next) << 16 | index
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: A queue is deleted when its device is done with it.
        unsafe { self.discard() };
        self.pool.get_mut().clear(&self.mapper);
    }
}
