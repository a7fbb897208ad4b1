// SPDX-License-Identifier: GPL-2.0

//! A virtqueue: the C structure that drivers and transports see, and the ring behind it.
//!
//! # Who may do what at the same time
//!
//! Callers serialise all that adds or takes buffers, notifies, resets or deletes: that is the rule
//! of `include/linux/virtio.h`, and what makes the state in [`Ring`] exclusive. Interrupts, masking
//! of notifications, polling and breaking need no serialisation; they use only atomics, what never
//! changes, and the ring's memory. A ring is replaced only while its device is stopped and the
//! transport has made sure that no interrupt handler runs.

use super::{
    event::Place,
    indirect::{
        self,
        Content, //
    },
    layout::{
        Desc,
        PackedDesc,
        MAX_SIZE, //
    },
    map::{
        Area,
        Mapper, //
    },
    memory::{
        PackedView,
        SplitView, //
    },
    packed::Packed,
    pool::{
        Pool,
        Table, //
    },
    sg::{
        Lists,
        MappedLists,
        PhysicalLists, //
    },
    split::{
        Barriers,
        Split, //
    },
    state::{
        Buffer,
        Fault,
        Mapped,
        Slot,
        Slots,
        Token,
        Used, //
    },
    suppression::Suppression, //
};
use crate::virtio::bindings::{
    self,
    gfp_t,
    virtqueue, //
};

use core::{
    cell::UnsafeCell,
    ffi::CStr,
    ptr::{
        null_mut,
        NonNull, //
    },
    sync::atomic::{
        AtomicBool,
        AtomicU16,
        Ordering::Relaxed, //
    },
};
use kernel::{
    ffi::{
        c_uint,
        c_void, //
    },
    prelude::*,
    str::CStrExt,
    warn_on, //
};

/// A split ring as the kernel keeps it.
pub(crate) type SplitState = Split<KVec<Slot>, KVec<Mapped>>;

