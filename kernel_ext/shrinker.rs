// SPDX-License-Identifier: GPL-2.0

//! Shrinkers: memory that can be had back when the kernel reclaims some.
//!
//! C header: `include/linux/shrinker.h`.

use core::ptr::NonNull;
use kernel::{
    bindings,
    prelude::*, //
};

/// `SHRINK_STOP`: no progress is possible at present.
const STOP: c_ulong = !0;

/// Holds memory that the kernel may want back.
pub trait Cache: Send + Sync {
    /// Number of kernel pages that could be freed.
    ///
    /// # Context
    ///
    /// Memory reclaim; must neither sleep for long nor allocate.
    fn count(&self) -> usize;

    /// Frees at least `pages` kernel pages if it has them, and returns how many; `None` if that is
    /// not possible now.
    ///
    /// # Context
    ///
    /// As for [`Self::count`].
    fn scan(&self, pages: usize) -> Option<usize>;
}

/// A registered shrinker; dropping it waits for running calls.
///
/// # Invariants
///
/// `shrinker` is registered, and its private data is the pointer that `cache` holds.
pub struct Shrinker<T: Cache + 'static> {
    shrinker: NonNull<bindings::shrinker>,
    _cache: KBox<T>,
}

impl<T: Cache + 'static> Shrinker<T> {
    /// Registers `cache` under a name for debugfs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(cache: T, name: &CStr) -> Result<Self> {
        let cache = KBox::new(cache, GFP_KERNEL)?;
        // SAFETY: The format takes one string, which is NUL-terminated.
        let shrinker =
            unsafe { bindings::shrinker_alloc(0, c"%s".as_char_ptr(), name.as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;

        // SAFETY: The shrinker is not registered yet, so its fields may be set.
        unsafe {
            let raw = shrinker.as_ptr();

            (*raw).count_objects = Some(Self::count_callback);
            (*raw).scan_objects = Some(Self::scan_callback);
            (*raw).private_data = (&raw const *cache).cast_mut().cast();
        }
        // SAFETY: All that it needs was set above; the cache stays where it is until the shrinker
        // is freed.
        unsafe { bindings::shrinker_register(shrinker.as_ptr()) };
        // INVARIANT: Both were done above.
        Ok(Self {
            shrinker,
            _cache: cache,
        })
    }

    /// # Safety
    ///
    /// Called only by memory reclaim, with the shrinker of a `Shrinker<T>`.
    unsafe extern "C" fn count_callback(
        shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: By the requirements above and the type invariant.
        let cache = unsafe { &*(*shrinker).private_data.cast::<T>() };

        cache.count()
    }

    /// # Safety
    ///
    /// As for [`Self::count_callback`], with valid `control`.
    unsafe extern "C" fn scan_callback(
        shrinker: *mut bindings::shrinker,
        control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: By the requirements above and the type invariant.
        let cache = unsafe { &*(*shrinker).private_data.cast::<T>() };
        // SAFETY: By the requirements above.
        let pages = unsafe { (*control).nr_to_scan };
        let freed = cache.scan(pages);

        freed.unwrap_or(STOP)
    }
}

impl<T: Cache + 'static> Drop for Shrinker<T> {
    fn drop(&mut self) {
        // SAFETY: Registered by the type invariant. The cache is dropped after this.
        unsafe { bindings::shrinker_free(self.shrinker.as_ptr()) };
    }
}

// SAFETY: The cache is `Send`, a shrinker may be freed from any thread.
unsafe impl<T: Cache + 'static> Send for Shrinker<T> {}

// SAFETY: The cache is `Sync`, and nothing else can be reached through a reference.
unsafe impl<T: Cache + 'static> Sync for Shrinker<T> {}
