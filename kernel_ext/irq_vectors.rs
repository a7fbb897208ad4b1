// SPDX-License-Identifier: GPL-2.0

//! Interrupts of PCI devices: MSI-X vectors spread over CPUs, and INTx.
//!
//! The kernel crate's vectors take no affinity, and its registrations take names that live forever
//! and borrow from the vectors, so that a driver cannot keep both. C headers:
//! `include/linux/pci.h`, `include/linux/interrupt.h`.

use super::irq_handler::RawHandler;

#[cfg(CONFIG_SMP)]
use kernel::bindings::__irq_apply_affinity_hint;
#[cfg(CONFIG_PCI_MSI)]
use kernel::bindings::{
    pci_alloc_irq_vectors_affinity,
    pci_irq_get_affinity, //
};
use kernel::{
    bindings,
    cpumask::{
        Cpumask,
        CpumaskVar, //
    },
    device::Bound,
    error::to_result,
    pci,
    prelude::*,
    str::CString,
    sync::Arc, //
};

#[cfg(not(CONFIG_PCI_MSI))]
use no_msi::*;
#[cfg(not(CONFIG_SMP))]
use one_cpu::*;

/// The functions of the C header for a kernel without MSI: there are no vectors.
#[cfg(not(CONFIG_PCI_MSI))]
mod no_msi {
    use kernel::{
        bindings,
        prelude::*, //
    };

    /// # Safety
    ///
    /// None is needed: it does nothing with what it is given.
    pub(super) unsafe fn pci_alloc_irq_vectors_affinity(
        _dev: *mut bindings::pci_dev,
        _min: u32,
        _max: u32,
        _flags: u32,
        _affinity: *mut bindings::irq_affinity,
    ) -> c_int {
        ENOSPC.to_errno()
    }

    /// # Safety
    ///
    /// None is needed: it does nothing with what it is given.
    pub(super) unsafe fn pci_irq_get_affinity(
        _dev: *mut bindings::pci_dev,
        _vector: c_int,
    ) -> *const bindings::cpumask {
        core::ptr::null()
    }
}

/// The functions of the C header for a kernel for one CPU: no interrupt can be moved.
#[cfg(not(CONFIG_SMP))]
mod one_cpu {
    use kernel::{
        bindings,
        prelude::*, //
    };

    /// # Safety
    ///
    /// None is needed: it does nothing with what it is given.
    pub(super) unsafe fn __irq_apply_affinity_hint(
        _irq: u32,
        _mask: *const bindings::cpumask,
        _move_it: bool,
    ) -> c_int {
        EINVAL.to_errno()
    }
}

/// MSI-X vectors of a device, until this is dropped.
///
/// # Invariants
///
/// They were allocated, and belong to this.
pub struct Vectors<'a>(&'a pci::Device<Bound>);

impl<'a> Vectors<'a> {
    /// Allocates `count` vectors; the device uses MSI-X from now on. With `affinity` they are
    /// managed: spread over all CPUs, but for those that are set apart.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the device or the machine does not have as many, and others.
    ///
    /// # Context
    ///
    /// May sleep. The device has no vectors.
    pub fn new(
        dev: &'a pci::Device<Bound>,
        count: u32,
        affinity: Option<bindings::irq_affinity>,
    ) -> Result<Arc<Self>> {
        let mut affinity = affinity;
        let mut flags = bindings::PCI_IRQ_MSIX;
        let affinity = match &mut affinity {
            Some(affinity) => {
                flags |= bindings::PCI_IRQ_AFFINITY;
                core::ptr::from_mut(affinity)
            }
            None => core::ptr::null_mut(),
        };
        // SAFETY: The device is bound, and `affinity` null or a valid description.
        let allocated =
            unsafe { pci_alloc_irq_vectors_affinity(raw(dev), count, count, flags, affinity) };

        to_result(allocated)?;
        // INVARIANT: Allocated just now. If there is no memory, dropping it frees them.
        Ok(Arc::new(Self(dev), GFP_KERNEL)?)
    }

    /// The number that the interrupt core has for a vector.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such vector.
    fn irq(&self, vector: u16) -> Result<u32> {
        // SAFETY: The device is bound.
        let irq = unsafe { bindings::pci_irq_vector(raw(self.0), vector.into()) };

        to_result(irq)?;
        Ok(u32::try_from(irq)?)
    }

    /// The CPUs that a vector was spread to; null if there is no such vector. The mask exists as
    /// long as the vectors.
    pub fn affinity(&self, vector: u16) -> *const Cpumask {
        // SAFETY: The device is bound.
        let mask = unsafe { pci_irq_get_affinity(raw(self.0), vector.into()) };

        // CAST: A transparent wrapper.
        mask.cast()
    }
}

impl Drop for Vectors<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; whoever requested one of them had a reference to this.
        unsafe { bindings::pci_free_irq_vectors(raw(self.0)) };
    }
}

