// SPDX-License-Identifier: GPL-2.0

//! What a driver offers to another part of the kernel while its device is bound.
//!
//! A value that unregisters when it is dropped cannot be handed to safe code if callbacks borrow
//! from anything: safe code may forget it. So the bus makes and drops it, and a driver only names
//! its type.

use core::pin::Pin;
use kernel::prelude::*;

/// A registration by which a part of the kernel calls a handler of type `H`, as long as it exists.
///
/// # Safety
///
/// When the value was dropped nobody calls the handler any more, nor will anybody.
pub unsafe trait Registration<'a, H>: Send + Sized {
    /// Registers `handler`; `instance` tells it from others of its kind.
    ///
    /// # Errors
    ///
    /// Those of the part of the kernel in question.
    ///
    /// # Context
    ///
    /// May sleep. Callbacks may come before this returns.
    ///
    /// # Safety
    ///
    /// The value must be dropped before `'a` ends.
    unsafe fn new(handler: Pin<&'a H>, instance: &CStr) -> impl PinInit<Self, Error>;
}

// SAFETY: Nothing calls the handler.
unsafe impl<H> Registration<'_, H> for () {
    unsafe fn new(_handler: Pin<&H>, _instance: &CStr) -> impl PinInit<Self, Error> {
        Ok::<_, Error>(())
    }
}
