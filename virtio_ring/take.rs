// SPDX-License-Identifier: GPL-2.0

//! Buffers on their way back.

use super::{
    map::SKIP_CPU_SYNC,
    memory::{
        PackedView,
        SplitView, //
    },
    pool::{
        free,
        Table, //
    },
    queue::{
        PackedState,
        Queue,
        Ring,
        SplitState, //
    },
    state::{
        Fault,
        Mapped,
        Slot,
        Slots,
        Used, //
    },
};

use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::{
    ffi::{
        c_uint,
        c_void, //
    },
    prelude::*, //
};

/// Where the caller wants to have what came with a buffer.
pub(crate) struct Wanted<'a> {
    /// The number of bytes written.
    pub(crate) len: &'a mut c_uint,
    /// The context, if there can be one.
    pub(crate) ctx: Option<&'a mut *mut c_void>,
}

impl Queue {
    /// Takes a used buffer: its token, or null.
    ///
    /// # Context
    ///
    /// Any. Callers serialise.
    #[inline(always)]
    pub(crate) fn get(&self, wanted: Wanted<'_>) -> *mut c_void {
        if self.is_broken() {
            return null_mut();
        }
        match self.ring() {
            Ring::Split { view, state, .. } => {
                // SAFETY: Callers serialise; it is the only reference to the state.
                let state = unsafe { &mut *state.get() };
                match state.look(view) {
                    Some(index) => self.get_split(view, state, index, wanted),
                    None => null_mut(),
                }
            }
            Ring::Packed { view, state, .. } => {
                // SAFETY: As above.
                let state = unsafe { &mut *state.get() };
                if state.look(view) {
                    self.get_packed(view, state, wanted)
                } else {
                    null_mut()
                }
            }
        }
    }

    #[inline(never)]
    fn get_split(
        &self,
        view: &SplitView,
        state: &mut SplitState,
        index: u16,
        wanted: Wanted<'_>,
    ) -> *mut c_void {
        match state.take_next(view, &self.suppression, index) {
            Ok(used) => self.give(&used, &state.slots, wanted),
            Err(fault) => self.refuse(fault),
        }
    }

    #[inline(never)]
    fn get_packed(
        &self,
        view: &PackedView,
        state: &mut PackedState,
        wanted: Wanted<'_>,
    ) -> *mut c_void {
        match state.take_next(view, &self.suppression) {
            Ok(used) => self.give(&used, &state.slots, wanted),
            Err(fault) => self.refuse(fault),
        }
    }

    #[cold]
    fn refuse(&self, fault: Fault) -> *mut c_void {
        self.fail(fault);
        null_mut()
    }

    #[inline(always)]
    fn give(
        &self,
        used: &Used,
        slots: &Slots<KVVec<Slot>, KVVec<Mapped>>,
        wanted: Wanted<'_>,
    ) -> *mut c_void {
        *wanted.len = used.len;
        let token = self.finish(used, slots);
        if let Some(ctx) = wanted.ctx {
            if !used.slot.indirect {
                *ctx = used.slot.extra;
            }
        }
        token
    }

    /// Takes a buffer back that the device has not used, or null.
    ///
    /// # Context
    ///
    /// Any. Callers serialise, and have reset the device or the queue.
    pub(crate) fn detach(&self) -> *mut c_void {
        let (used, slots) = match self.ring() {
            Ring::Split { state, .. } => {
                // SAFETY: Callers serialise; it is the only reference to the state.
                let state = unsafe { &mut *state.get() };
                (state.detach(), &state.slots)
            }
            Ring::Packed { state, .. } => {
                // SAFETY: As above.
                let state = unsafe { &mut *state.get() };
                (state.detach(), &state.slots)
            }
        };
        used.map_or(null_mut(), |used| self.finish(&used, slots))
    }

    /// Unmaps a buffer that has come back, keeps its table; returns the token.
    #[inline(always)]
    fn finish(&self, used: &Used, slots: &Slots<KVVec<Slot>, KVVec<Mapped>>) -> *mut c_void {
        self.set_free(slots.free());
        let slot = &used.slot;
        if slot.indirect {
            // SAFETY: `add` has put a table there, and the slot was given back.
            self.finish_table(unsafe { Table::from_raw(slot.extra) });
        } else if self.mapper.needs_unmap() {
            self.unmap_chain(used.head, slot.count, slots);
        }
        slot.token.map_or(null_mut(), NonNull::as_ptr)
    }

    #[inline(always)]
    fn finish_table(&self, mut table: Table) {
        if self.mapper.needs_unmap() {
            // SAFETY: The buffer has come back, which it does once.
            unsafe { table.unmap(&self.mapper, 0) };
        }
        // SAFETY: Callers serialise.
        unsafe { &mut *self.pool() }.put(table, &self.mapper);
    }

    #[inline(never)]
    fn unmap_chain(&self, head: u16, count: u16, slots: &Slots<KVVec<Slot>, KVVec<Mapped>>) {
        slots.mappings(head, count, |mapped| {
            // SAFETY: `add` has mapped it; the device is done with the buffer, which goes to its
            // driver.
            unsafe { self.mapper.unmap(mapped, 0) }
        });
    }

    /// Forgets the buffers that the driver has left in the queue: frees what the queue has for
    /// them, and leaves their memory alone, which may have another owner by now.
    ///
    /// # Safety
    ///
    /// The device is done with the queue.
    pub(super) unsafe fn discard(&mut self) {
        let mapper = &self.mapper;
        let slots = match self.ring.get_mut() {
            Ring::Split { state, .. } => &mut state.get_mut().slots,
            Ring::Packed { state, .. } => &mut state.get_mut().slots,
        };
        for head in 0..slots.size() {
            let Some(slot) = slots.release(head.into()) else {
                continue;
            };
            if slot.indirect {
                // SAFETY: `add` has put a table there, and the slot was given back.
                let mut table = unsafe { Table::from_raw(slot.extra) };
                if mapper.needs_unmap() {
                    // SAFETY: By the safety requirements; each slot is released once.
                    unsafe { table.unmap(mapper, SKIP_CPU_SYNC) };
                }
                free(table, mapper);
            } else if mapper.needs_unmap() {
                slots.mappings(head, slot.count, |mapped| {
                    // SAFETY: `add` has mapped it; the rest by the safety requirements.
                    unsafe { mapper.unmap(mapped, SKIP_CPU_SYNC) }
                });
            }
        }
    }
}
