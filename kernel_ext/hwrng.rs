// SPDX-License-Identifier: GPL-2.0

//! Hardware random number generators: what is behind `/dev/hwrng` and fills the kernel's own pool.
//!
//! C header: `include/linux/hw_random.h`.

use super::registration;
use crate::virtio::bindings;

use core::{
    marker::PhantomData,
    pin::Pin,
    ptr::{
        from_ref,
        with_exposed_provenance, //
    }, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    str::CString,
    types::Opaque, //
};

/// What the kernel asks for at a time on most machines, in bytes: a cache line.
const USUAL: usize = 64;

/// A source of randomness.
pub trait Source: Send + Sync {
    /// The name of all sources of this kind, to which `.<instance>` is appended.
    const NAME: &'static CStr;

    /// Puts bytes into `out`; if there are none and `wait` is set, waits for some, but not for
    /// ever: nobody else can read meanwhile.
    ///
    /// The kernel asks again when it got none, unless the reader has been sent a signal.
    ///
    /// # Errors
    ///
    /// Whatever the reader should get.
    ///
    /// # Context
    ///
    /// May sleep.
    fn read(&self, out: &mut Buffer<'_>, wait: bool) -> Result;

    /// Makes [`Self::read`] return at once from now on, with an error.
    ///
    /// # Context
    ///
    /// May sleep.
    fn close(&self);
}

/// Where a [`Source`] puts its bytes.
///
/// # Invariants
///
/// `data` is valid for writes of `size` bytes for as long as `'a`, and the first `len` of them were
/// written; `len` is at most `size`.
pub struct Buffer<'a> {
    data: *mut u8,
    size: usize,
    len: usize,
    _memory: PhantomData<&'a mut [u8]>,
}

impl Buffer<'_> {
    /// Puts in as many of the bytes as there is room for.
    pub fn put(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.room());
        // SAFETY: By the type invariant `len` is inside.
        let to = unsafe { self.data.add(self.len) };

        match count {
            // SAFETY: By the type invariant there is room for `count` bytes, which nobody else
            // refers to. A constant number is copied in line.
            USUAL => unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, USUAL) },
            // SAFETY: As above.
            _ => unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count) },
        }
        // INVARIANT: These were written, and there was room.
        self.len += count;
    }

    /// How many bytes there is room for.
    pub fn room(&self) -> usize {
        self.size - self.len
    }

    /// Tells whether nothing was put in yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A source that is registered; dropping it closes the source and unregisters it.
///
/// # Invariants
///
/// `raw` is registered, with the address of `source` as its private value and `name` as its name.
#[pin_data(PinnedDrop)]
pub struct Registration<'a, S: Source> {
    #[pin]
    raw: Opaque<bindings::hwrng>,
    source: Pin<&'a S>,
    name: CString,
}

// SAFETY: The drop function unregisters, which waits for readers to leave.
unsafe impl<'a, S: Source + 'a> registration::Registration<'a, S> for Registration<'a, S> {
    unsafe fn new(source: Pin<&'a S>, instance: &CStr) -> impl PinInit<Self, Error> {
        let name = CString::try_from_fmt(fmt!("{}.{instance}", S::NAME));

        pin_init::pin_init_scope(move || {
            let name = name?;
            let hwrng = bindings::hwrng {
                name: name.as_char_ptr(),
                read: Some(Self::read_callback),
                priv_: from_ref(source.get_ref()).expose_provenance(),
                ..Default::default()
            };

            // INVARIANT: Name, source and private value were set above.
            Ok(try_pin_init!(Self {
                name,
                source,
                raw <- Opaque::try_ffi_init(move |raw: *mut bindings::hwrng| {
                    // SAFETY: `raw` is valid for writing.
                    unsafe { raw.write(hwrng) };
                    // SAFETY: The structure stays where it is until it is unregistered; the name
                    // is dropped after that.
                    to_result(unsafe { bindings::hwrng_register(raw) })
                }),
            }? Error))
        })
    }
}

impl<S: Source> Registration<'_, S> {
    /// # Safety
    ///
    /// Called only by the core of hw_random, with the structure of a `Registration<S>` and with
    /// room for `max` bytes at `data`.
    unsafe extern "C" fn read_callback(
        raw: *mut bindings::hwrng,
        data: *mut c_void,
        max: usize,
        wait: bool,
    ) -> c_int {
        // SAFETY: By the requirements above and the type invariant.
        let source = unsafe { &*with_exposed_provenance::<S>((*raw).priv_) };
        // INVARIANT: By the requirements above; nothing was written yet.
        let mut out = Buffer {
            data: data.cast(),
            size: max,
            len: 0,
            _memory: PhantomData,
        };

        from_result(|| {
            source.read(&mut out, wait)?;
            Ok(c_int::try_from(out.len)?)
        })
    }
}

#[pinned_drop]
impl<S: Source> PinnedDrop for Registration<'_, S> {
    fn drop(self: Pin<&mut Self>) {
        self.source.close();
        // SAFETY: Registered by the type invariant. Waits for readers to leave.
        unsafe { bindings::hwrng_unregister(self.raw.get()) };
    }
}

// SAFETY: A source may be unregistered by any thread; `S` is `Sync`.
unsafe impl<S: Source> Send for Registration<'_, S> {}
