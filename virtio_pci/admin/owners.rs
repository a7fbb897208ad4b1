// SPDX-License-Identifier: GPL-2.0

//! Finds what a physical function does for a virtual one.
//!
//! Whoever asks has a virtual function. What its physical function is bound to, if anything, is
//! not looked at: this list has those that are bound to this driver, and nothing else is used.

use super::Admin;
use crate::kernel_ext::pci_iov::{
    Function,
    Place, //
};

use kernel::{
    device::Bound,
    pci,
    prelude::*,
    sync::Arc, //
};

kernel::sync::global_lock! {
    // SAFETY: `init` is called by the module before it registers its driver and before others can
    // call its functions.
    unsafe(uninit) static OWNERS: Mutex<KVec<(Place, Arc<Admin>)>> = KVec::new();
}

/// Prepares the list.
///
/// # Safety
///
/// Must be called once, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: By the requirements above.
    unsafe { OWNERS.init() };
}

/// Keeps a device in the list as long as it exists.
pub(crate) struct Listed(Place);

impl Listed {
    /// Puts a device into the list.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(crate) fn new(pci: &pci::Device<Bound>, admin: Arc<Admin>) -> Result<Self> {
        let place = Place::of(pci);

        OWNERS.lock().push((place, admin), GFP_KERNEL)?;
        Ok(Self(place))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut owners = OWNERS.lock();

        owners.retain(|(place, _)| *place != self.0);
        if owners.is_empty() {
            *owners = KVec::new();
        }
    }
}

/// What the physical function of a virtual one does for it, if it is bound to this driver.
///
/// # Context
///
/// May sleep.
pub(crate) fn find(function: &Function<'_>) -> Option<Arc<Admin>> {
    let owner = Place::of(function.owner());
    let owners = OWNERS.lock();

    owners
        .iter()
        .find(|(place, _)| *place == owner)
        .map(|(_, admin)| admin.clone())
}
