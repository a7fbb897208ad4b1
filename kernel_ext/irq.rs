// SPDX-License-Identifier: GPL-2.0

//! Interrupts of platform devices whose name is known at run time only, and that wake the machine.
//!
//! C header: `include/linux/interrupt.h`.

use kernel::{
    bindings,
    device::Bound,
    irq::{
        self,
        Flags,
        Handler, //
    },
    platform,
    prelude::*,
    str::CString, //
};

/// A handler of an interrupt that may be shared with other devices; dropping it waits for calls
/// that are under way.
///
/// The fields are dropped in this order: the interrupt core uses the name until the end.
pub struct Registration<'a, T: Handler> {
    registration: Pin<KBox<irq::Registration<'a, T>>>,
    _name: CString,
}

impl<'a, T: Handler + 'a> Registration<'a, T> {
    /// Registers `handler` for interrupt `index` of a device; `name` is for `/proc/interrupts`.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there is no such interrupt, which is logged; that of `request_irq()`; `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep. The handler may be called before this returns.
    ///
    /// # Safety
    ///
    /// The result must be dropped before `'a` ends: it must not be forgotten.
    pub unsafe fn new(
        dev: &'a platform::Device<Bound>,
        index: u32,
        name: &CStr,
        handler: impl PinInit<T, Error> + 'a,
    ) -> Result<Self> {
        let request = dev.irq_by_index(index)?;
        let name = CString::try_from(name)?;
        // SAFETY: The string is on the heap, and freed after the registration, the only user.
        let forever = unsafe { CStr::from_char_ptr(name.as_char_ptr()) };
        // SAFETY: By the requirements above.
        let init = unsafe { irq::Registration::new(request, Flags::SHARED, forever, handler) };

        Ok(Self {
            registration: KBox::pin_init(init, GFP_KERNEL)?,
            _name: name,
        })
    }

    /// The handler.
    pub fn handler(&self) -> &T {
        self.registration.handler()
    }

    /// Waits for calls of the handler on other CPUs.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn synchronize(&self) {
        self.registration.synchronize();
    }
}

/// An interrupt that wakes the machine from sleep, until this is dropped.
///
/// # Invariants
///
/// `irq_set_irq_wake()` was called for interrupt `0`, which exists.
pub struct WakeSource(u32);

impl WakeSource {
    /// Makes interrupt `index` of a device wake the machine; the device must have a handler for
    /// it. None if the interrupt controller cannot do that.
    pub fn new(dev: &platform::Device<Bound>, index: u32) -> Option<Self> {
        let irq = dev.irq_by_index(index).ok()?.irq();

        // SAFETY: The interrupt exists.
        let status = unsafe { bindings::irq_set_irq_wake(irq, 1) };

        // INVARIANT: Called just now.
        (status == 0).then_some(Self(irq))
    }
}

impl Drop for WakeSource {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::irq_set_irq_wake(self.0, 0) };
    }
}
