// SPDX-License-Identifier: GPL-2.0

//! Buffers on their way to the device.

use super::{
    indirect::{
        self,
        Content,
        TableDesc, //
    },
    layout::{
        Desc,
        PackedDesc,
        Piece, //
    },
    memory::{
        PackedView,
        SplitView, //
    },
    pool::Table,
    queue::{
        PackedState,
        Queue,
        Ring,
        SplitState, //
    },
    sg::{
        one_physical,
        Entries,
        Lists,
        Mapping, //
    },
    state::{
        Buffer,
        Pieces,
        Token, //
    },
};
use crate::virtio::bindings::gfp_t;

use kernel::{
    ffi::c_void,
    prelude::*,
    warn_on, //
};

/// What adding needs to know of a format.
trait Format {
    type View;
    type Desc: TableDesc;

    fn free(&self) -> u16;
    fn next_avail(&self) -> u16;
    fn add<P: Pieces>(
        &mut self,
        view: &Self::View,
        pieces: &P,
        buffer: Buffer,
    ) -> Result<bool, P::Error>;
    fn add_one(&mut self, view: &Self::View, piece: &Piece, writable: u32, buffer: Buffer);
}

macro_rules! impl_format {
    ($state:ty, $view:ty, $desc:ty) => {
        impl Format for $state {
            type View = $view;
            type Desc = $desc;

            #[inline(always)]
            fn free(&self) -> u16 {
                self.slots.free()
            }

            #[inline(always)]
            fn next_avail(&self) -> u16 {
                <$state>::next_avail(self)
            }

            #[inline(always)]
            fn add<P: Pieces>(
                &mut self,
                view: &$view,
                pieces: &P,
                buffer: Buffer,
            ) -> Result<bool, P::Error> {
                <$state>::add(self, view, pieces, buffer)
            }

            #[inline(always)]
            fn add_one(&mut self, view: &$view, piece: &Piece, writable: u32, buffer: Buffer) {
                <$state>::add_one(self, view, piece, writable, buffer)
            }
        }
    };
}

impl_format!(SplitState, SplitView, Desc);
impl_format!(PackedState, PackedView, PackedDesc);

