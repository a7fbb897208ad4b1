// SPDX-License-Identifier: GPL-2.0

//! What the modern and the legacy interface of a device do alike.

use crate::kernel_ext::pci_device;

use kernel::{
    dev_err,
    dev_warn,
    device::{
        Bound,
        Core, //
    },
    dma::{
        Device as _,
        DmaMask, //
    },
    io::poll::read_poll_timeout,
    pci,
    time::Delta, //
};

/// How often to look whether a device has done what it was told.
pub(super) const INTERVAL: Delta = Delta::from_millis(1);

/// How long a device may take to reset.
const RESET_PATIENCE: Delta = Delta::from_millis(10_000);

/// The status of a device that is gone.
const GONE: u8 = 0xff;

/// Says how far the device can reach: everywhere with what is mapped for it, and as far as
/// `coherent` with memory that is allocated for it.
pub(super) fn set_dma_masks(pci: &pci::Device<Core<'_>>, coherent: DmaMask) {
    // SAFETY: Nothing has been allocated or mapped for the device yet.
    let set = unsafe { pci.dma_set_mask(DmaMask::new::<64>()) };
    // SAFETY: As above.
    let set = set.and_then(|()| unsafe { pci.dma_set_coherent_mask(coherent) });
    // SAFETY: As above.
    let set = set.or_else(|_| unsafe { pci.dma_set_mask_and_coherent(DmaMask::new::<32>()) });

    if set.is_err() {
        dev_warn!(
            pci,
            "Failed to enable 64-bit or 32-bit DMA.  Trying to continue, but this might not work.\n"
        );
    }
}

/// Waits until the status of a device that was told to reset reads 0, or logs that it does not.
///
/// # Context
///
/// May sleep.
pub(super) fn wait_for_reset(pci: &pci::Device<Bound>, mut status: impl FnMut() -> u8) {
    let last = read_poll_timeout(
        || Ok(status()),
        |status| matches!(*status, 0 | GONE),
        INTERVAL,
        RESET_PATIENCE,
    );

    match last {
        Ok(0) => (),
        _ if !pci_device::is_present(pci) => dev_err!(pci, "the device is gone\n"),
        _ => dev_err!(pci, "the device does not reset\n"),
    }
}
