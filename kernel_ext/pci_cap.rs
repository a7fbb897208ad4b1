// SPDX-License-Identifier: GPL-2.0

//! The list of capabilities in the configuration space of a PCI device.
//!
//! C header: `include/linux/pci.h`.

use kernel::{
    bindings,
    device::Bound,
    pci,
    prelude::*, //
};

/// How many capabilities fit into a configuration space; a longer list goes in circles.
const MOST: usize = (256 - 64) / 4;

/// The vendor-specific capabilities of a device: their offsets in its configuration space, in the
/// order of the list, which ends whatever the device says.
pub fn vendor_specific(dev: &pci::Device<Bound>) -> impl Iterator<Item = usize> + '_ {
    // CAST: `pci::Device` is a transparent wrapper.
    let raw: *mut bindings::pci_dev = core::ptr::from_ref(dev).cast_mut().cast();
    // CAST: The number of a capability has 8 bits.
    let id = bindings::PCI_CAP_ID_VNDR as c_int;
    // SAFETY: The device is bound, hence valid.
    let first = unsafe { bindings::pci_find_capability(raw, id) };
    let next = move |at: &u8| {
        // SAFETY: As above.
        place(unsafe { bindings::pci_find_next_capability(raw, *at, id) })
    };

    core::iter::successors(place(first), next)
        .map(usize::from)
        .take(MOST)
}

/// Where a capability is, if one was found.
fn place(found: u8) -> Option<u8> {
    (found != 0).then_some(found)
}

/// Tells whether a device has an extended capability.
pub fn has_extended(dev: &pci::Device<Bound>, id: u32) -> bool {
    // CAST: `pci::Device` is a transparent wrapper.
    let raw = core::ptr::from_ref(dev).cast_mut().cast();

    // CAST: The number of a capability has 16 bits.
    // SAFETY: The device is bound, hence valid.
    unsafe { bindings::pci_find_ext_capability(raw, id as c_int) != 0 }
}