impl Queue {
    /// Makes a buffer available.
    ///
    /// # Errors
    ///
    /// - `EIO`: the queue is broken.
    /// - `ENOSPC`: the queue is full.
    /// - `ENOMEM`: a part of the buffer could not be mapped, or there is no memory for a table
    ///   without which not even an empty queue has room.
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
        if self.is_broken() {
            return Err(EIO);
        }
        let Some(token) = Token::new(data) else {
            return misuse();
        };
        let (added, must_kick) = match self.ring() {
            Ring::Split { view, state, .. } => {
                // SAFETY: Callers serialise; it is the only reference to the state.
                let state = unsafe { &mut *state.get() };
                let added = self.add_usual(view, state, lists, token, ctx);
                (added, added && state.must_kick())
            }
            Ring::Packed { view, state, .. } => {
                // SAFETY: Callers serialise; it is the only reference to the state.
                let state = unsafe { &mut *state.get() };
                (self.add_usual(view, state, lists, token, ctx), false)
            }
        };
        if !added {
            return self.add_otherwise(lists, token, ctx, gfp);
        }
        if must_kick {
            self.kick_at_once();
        }
        Ok(())
    }

    /// Adds a buffer that is not as most are.
    #[inline(never)]
    fn add_otherwise(&self, lists: &Lists, token: Token, ctx: *mut c_void, gfp: gfp_t) -> Result {
        if self.add_any(lists, token, ctx, gfp)? {
            self.kick_at_once();
        }
        Ok(())
    }

    /// Notifies a device that would not know any more whether it was to be notified. The transport
    /// may look at the queue: callers have no reference to its state.
    #[cold]
    #[inline(never)]
    fn kick_at_once(&self) {
        self.kick();
    }

    /// Whether the device takes the physical addresses of the buffer.
    #[inline(always)]
    fn is_physical(&self, lists: &Lists) -> bool {
        !lists.premapped() && !self.mapper.uses_api()
    }

    /// Adds a buffer as most are: by a table like the last one's, or without one to a device that
    /// takes physical addresses. Returns whether it did.
    #[inline(always)]
    fn add_usual<F: Format>(
        &self,
        view: &F::View,
        state: &mut F,
        lists: &Lists,
        token: Token,
        ctx: *mut c_void,
    ) -> bool {
        if state.free() == 0 || (self.features.indirect && !ctx.is_null()) {
            return false;
        }
        let physical = self.is_physical(lists);
        let direct = Buffer {
            token,
            extra: ctx,
            indirect: false,
        };
        let (piece, writable, buffer) = if self.features.indirect && lists.may_be_several() {
            // SAFETY: Callers serialise.
            let Some(mut table) = unsafe { &mut *self.pool() }.take_likely() else {
                return false;
            };
            if !physical {
                return self.add_table(view, state, lists, token, table) == Ok(true);
            }
            let Some(content) = indirect::fill(table.table::<F::Desc>(), lists) else {
                self.put_back(table);
                return false;
            };
            let Ok(piece) = self.show(&mut table, content) else {
                self.put_back(table);
                return false;
            };
            (piece, content.writable, table.into_buffer(token))
        } else if self.mapper.uses_api() {
            return false;
        } else {
            match one_physical(lists) {
                Some(piece) if physical => (piece, piece.writable_len(), direct),
                _ => return self.add_chain(view, state, lists, direct),
            }
        };
        state.add_one(view, &piece, writable, buffer);
        self.added(state.free(), state.next_avail());
        true
    }

    /// Adds a buffer without a table to a queue that does not map. Returns whether it did.
    #[inline(never)]
    fn add_chain<F: Format>(
        &self,
        view: &F::View,
        state: &mut F,
        lists: &Lists,
        buffer: Buffer,
    ) -> bool {
        let added = state.add(view, &Entries(lists), buffer) == Ok(true);
        self.added(state.free(), state.next_avail());
        added
    }

    /// Adds a buffer by `table`. Returns whether it did: not if the table is too small, or if the
    /// lists are longer or shorter than said.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when a part of the buffer could not be mapped.
    #[inline(never)]
    fn add_table<F: Format>(
        &self,
        view: &F::View,
        state: &mut F,
        lists: &Lists,
        token: Token,
        mut table: Table,
    ) -> Result<bool> {
        let content = match table.fill::<F::Desc>(lists, &self.mapper) {
            Ok(Some(content)) => content,
            unfilled => {
                self.put_back(table);
                if unfilled.is_err() {
                    self.give_up_idle();
                }
                return unfilled.map(|_| false);
            }
        };
        let piece = match self.show(&mut table, content) {
            Ok(piece) => piece,
            Err(error) => {
                self.put_back(table);
                self.give_up_idle();
                return Err(error);
            }
        };
        state.add_one(view, &piece, content.writable, table.into_buffer(token));
        self.added(state.free(), state.next_avail());
        Ok(true)
    }

    /// Frees the tables that are idle, whose bounce buffers others need.
    #[cold]
    #[inline(never)]
    fn give_up_idle(&self) {
        // SAFETY: Callers serialise.
        unsafe { &mut *self.pool() }.clear(&self.mapper);
    }

    /// Shows a table to the device; returns what to put into the ring.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when the table could not be mapped.
    #[inline(always)]
    fn show(&self, table: &mut Table, content: Content) -> Result<Piece> {
        let count = content.count.get();
        // SAFETY: Callers serialise.
        unsafe { &mut *self.pool() }.likely_held(table, count);
        table.show(count, &self.mapper)
    }

    /// Keeps a table that was not used after all.
    #[cold]
    #[inline(never)]
    fn put_back(&self, table: Table) {
        // SAFETY: Callers serialise.
        unsafe { &mut *self.pool() }.put(table, &self.mapper);
    }

    /// Adds any buffer, as [`Self::add`] says. Returns whether the device is to be notified at
    /// once.
    #[inline(never)]
    fn add_any(&self, lists: &Lists, token: Token, ctx: *mut c_void, gfp: gfp_t) -> Result<bool> {
        if !ctx.is_null() && self.features.indirect {
            return misuse();
        }
        let buffer = Buffer {
            token,
            extra: ctx,
            indirect: false,
        };
        let (added, must_kick) = match self.ring() {
            Ring::Split { view, state, .. } => {
                // SAFETY: Callers serialise; it is the only reference to the state.
                let state = unsafe { &mut *state.get() };
                let added = self.add_any_to(view, state, lists, buffer, gfp)?;
                (added, state.must_kick())
            }
            Ring::Packed { view, state, .. } => {
                // SAFETY: Callers serialise; it is the only reference to the state.
                let state = unsafe { &mut *state.get() };
                (self.add_any_to(view, state, lists, buffer, gfp)?, false)
            }
        };
        if added {
            Ok(must_kick)
        } else {
            self.reject(lists)
        }
    }

    /// Adds any buffer. False if there is no room for it, or if the lists are longer or shorter
    /// than said.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when a part of the buffer could not be mapped.
    #[inline(always)]
    fn add_any_to<F: Format>(
        &self,
        view: &F::View,
        state: &mut F,
        lists: &Lists,
        buffer: Buffer,
        gfp: gfp_t,
    ) -> Result<bool> {
        let free = state.free();
        if self.features.indirect && lists.may_be_several() && free != 0 {
            let token = buffer.token;
            // SAFETY: Callers serialise.
            let table = unsafe { &mut *self.pool() }.take(lists.total(), &self.mapper, gfp);
            if let Some(table) = table {
                if self.add_table(view, state, lists, token, table)? {
                    return Ok(true);
                }
            }
        }
        let added = if !self.mapper.uses_api() {
            Ok(self.add_chain(view, state, lists, buffer))
        } else if u32::from(free) < lists.total() {
            // Nothing is mapped in vain.
            Ok(false)
        } else {
            let mapper = &self.mapper;
            state.add(view, &Mapping { lists, mapper }, buffer)
        };
        self.added(state.free(), state.next_avail());
        added
    }

    /// Says why a buffer could not be added.
    #[cold]
    #[inline(never)]
    fn reject(&self, lists: &Lists) -> Result<bool> {
        let free = self.free();
        let idle = free == u32::from(self.size());
        match lists.total() {
            0 => misuse(),
            // A buffer that comes back would wake the driver, but there is none.
            total if free < total && self.features.indirect && idle => Err(ENOMEM),
            total if free < total => {
                if matches!(self.ring(), Ring::Split { .. }) && lists.has_out() {
                    // For historical reasons: the device should look after its ring.
                    self.call_notify();
                }
                Err(ENOSPC)
            }
            _ => Err(EINVAL),
        }
    }
}

/// Refuses a call that no driver may make.
#[cold]
#[inline(never)]
fn misuse<T>() -> Result<T> {
    warn_on!(true);
    Err(EINVAL)
}
