// SPDX-License-Identifier: GPL-2.0

//! What the modern and the legacy interface of a device do alike.

use crate::{
    kernel_ext::pci_device,
    virtio::transport::ring::MAX_SIZE, //
};

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
    pci,
    prelude::*,
    time::Delta, //
};

/// How often to look whether a device has done what it was told.
pub(super) const INTERVAL: Delta = Delta::from_millis(1);

/// The size of a queue of a device that is gone.
const GONE_SIZE: u16 = 0xffff;

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

/// How many descriptors queue number `index` has, which is selected. The device says that it has
/// `size`, 0 if there is no such queue; `powers`: anything but a power of two makes no sense.
///
/// # Errors
///
/// `ENOENT` if there is no such queue, if the device is gone, or if it has the queue already;
/// `EINVAL` if the size makes no sense; all are logged.
pub(super) fn queue_size(
    pci: &pci::Device<Bound>,
    index: u32,
    size: u16,
    powers: bool,
    is_in_use: impl FnOnce() -> bool,
) -> Result<u32> {
    if size == GONE_SIZE && !pci_device::is_present(pci) {
        dev_err!(pci, "the device is gone\n");
        return Err(ENOENT);
    }
    if size == 0 {
        dev_err!(pci, "there is no queue {}\n", index);
        return Err(ENOENT);
    }
    if is_in_use() {
        dev_err!(pci, "queue {} is in use already\n", index);
        return Err(ENOENT);
    }
    if u32::from(size) > MAX_SIZE || powers && !size.is_power_of_two() {
        dev_err!(pci, "queue {} cannot have {} descriptors\n", index, size);
        return Err(EINVAL);
    }
    Ok(size.into())
}
