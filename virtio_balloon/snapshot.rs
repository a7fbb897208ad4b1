// SPDX-License-Identifier: GPL-2.0

//! Finds out whether this kernel runs out of a hibernation image.
//!
//! The PM core calls `.restore` in a resumed kernel, but also when a transition was abandoned. The
//! two are told apart by a random number that is written, as the last thing before the image, to a
//! variable, which the image holds, and to an offline page, which it does not. A kernel that finds
//! both the same was never replaced.

use crate::kernel_ext::{
    offline_page::OfflinePage,
    random, //
};

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// The number and its two places.
pub(super) struct Detector {
    /// 0 when no image was or is being created.
    number: Atomic<u64>,
    page: OfflinePage,
}

impl Detector {
    /// Creates a detector.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            number: Atomic::new(0),
            page: OfflinePage::new()?,
        })
    }

    /// An image may be created from now on.
    ///
    /// # Context
    ///
    /// The PM core's thread, interrupts of devices off.
    pub(super) fn arm(&self) {
        let number = random::nonzero_u64();

        self.number.store(number, Relaxed);
        self.page.write(number);
    }

    /// The image was created, or will not be: this kernel is the one that creates it.
    ///
    /// Wipes the page, too: memory may survive into the kernel that loads the image.
    ///
    /// # Context
    ///
    /// The PM core's thread.
    pub(super) fn disarm(&self) {
        self.number.store(0, Relaxed);
        self.page.write(0);
    }

    /// Tells whether this kernel runs out of an image that was created since [`Self::arm`].
    pub(super) fn is_resumed(&self) -> bool {
        let number = self.number.load(Relaxed);

        number != 0 && self.page.read() != number
    }
}
