// SPDX-License-Identifier: GPL-2.0

//! Single Root I/O Virtualization: virtual functions of PCI devices.
//!
//! C header: `include/linux/pci.h`; `drivers/pci/iov.c`.

use core::ptr::NonNull;
use kernel::{
    bindings,
    device::{
        Bound,
        DeviceContext, //
    },
    error::to_result,
    pci,
    prelude::*, //
};

#[cfg(CONFIG_PCI_IOV)]
use kernel::bindings as iov;

/// The number of the capability.
const CAPABILITY: c_int = bindings::PCI_EXT_CAP_ID_SRIOV as c_int;

/// Where it says how many virtual functions are enabled, in bytes from its beginning.
const NUM_VF: c_int = bindings::PCI_SRIOV_NUM_VF as c_int;

/// Where a device is, to find it in a list. Says nothing about whether there is one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place(NonNull<bindings::pci_dev>);

impl Place {
    /// Where this device is.
    pub fn of<Ctx: DeviceContext>(dev: &pci::Device<Ctx>) -> Self {
        // CAST: `pci::Device` is a transparent wrapper.
        Self(NonNull::from(dev).cast())
    }
}

// SAFETY: It is only compared.
unsafe impl Send for Place {}

// SAFETY: As above.
unsafe impl Sync for Place {}

/// Enables virtual functions; drivers are bound to them at once.
///
/// # Errors
///
/// That of `pci_enable_sriov()`.
///
/// # Context
///
/// May sleep. The device is locked.
pub fn enable(dev: &pci::Device<Bound>, count: u16) -> Result {
    // SAFETY: The device is bound, hence valid.
    to_result(unsafe { iov::pci_enable_sriov(raw(dev), count.into()) })
}

/// Disables all virtual functions, if there are any; their drivers are gone when it returns.
///
/// # Context
///
/// As for [`enable`].
pub fn disable(dev: &pci::Device<Bound>) {
    // SAFETY: The device is bound, hence valid.
    unsafe { iov::pci_disable_sriov(raw(dev)) };
}

/// Tells whether a virtual function was given to a guest of this machine.
///
/// # Context
///
/// May sleep.
pub fn is_any_assigned(dev: &pci::Device<Bound>) -> bool {
    // SAFETY: The device is bound, hence valid.
    unsafe { iov::pci_vfs_assigned(raw(dev)) != 0 }
}

/// A virtual function.
///
/// # Invariants
///
/// The device is a virtual function, so its `physfn` is a device that it has a reference to.
pub struct Function<'a>(&'a pci::Device);

impl<'a> Function<'a> {
    /// The device, if it is one.
    pub fn new(dev: &'a pci::Device) -> Option<Self> {
        // SAFETY: The device is valid; the field does not change.
        let is_one = unsafe { (*raw(dev)).is_virtfn() != 0 };

        // INVARIANT: Looked at just now.
        is_one.then_some(Self(dev))
    }

    /// The device itself.
    pub fn device(&self) -> &'a pci::Device {
        self.0
    }

    /// The physical function that it belongs to.
    pub fn owner(&self) -> &'a pci::Device {
        // SAFETY: By the type invariant it is a valid device; `pci::Device` is a transparent
        // wrapper.
        unsafe { &*physfn(raw(self.0)).cast() }
    }

    /// Which of the virtual functions it is, from 0 on.
    ///
    /// `pci_iov_vf_id()` divides by the distance of the functions, which is the device's word, and
    /// may be 0 if there is one function.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the physical function makes no sense.
    pub fn number(&self) -> Result<u16> {
        let owner = raw(self.owner());
        // SAFETY: By the type invariant it is a valid device. Any number will do.
        let first = unsafe { iov::pci_iov_virtfn_devfn(owner, 0) };
        // SAFETY: As above.
        let second = unsafe { iov::pci_iov_virtfn_devfn(owner, 1) };

        if first < 0 {
            return Err(EINVAL);
        }
        if first != second {
            // SAFETY: By the type invariant. The distance is not 0.
            let number = unsafe { iov::pci_iov_vf_id(raw(self.0)) };

            return Ok(u16::try_from(number)?);
        }
        // SAFETY: By the type invariant.
        let at = c_int::from(unsafe { bindings::pci_find_ext_capability(owner, CAPABILITY) });
        let mut count = 0;
        // SAFETY: By the type invariant; `count` is a local variable.
        let read = unsafe { bindings::pci_read_config_word(owner, at + NUM_VF, &mut count) };

        match (read, at, count) {
            (0, 1.., 1) => Ok(0),
            _ => Err(EINVAL),
        }
    }
}

/// The physical function of a virtual one.
///
/// # Safety
///
/// `dev` must be a valid virtual function.
unsafe fn physfn(dev: *mut bindings::pci_dev) -> *mut bindings::pci_dev {
    #[cfg(CONFIG_PCI_IOV)]
    // SAFETY: By the requirements above this is the member of the union that is used.
    let owner = unsafe { (*dev).__bindgen_anon_1.physfn };
    #[cfg(not(CONFIG_PCI_IOV))]
    let owner = dev;

    owner
}

fn raw<Ctx: DeviceContext>(dev: &pci::Device<Ctx>) -> *mut bindings::pci_dev {
    // CAST: `pci::Device` is a transparent wrapper.
    core::ptr::from_ref(dev).cast_mut().cast()
}

/// What the kernel has if it is built without: no virtual functions at all. The functions have the
/// contracts of those in `include/linux/pci.h`.
#[cfg(not(CONFIG_PCI_IOV))]
#[allow(clippy::missing_safety_doc, reason = "nothing is needed")]
mod iov {
    use super::*;

    pub(super) unsafe fn pci_enable_sriov(_dev: *mut bindings::pci_dev, _count: c_int) -> c_int {
        ENODEV.to_errno()
    }

    pub(super) unsafe fn pci_disable_sriov(_dev: *mut bindings::pci_dev) {}

    pub(super) unsafe fn pci_vfs_assigned(_dev: *mut bindings::pci_dev) -> c_int {
        0
    }

    pub(super) unsafe fn pci_iov_virtfn_devfn(_dev: *mut bindings::pci_dev, _id: c_int) -> c_int {
        ENODEV.to_errno()
    }

    pub(super) unsafe fn pci_iov_vf_id(_dev: *mut bindings::pci_dev) -> c_int {
        ENODEV.to_errno()
    }
}
