// SPDX-License-Identifier: GPL-2.0

//! Page poisoning: the device learns what the kernel fills free pages with (Virtio 1.4, 5.5.6.6).
//!
//! The kernel does the filling itself whenever a page is freed, those of the balloon included.

use super::layout::{
    PAGE_POISON,
    POISON_VAL, //
};
use crate::{
    kernel_ext::mem,
    virtio::{
        Device,
        Negotiation, //
    }, //
};

use kernel::device::Bound;

/// Declines poisoning if this kernel does not fill the pages that it frees.
///
/// Returns whether it fills them and cannot tell the device.
pub(super) fn validate(dev: &Negotiation<'_>) -> bool {
    if mem::fill_of_free_pages().is_none() {
        dev.decline(PAGE_POISON);
        return false;
    }
    !dev.features().has(PAGE_POISON)
}

/// Tells the device what free pages are filled with; to be called before it is live, after each
/// reset.
///
/// # Context
///
/// May sleep.
pub(super) fn announce(dev: &Device<Bound>) {
    if let Some(fill) = mem::fill_of_free_pages() {
        // Fails only without the feature.
        let _ = dev.write(&POISON_VAL, u32::from_ne_bytes([fill; 4]));
    }
}
