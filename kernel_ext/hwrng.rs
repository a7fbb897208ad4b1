// SPDX-License-Identifier: GPL-2.0

//! Hardware random number generators: what is behind `/dev/hwrng` and fills the kernel's own pool.
//!
//! C header: `include/linux/hw_random.h`.

use super::{
    registration,
    wait::{
        new_wait_queue,
        Mode,
        WaitQueue, //
    }, //
};
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
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    },
    time::Msecs,
    types::Opaque, //
};

/// What the kernel asks for at a time on most machines, in bytes: a cache line.
const USUAL: usize = 64;

/// How long a reader waits, in milliseconds: nobody else can read meanwhile. The kernel asks again
/// for one that got nothing, unless it has been sent a signal.
const PATIENCE_MS: Msecs = 1000;

/// A source of randomness.
pub trait Source: Send + Sync {
    /// The name of all sources of this kind, to which `.<instance>` is appended.
    const NAME: &'static CStr;

    /// Those who wait for this source to have something: a field of it.
    fn readers(&self) -> &Readers;

    /// Puts bytes into `out`, if there are any; does not wait for them.
    ///
    /// # Errors
    ///
    /// Whatever the reader should get.
    ///
    /// # Context
    ///
    /// May sleep. No other reader of any source is served meanwhile.
    fn read(&self, out: &mut Buffer<'_>) -> Result;
}

/// Tasks that wait for bytes of a [`Source`].
#[pin_data]
pub struct Readers {
    #[pin]
    queue: WaitQueue,
    closed: Atomic<bool>,
}

impl Readers {
    /// Nobody waits yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            queue <- new_wait_queue!("hwrng_readers"),
            closed: Atomic::new(false),
        })
    }

    /// Makes them look whether there is something now.
    ///
    /// # Context
    ///
    /// Any, interrupts included.
    pub fn wake(&self) {
        self.queue.wake_all();
    }

    /// Waits until the source gives something, is closed, or the reader is sent a signal.
    #[cold]
    fn wait_for(&self, source: &impl Source, out: &mut Buffer<'_>) -> Result {
        let mut result = Ok(());

        self.queue.wait(Mode::Interruptible, Some(PATIENCE_MS), || {
            result = match self.closed.load(Acquire) {
                true => Err(ENODEV),
                false => source.read(out),
            };
            result.is_err() || !out.is_empty()
        });
        result
    }

    /// Sends everybody away.
    fn close(&self) {
        self.closed.store(true, Release);
        self.wake();
    }
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

/// A source that is registered; dropping it sends readers away and unregisters it.
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
            source.read(&mut out)?;
            if out.is_empty() && wait {
                source.readers().wait_for(source, &mut out)?;
            }
            Ok(c_int::try_from(out.len)?)
        })
    }
}

#[pinned_drop]
impl<S: Source> PinnedDrop for Registration<'_, S> {
    fn drop(self: Pin<&mut Self>) {
        self.source.readers().close();
        // SAFETY: Registered by the type invariant. Waits for readers to leave.
        unsafe { bindings::hwrng_unregister(self.raw.get()) };
    }
}

// SAFETY: A source may be unregistered by any thread; `S` is `Sync`.
unsafe impl<S: Source> Send for Registration<'_, S> {}
