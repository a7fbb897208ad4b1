// SPDX-License-Identifier: GPL-2.0

//! A page whose contents no hibernation image holds.
//!
//! `saveable_page()` of `kernel/power/snapshot.c` leaves out pages of type *offline*
//! (`include/linux/page-flags.h`).

use crate::virtio::bindings;

use core::{
    mem::size_of,
    ptr::{
        from_mut,
        from_ref, //
    },
};
use kernel::{
    page::Page,
    prelude::*, //
};

/// The page type of a page without one.
const NO_TYPE: c_uint = c_uint::MAX;

/// Bits of the page type below the type proper (`include/linux/page-flags.h`).
const TYPE_SHIFT: u32 = 24;

/// A page that stays out of hibernation images, with one `u64` in it.
///
/// # Invariants
///
/// The page is ours alone and of type offline.
pub struct OfflinePage(Page);

impl OfflinePage {
    /// Allocates a page; its number is 0.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new() -> Result<Self> {
        let page = Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?;

        Self::set_type(&page, bindings::pagetype_PGTY_offline << TYPE_SHIFT);
        // INVARIANT: The type was set above.
        Ok(Self(page))
    }

    /// Sets the type of a page that has no other user.
    fn set_type(page: &Page, page_type: c_uint) {
        // SAFETY: The page is allocated and ours alone, so nothing else uses or changes its type.
        unsafe { (*page.as_ptr()).__bindgen_anon_2.page_type = page_type };
    }

    /// Reads the number. In a kernel that was resumed from an image it is whatever the page frame
    /// happens to hold.
    ///
    /// # Context
    ///
    /// Any.
    pub fn read(&self) -> u64 {
        let mut value = 0u64;
        // SAFETY: `value` has room for the bytes; `&self` excludes no writer, but each number is
        // written and read by the one thread that runs a sleep transition.
        let read = unsafe {
            self.0
                .read_raw(from_mut(&mut value).cast(), 0, size_of::<u64>())
        };
        read.map_or(0, |()| value)
    }

    /// Writes the number.
    ///
    /// # Context
    ///
    /// Any.
    pub fn write(&self, value: u64) {
        // SAFETY: As for `read`. The bytes are inside the page, so it cannot fail.
        let _ = unsafe {
            self.0
                .write_raw(from_ref(&value).cast(), 0, size_of::<u64>())
        };
    }
}

impl Drop for OfflinePage {
    fn drop(&mut self) {
        Self::set_type(&self.0, NO_TYPE);
    }
}
