// SPDX-License-Identifier: GPL-2.0

//! Which interface of a device is used: the modern one if there is one, else the legacy one; the
//! other way round with `force_legacy=1`.

#[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
use super::legacy::Legacy;
use super::modern::Modern;
#[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
use crate::kernel_ext::{
    modinfo::modinfo,
    module_param::module_parameter, //
};

use kernel::{
    dev_err,
    device::Core,
    pci,
    prelude::*, //
};

#[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
module_parameter! {
    /// `force_legacy`: transitional devices are used by their legacy interface.
    FORCE_LEGACY: bool, c"force_legacy", c"virtio_pci.force_legacy", 0o444
}
#[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
modinfo!("parmtype", "force_legacy:bool");
#[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
modinfo!(
    "parm",
    "force_legacy:Force legacy mode for transitional virtio 1 devices"
);

/// The interface of a device that is used.
pub(super) enum Choice<'bound> {
    Modern(Modern<'bound>),
    #[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
    Legacy(Legacy<'bound>),
}

impl<'bound> Choice<'bound> {
    /// Chooses an interface of a device that is enabled.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device has none, which is logged; that of [`Modern::new`] or
    /// [`Legacy::new`].
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn new(pci: &'bound pci::Device<Core<'_>>) -> Result<Self> {
        let found = match is_legacy_first() {
            true => match Self::legacy(pci) {
                Err(ENODEV | ENOMEM) => Self::modern(pci),
                found => found,
            },
            false => match Self::modern(pci) {
                Err(ENODEV) => Self::legacy(pci),
                found => found,
            },
        };

        found.inspect_err(|error| {
            if *error == ENODEV {
                dev_err!(pci, "virtio_pci: no interface that can be used\n");
            }
        })
    }

    fn modern(pci: &'bound pci::Device<Core<'_>>) -> Result<Self> {
        Ok(Self::Modern(Modern::new(pci)?))
    }

    #[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
    fn legacy(pci: &'bound pci::Device<Core<'_>>) -> Result<Self> {
        Ok(Self::Legacy(Legacy::new(pci)?))
    }

    #[cfg(not(CONFIG_VIRTIO_PCI_LEGACY))]
    fn legacy(_pci: &'bound pci::Device<Core<'_>>) -> Result<Self> {
        Err(ENODEV)
    }
}

/// Tells whether the legacy interface goes before the modern one.
fn is_legacy_first() -> bool {
    #[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
    return FORCE_LEGACY.is_on();
    #[cfg(not(CONFIG_VIRTIO_PCI_LEGACY))]
    return false;
}