/// A packed ring as the kernel keeps it.
pub(crate) type PackedState = Packed<KVec<Slot>, KVec<Mapped>>;

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
        /// Owns the shared memory: ring, driver's and device's event suppression.
        areas: [Area; 3],
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
    broken: AtomicBool,
    /// Where the driver adds next, for notifications, which callers need not serialise.
    next_avail: AtomicU16,
    pub(super) features: Features,
    suppression: Suppression,
    notify: Notify,
    pub(super) mapper: Mapper,
    ring: UnsafeCell<Ring>,
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
            broken: AtomicBool::new(cfg!(CONFIG_VIRTIO_HARDEN_NOTIFICATION)),
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
    fn pool(&self) -> *mut Pool {
        self.pool.get()
    }

    fn callback(&self) -> Option<unsafe extern "C" fn(*mut virtqueue)> {
        // SAFETY: The field is set when the queue is created.
        unsafe { (*self.as_raw()).callback }
    }

    /// Shows what an add has changed.
    #[inline(always)]
    fn added(&self, free: u16, next: u16) {
        self.set_free(free);
        self.next_avail.store(next, Relaxed);
    }

    #[inline(always)]
    fn set_free(&self, free: u16) {
        // SAFETY: Callers serialise; C only reads it.
        unsafe { (*self.as_raw()).num_free = c_uint::from(free) };
    }

    /// Begins with the ring as it is: empty, its memory zero.
    fn begin(&self) {
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
        pool.clear(&self.mapper);
        *pool = Pool::new(size);
    }

    /// Begins anew after a reset of the queue; no buffer is outstanding.
    ///
    /// # Safety
    ///
    /// The device has been stopped and nothing else uses the queue.
    pub(crate) unsafe fn reset(&self) {
        match self.ring() {
            Ring::Split { state, area, .. } => {
                if let Some(area) = area {
                    // SAFETY: By the safety requirements.
                    unsafe { area.clear() };
                }
                // SAFETY: By the safety requirements.
                unsafe { &mut *state.get() }.reset();
            }
            Ring::Packed { state, areas, .. } => {
                for area in areas {
                    // SAFETY: By the safety requirements.
                    unsafe { area.clear() };
                }
                // SAFETY: By the safety requirements.
                unsafe { &mut *state.get() }.reset();
            }
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

    /// Whether the queue is broken.
    #[inline(always)]
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// Breaks or unbreaks the queue.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Relaxed);
    }

    /// Breaks the queue of a device that lies.
    #[cold]
    fn fail(&self, fault: Fault) {
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

    /// Number of descriptors.
    #[inline]
    pub(crate) fn size(&self) -> u16 {
        with_ring!(self, view => view.size(), view.size())
    }

    /// Makes a buffer available.
    ///
    /// # Errors
    ///
    /// - `EIO`: the queue is broken or, packed, a part of the buffer could not be mapped.
    /// - `ENOSPC`: the queue is full.
    /// - `ENOMEM`: split: a part of the buffer could not be mapped.
    /// - `EINVAL`: the buffer is empty, has no token, has a context the queue does not take, or its
    ///   lists are longer or shorter than said.
    ///
    /// # Context
    ///
    /// Any; allocates with `gfp`. Callers serialise.
    #[inline(never)]
    pub(crate) fn add(
        &self,
        lists: &Lists,
        data: *mut c_void,
        ctx: *mut c_void,
        gfp: gfp_t,
    ) -> Result {
        let Some(token) = Token::new(data) else {
            return misuse();
        };
        if lists.total() == 0 || (!ctx.is_null() && self.features.indirect) {
            return misuse();
        }
        if self.is_broken() {
            return Err(EIO);
        }
        let pieces = MappedLists {
            lists,
            mapper: &self.mapper,
        };
        // SAFETY: `Pieces` gives only what it has mapped.
        let undo = |mapped| unsafe { self.mapper.unmap(mapped) };
        let direct = Buffer {
            token,
            extra: ctx,
            indirect: false,
        };
        with_ring!(self, view, state => {
            let free = state.slots.free();
            match self.table::<Desc>(free, lists, gfp)? {
                Some(filled) => {
                    state.add_indirect(view, filled.at, filled.writable, filled.buffer(token));
                }
                None if u32::from(free) < lists.total() => {
                    if lists.has_out() {
                        // For historical reasons: the device should look after its ring.
                        self.call_notify();
                    }
                    return Err(ENOSPC);
                }
                None => state.add(view, &pieces, direct, undo)?,
            }
            self.added(state.slots.free(), state.next_avail());
            if state.must_kick() {
                self.kick();
            }
        }, {
            let free = state.slots.free();
            match self.table::<PackedDesc>(free, lists, gfp).unwrap_or(None) {
                Some(filled) => {
                    state.add_indirect(view, filled.at, filled.writable, filled.buffer(token));
                }
                None if u32::from(free) < lists.total() => return Err(ENOSPC),
                None => state.add(view, &pieces, direct, undo).map_err(|_| EIO)?,
            }
            self.added(state.slots.free(), state.next_avail());
        });
        Ok(())
    }

    /// Puts a buffer into an indirect table if that is worth it and there is one.
    ///
    /// # Errors
    ///
    /// As [`Pieces::each`](super::state::Pieces::each).
    #[inline(always)]
    fn table<D: indirect::TableDesc>(
        &self,
        free: u16,
        lists: &Lists,
        gfp: gfp_t,
    ) -> Result<Option<Filled>> {
        let total = lists.total();
        if !self.features.indirect || total < 2 || free == 0 || total > MAX_SIZE {
            return Ok(None);
        }
        // SAFETY: Callers serialise.
        let pool = unsafe { &mut *self.pool() };
        // CAST: At most `MAX_SIZE`.
        let Some(mut table) = pool.take(total as u16, &self.mapper, gfp) else {
            return Ok(None);
        };
        let filled = if lists.premapped() || self.mapper.uses_api() {
            self.fill_mapped::<D>(&mut table, lists)
        } else {
            let (descs, _) = table.parts::<D>(&self.mapper);
            indirect::fill(descs, &mut [], &PhysicalLists(lists), |_| ())
        };
        match filled {
            Ok(content) => {
                let at = table.show(content.count, &self.mapper);
                Ok(Some(Filled {
                    table,
                    at,
                    writable: content.writable,
                }))
            }
            Err(error) => {
                pool.put(table, &self.mapper);
                Err(error)
            }
        }
    }

    #[inline(never)]
    fn fill_mapped<D: indirect::TableDesc>(
        &self,
        table: &mut Table,
        lists: &Lists,
    ) -> Result<Content> {
        let (descs, maps) = table.parts::<D>(&self.mapper);
        // SAFETY: `Pieces` gives only what it has mapped.
        let undo = |mapped| unsafe { self.mapper.unmap(mapped) };
        let pieces = MappedLists {
            lists,
            mapper: &self.mapper,
        };
        indirect::fill(descs, maps, &pieces, undo)
    }

    /// Takes a used buffer: its token, or null. Sets `len` to the number of bytes written, `ctx` to
    /// the context if there can be one.
    ///
    /// # Context
    ///
    /// Any. Callers serialise.
    #[inline(never)]
    pub(crate) fn get(&self, len: &mut c_uint, ctx: Option<&mut *mut c_void>) -> *mut c_void {
        if self.is_broken() {
            return null_mut();
        }
        let suppression = &self.suppression;
        with_ring!(self, view, state => {
            let got = state.get(view, suppression);
            self.got(got, &state.slots, len, ctx)
        }, {
            let got = state.get(view, suppression);
            self.got(got, &state.slots, len, ctx)
        })
    }

    /// What comes after a look at the ring: the buffer's token, or null.
    #[inline(always)]
    fn got(
        &self,
        got: Result<Option<Used>, Fault>,
        slots: &Slots<KVec<Slot>, KVec<Mapped>>,
        len: &mut c_uint,
        ctx: Option<&mut *mut c_void>,
    ) -> *mut c_void {
        match got {
            Ok(Some(used)) => {
                *len = used.len;
                self.finish(&used, slots, ctx)
            }
            Ok(None) => null_mut(),
            Err(fault) => {
                self.fail(fault);
                null_mut()
            }
        }
    }

    /// Takes a buffer back that the device has not used, or null.
    ///
    /// # Context
    ///
    /// Any. Callers serialise, and have reset the device or the queue.
    pub(crate) fn detach(&self) -> *mut c_void {
        with_ring!(self, _view, state => {
            let got = state.detach();
            got.map_or(null_mut(), |used| self.finish(&used, &state.slots, None))
        }, {
            let got = state.detach();
            got.map_or(null_mut(), |used| self.finish(&used, &state.slots, None))
        })
    }

    /// Unmaps a buffer that has come back, keeps its table; returns the token.
    #[inline(always)]
    fn finish(
        &self,
        used: &Used,
        slots: &Slots<KVec<Slot>, KVec<Mapped>>,
        ctx: Option<&mut *mut c_void>,
    ) -> *mut c_void {
        self.set_free(slots.free());
        let slot = &used.slot;
        if slot.indirect {
            // SAFETY: `add` has put a table there, and the slot was given back.
            if let Some(table) = unsafe { Table::from_raw(slot.extra) } {
                self.finish_table(table);
            }
        } else {
            if self.mapper.uses_api() {
                self.unmap_chain(used.head, slot.count, slots);
            }
            if let Some(ctx) = ctx {
                *ctx = slot.extra;
            }
        }
        slot.token.map_or(null_mut(), NonNull::as_ptr)
    }

    #[inline(always)]
    fn finish_table(&self, mut table: Table) {
        if self.mapper.uses_api() {
            self.unmap_table(&mut table);
        }
        // SAFETY: Callers serialise.
        unsafe { &mut *self.pool() }.put(table, &self.mapper);
    }

    #[inline(never)]
    fn unmap_table(&self, table: &mut Table) {
        // The format of the descriptors does not matter for the mappings behind them.
        for &mapped in table.mappings::<Desc>(&self.mapper) {
            // SAFETY: `add` has mapped it; the device is done with the buffer.
            unsafe { self.mapper.unmap(mapped) };
        }
    }

    #[inline(never)]
    fn unmap_chain(&self, head: u16, count: u16, slots: &Slots<KVec<Slot>, KVec<Mapped>>) {
        // SAFETY: `add` has mapped it; the device is done with the buffer.
        slots.mappings(head, count, |mapped| unsafe { self.mapper.unmap(mapped) });
    }

    /// Tells whether the device wants to be notified of what was added since the last call.
    #[inline]
    pub(crate) fn kick_prepare(&self) -> bool {
        with_ring!(self, view, state => {
            state.kick_prepare(view, self.features.event)
        }, {
            state.kick_prepare(view)
        })
    }

    fn call_notify(&self) -> bool {
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
        with_ring!(self, view => view.full(), view.full());
        // CAST: The low half is what `enable_cb_prepare` has given.
        self.more_used(position as u16)
    }

    #[inline(always)]
    fn more_used(&self, position: u16) -> bool {
        with_ring!(self, view => {
            SplitState::more_used(view, position)
        }, {
            self.suppression.is_open()
                || PackedState::more_used(view, Place::from_bits(position))
        })
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
        if !self.more_used(self.suppression.position()) {
            return false;
        }
        if self.is_broken() {
            // With the option a queue is broken until the device is ready.
            return !cfg!(CONFIG_VIRTIO_HARDEN_NOTIFICATION);
        }
        self.suppression.notified();
        if let Some(callback) = self.callback() {
            // SAFETY: The driver's function takes its own queue.
            unsafe { callback(self.as_raw()) };
        }
        true
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
    /// Frees the tables, also those of buffers that the driver has left in the queue.
    fn drop(&mut self) {
        while !self.detach().is_null() {}
        self.pool.get_mut().clear(&self.mapper);
    }
}

/// An indirect table that holds a buffer.
struct Filled {
    table: Table,
    /// Its address for the device, and its size in bytes.
    at: (u64, u32),
    /// How many bytes the device may write.
    writable: u32,
}

impl Filled {
    /// The buffer, which owns the table from now on.
    #[inline(always)]
    fn buffer(self, token: Token) -> Buffer {
        Buffer {
            token,
            extra: self.table.into_raw(),
            indirect: true,
        }
    }
}

/// Refuses a call that no driver may make.
#[cold]
fn misuse() -> Result {
    warn_on!(true);
    Err(EINVAL)
}