/// A handler of an interrupt; dropping it waits for calls that are under way.
///
/// # Invariants
///
/// The interrupt was requested with function and argument of `handler`, and with the name.
pub struct Registration<'a, H: RawHandler> {
    irq: u32,
    handler: H,
    /// Boxed, for the interrupt core has a pointer to it, wherever the mask itself is.
    hint: Option<KBox<CpumaskVar>>,
    _name: CString,
    /// Goes after the interrupt.
    _vectors: Option<Arc<Vectors<'a>>>,
}

impl<'a, H: RawHandler> Registration<'a, H> {
    /// Has `handler` called for interrupts of one vector; `name` is for `/proc/interrupts`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such vector; `ENOMEM`; that of `request_irq()`.
    ///
    /// # Context
    ///
    /// May sleep. The handler may be called before this returns.
    ///
    /// # Safety
    ///
    /// The result must be dropped before `'a` ends: it must not be forgotten. Nor may the handler
    /// hold anything that ends before.
    pub unsafe fn vector(
        vectors: &Arc<Vectors<'a>>,
        vector: u16,
        name: CString,
        handler: H,
    ) -> Result<Self> {
        let irq = vectors.irq(vector)?;

        // SAFETY: By the requirements above.
        unsafe { Self::request(irq, 0, name, handler, Some(vectors.clone())) }
    }

    /// Has `handler` called for the INTx interrupt of a device, which other devices may share.
    ///
    /// # Errors
    ///
    /// `ENXIO` if it has none; that of `request_irq()`.
    ///
    /// # Context
    ///
    /// As for [`Self::vector`].
    ///
    /// # Safety
    ///
    /// As for [`Self::vector`].
    pub unsafe fn intx(dev: &'a pci::Device<Bound>, name: CString, handler: H) -> Result<Self> {
        let irq = intx_line(dev).ok_or(ENXIO)?;

        // CAST: The flag is one of the low bits.
        let shared = bindings::IRQF_SHARED as c_ulong;

        // SAFETY: By the requirements above.
        unsafe { Self::request(irq, shared, name, handler, None) }
    }

    /// # Safety
    ///
    /// As for [`Self::vector`]; `irq` must be the device's.
    unsafe fn request(
        irq: u32,
        flags: c_ulong,
        name: CString,
        handler: H,
        vectors: Option<Arc<Vectors<'a>>>,
    ) -> Result<Self> {
        let function = Some(handler.function());
        let argument = handler.argument();

        // SAFETY: By the requirements above and those of `RawHandler`. Name and argument exist
        // until `drop` has given the interrupt up.
        to_result(unsafe {
            bindings::request_irq(irq, function, flags, name.as_char_ptr(), argument)
        })?;
        // INVARIANT: Requested just now.
        Ok(Self {
            irq,
            handler,
            hint: None,
            _name: name,
            _vectors: vectors,
        })
    }

    /// Waits for calls of the handler on other CPUs.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn synchronize(&self) {
        // SAFETY: By the type invariant it is an interrupt that was requested.
        unsafe { bindings::synchronize_irq(self.irq) };
    }

    /// Moves the interrupt to some CPUs, and recommends them to `irqbalance`; `None` takes the
    /// recommendation back.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. That the interrupt cannot be moved is none.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn set_affinity(&mut self, cpus: Option<&Cpumask>) -> Result {
        let hint = match cpus {
            Some(cpus) => Some(KBox::new(CpumaskVar::try_clone(cpus)?, GFP_KERNEL)?),
            None => None,
        };
        let mask = match &hint {
            Some(mask) => mask.as_raw().cast_const(),
            None => core::ptr::null(),
        };

        // SAFETY: The interrupt was requested. The mask stays until another one replaces it.
        unsafe { __irq_apply_affinity_hint(self.irq, mask, hint.is_some()) };
        self.hint = hint;
        Ok(())
    }
}

impl<H: RawHandler> Drop for Registration<'_, H> {
    fn drop(&mut self) {
        if self.hint.is_some() {
            // SAFETY: The interrupt was requested.
            unsafe { __irq_apply_affinity_hint(self.irq, core::ptr::null(), false) };
        }
        // SAFETY: By the type invariant; waits for calls of the handler.
        unsafe { bindings::free_irq(self.irq, self.handler.argument()) };
    }
}

// Nothing in it is pinned: what the interrupt core has pointers to is on the heap.
impl<H: RawHandler> Unpin for Registration<'_, H> {}

// SAFETY: An interrupt can be given up by any thread, and the handler is `Send`; a mask of CPUs is
// plain memory.
unsafe impl<H: RawHandler> Send for Registration<'_, H> {}

// SAFETY: Through a reference the interrupt can only be waited for.
unsafe impl<H: RawHandler> Sync for Registration<'_, H> {}

/// The INTx interrupt of a device, if it has one.
pub fn intx_line(dev: &pci::Device<Bound>) -> Option<u32> {
    // SAFETY: The device is bound, hence valid.
    let irq = unsafe { (*raw(dev)).irq };

    (irq != 0).then_some(irq)
}

fn raw(dev: &pci::Device<Bound>) -> *mut bindings::pci_dev {
    // CAST: `pci::Device` is a transparent wrapper.
    core::ptr::from_ref(dev).cast_mut().cast()
}
