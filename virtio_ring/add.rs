// SPDX-License-Identifier: GPL-2.0

//! Buffers on their way to the device.

use super::{
    indirect::{
        self,
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
        Lists,
        MappedLists,
        PhysicalLists, //
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

    /// Whether a buffer that could not be put into a table is tried without one.
    const TRIES_AGAIN: bool;

    /// The error for a buffer that could not be mapped.
    const UNMAPPED: Error;

    fn free(&self) -> u16;
    fn next_avail(&self) -> u16;
    fn add<P: Pieces>(
        &mut self,
        view: &Self::View,
        pieces: (&P, u16),
        buffer: Buffer,
    ) -> Result<(), P::Error>;
    fn add_one(&mut self, view: &Self::View, piece: &Piece, writable: u32, buffer: Buffer);
}

macro_rules! impl_format {
    ($state:ty, $view:ty, $desc:ty, $again:literal, $unmapped:expr) => {
        impl Format for $state {
            type View = $view;
            type Desc = $desc;

            const TRIES_AGAIN: bool = $again;

            const UNMAPPED: Error = $unmapped;

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
                pieces: (&P, u16),
                buffer: Buffer,
            ) -> Result<(), P::Error> {
                <$state>::add(self, view, pieces, buffer)
            }

            #[inline(always)]
            fn add_one(&mut self, view: &$view, piece: &Piece, writable: u32, buffer: Buffer) {
                <$state>::add_one(self, view, piece, writable, buffer)
            }
        }
    };
}

impl_format!(SplitState, SplitView, Desc, false, ENOMEM);
impl_format!(PackedState, PackedView, PackedDesc, true, EIO);

