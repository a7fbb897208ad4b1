// SPDX-License-Identifier: GPL-2.0

//! Handlers of interrupts that the interrupt core calls with nothing in between.
//!
//! `kernel::irq::Registration` puts a function of its own before the handler. Where a part of the
//! kernel has a C function for the purpose, a call can be saved on each interrupt. C header:
//! `include/linux/interrupt.h`.

use kernel::{
    bindings,
    irq::{
        Handler,
        IrqReturn, //
    },
    prelude::*, //
};

/// What handles an interrupt: a C function, and its argument, which this value keeps.
///
/// # Safety
///
/// As long as the value exists, wherever it is moved to, the function can be called with the
/// argument in hard interrupts, on several CPUs at a time.
pub unsafe trait RawHandler: Send {
    /// The function.
    fn function(&self) -> unsafe extern "C" fn(c_int, *mut c_void) -> bindings::irqreturn_t;

    /// What it is called with; no other handler of the same interrupt has it.
    fn argument(&self) -> *mut c_void;
}

// SAFETY: `handle` only needs the value in the box, which does not move, and is `Sync`.
unsafe impl<T: Handler + Send> RawHandler for KBox<T> {
    fn function(&self) -> unsafe extern "C" fn(c_int, *mut c_void) -> bindings::irqreturn_t {
        handle::<T>
    }

    fn argument(&self) -> *mut c_void {
        core::ptr::from_ref::<T>(self).cast_mut().cast()
    }
}

/// # Safety
///
/// `handler` must point to a `T`.
unsafe extern "C" fn handle<T: Handler>(
    _irq: c_int,
    handler: *mut c_void,
) -> bindings::irqreturn_t {
    // SAFETY: By the requirements above.
    match unsafe { &*handler.cast::<T>() }.handle() {
        IrqReturn::None => bindings::irqreturn::IRQ_NONE,
        IrqReturn::Handled => bindings::irqreturn::IRQ_HANDLED,
    }
}