impl Queue {
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
        if self.is_broken() {
            return Err(EIO);
        }
        let Some(token) = Token::new(data) else {
            return misuse();
        };
        if !self.is_physical(lists) {
            return self.add_any(lists, token, ctx, gfp);
        }
        let buffer = Buffer {
            token,
            extra: ctx,
            indirect: false,
        };
        let added = match self.ring() {
            Ring::Split { view, state, .. } => {
                // SAFETY: Callers serialise; it is the only reference to the state.
                let state = unsafe { &mut *state.get() };
                self.add_usual(view, state, lists, buffer) && {
                    if state.must_kick() {
                        self.kick();
                    }
                    true
                }
            }
            Ring::Packed { view, state, .. } => {
                // SAFETY: As above.
                let state = unsafe { &mut *state.get() };
                self.add_usual(view, state, lists, buffer)
            }
        };
        if added {
            return Ok(());
        }
        self.add_any(lists, token, ctx, gfp)
    }

    /// Whether the device takes the physical addresses of the buffer.
    #[inline(always)]
    fn is_physical(&self, lists: &Lists) -> bool {
        !lists.premapped() && !self.mapper.uses_api()
    }

    /// Adds a buffer as most are: of one entry, or of several by a table like the last one's.
    /// Returns whether it did.
    #[inline(always)]
    fn add_usual<F: Format>(
        &self,
        view: &F::View,
        state: &mut F,
        lists: &Lists,
        buffer: Buffer,
    ) -> bool {
        if state.free() == 0 || (self.features.indirect && !buffer.extra.is_null()) {
            return false;
        }
        let pieces = PhysicalLists(lists);
        let filled = if let Some(piece) = pieces.one() {
            let writable = piece.writable_len();
            Filled {
                piece,
                writable,
                buffer,
            }
        } else {
            if !self.features.indirect || !lists.may_be_several() {
                return false;
            }
            // SAFETY: Callers serialise.
            let table = unsafe { &mut *self.pool() }.take_likely();
            let filled = table.map(|table| self.fill::<F, _>(&pieces, buffer, table));
            let Some(Ok(Some(filled))) = filled else {
                return false;
            };
            filled
        };
        state.add_one(view, &filled.piece, filled.writable, filled.buffer);
        self.added(state.free(), state.next_avail());
        true
    }

    /// Adds any buffer, as [`Self::add`] says.
    #[inline(never)]
    fn add_any(&self, lists: &Lists, token: Token, ctx: *mut c_void, gfp: gfp_t) -> Result {
        if !ctx.is_null() && self.features.indirect {
            return misuse();
        }
        let buffer = Buffer {
            token,
            extra: ctx,
            indirect: false,
        };
        match self.ring() {
            Ring::Split { view, state, .. } => {
                // SAFETY: Callers serialise; it is the only reference to the state.
                let state = unsafe { &mut *state.get() };
                self.add_any_to(view, state, lists, buffer, gfp)?;
                if state.must_kick() {
                    self.kick();
                }
                Ok(())
            }
            Ring::Packed { view, state, .. } => {
                // SAFETY: As above.
                let state = unsafe { &mut *state.get() };
                self.add_any_to(view, state, lists, buffer, gfp)
            }
        }
    }

    #[inline(always)]
    fn add_any_to<F: Format>(
        &self,
        view: &F::View,
        state: &mut F,
        lists: &Lists,
        buffer: Buffer,
        gfp: gfp_t,
    ) -> Result {
        let free = state.free();
        if self.features.indirect && lists.may_be_several() && free != 0 {
            // SAFETY: Callers serialise.
            let table = unsafe { &mut *self.pool() }.take(lists.total(), &self.mapper, gfp);
            let added =
                table.map(|table| self.add_any_table(view, state, lists, buffer.token, table));
            match added {
                Some(Ok(true)) => return Ok(()),
                Some(Err(error)) if !F::TRIES_AGAIN => return Err(error),
                _ => (),
            }
        }
        let any = Any {
            lists,
            mapper: &self.mapper,
        };
        let free = state.free();
        if self.features.indirect && lists.may_be_several() && free != 0 {
            match self.fill_any::<F>(&pieces, buffer, gfp) {
                Ok(Some(filled)) => {
                    state.add_one(view, &filled.piece, filled.writable, filled.buffer);
                    self.added(state.free(), state.next_avail());
                    return Ok(());
                }
                Err(error) if !F::TRIES_AGAIN => return Err(error),
                _ => (),
            }
        }
        let total = lists.total();
        if total == 0 {
            return misuse();
        }
        if u32::from(free) < total {
            if !F::TRIES_AGAIN && lists.has_out() {
                // For historical reasons: the device should look after its ring.
                self.call_notify();
            }
            return Err(ENOSPC);
        }
        // CAST: At most the size of the queue.
        match state.add(view, (&pieces, total as u16), buffer) {
            Ok(()) => {
                self.added(state.free(), state.next_avail());
                Ok(())
            }
            Err(EINVAL) => Err(EINVAL),
            Err(_) => Err(F::UNMAPPED),
        }
    }

    /// Puts a buffer into a table like the last one's, or else into one of the right size, if there
    /// is memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when a part of the buffer could not be mapped.
    #[inline(always)]
    fn fill_any<F: Format>(
        &self,
        pieces: &MappedLists<'_>,
        buffer: Buffer,
        gfp: gfp_t,
    ) -> Result<Option<Filled>> {
        // SAFETY: Callers serialise.
        let mut table = unsafe { &mut *self.pool() }.take_likely();
        let mut is_likely = true;
        loop {
            if let Some(table) = table {
                if let Some(filled) = self.fill::<F, _>(pieces, buffer, table)? {
                    return Ok(Some(filled));
                }
            }
            if !is_likely {
                return Ok(None);
            }
            is_likely = false;
            // SAFETY: As above.
            table = unsafe { &mut *self.pool() }.take(pieces.lists.total(), &self.mapper, gfp);
        }
    }

    /// Puts a buffer into `table`, unless that is too small or the lists are longer or shorter than
    /// said.
    ///
    /// # Errors
    ///
    /// Those of `pieces`.
    #[inline(always)]
    fn fill<F: Format, P: Pieces<Error = Error>>(
        &self,
        pieces: &P,
        buffer: Buffer,
        mut table: Table,
    ) -> Result<Option<Filled>> {
        // SAFETY: Callers serialise.
        let pool = unsafe { &mut *self.pool() };
        let (descs, maps) = table.parts::<F::Desc>(&self.mapper, P::MAY_BE_MAPPED);
        match indirect::fill(descs, maps, pieces) {
            Ok(Some(content)) => {
                pool.likely_held(&table, content.count);
                let piece = table.show(content.count, &self.mapper);
                let buffer = Buffer {
                    extra: table.into_raw(),
                    indirect: true,
                    ..buffer
                };
                Ok(Some(Filled {
                    piece,
                    writable: content.writable,
                    buffer,
                }))
            }
            filled => {
                pool.put_back(table, &self.mapper);
                filled.map(|_| None)
            }
        }
    }
}

/// A buffer of one descriptor.
struct Filled {
    /// Its entry, or the table.
    piece: Piece,
    /// How many bytes the device may write.
    writable: u32,
    buffer: Buffer,
}

/// Refuses a call that no driver may make.
#[cold]
#[inline(never)]
fn misuse() -> Result {
    warn_on!(true);
    Err(EINVAL)
}
