// SPDX-License-Identifier: GPL-2.0

//! `CONFIG_VIRTIO_DEBUG`: files in debugfs that show and filter the features of each device. The
//! kernel has them built in; here they are only told when. Without that option nothing happens.

use super::device::VirtioDevice;
#[cfg(CONFIG_VIRTIO_DEBUG)]
use crate::virtio::bindings;

/// The folder of all devices; dropping it removes it.
pub(super) struct Folder(());

impl Folder {
    /// Makes the folder.
    pub(super) fn new() -> Self {
        // SAFETY: There is no folder yet: the module makes one only.
        #[cfg(CONFIG_VIRTIO_DEBUG)]
        unsafe {
            bindings::virtio_debug_init()
        };
        Self(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // SAFETY: `new` made the folder.
        #[cfg(CONFIG_VIRTIO_DEBUG)]
        unsafe {
            bindings::virtio_debug_exit()
        };
    }
}

/// Makes the files of a device that is about to be registered.
pub(super) fn add(_device: &VirtioDevice) {
    // SAFETY: A valid device that has a name.
    #[cfg(CONFIG_VIRTIO_DEBUG)]
    unsafe {
        bindings::virtio_debug_device_init(_device.as_raw())
    };
}

/// Removes the files of a device.
pub(super) fn remove(_device: &VirtioDevice) {
    // SAFETY: `add` made them.
    #[cfg(CONFIG_VIRTIO_DEBUG)]
    unsafe {
        bindings::virtio_debug_device_exit(_device.as_raw())
    };
}

/// Takes away the features under consideration that somebody filters.
pub(super) fn filter_features(_device: &VirtioDevice) {
    // SAFETY: A valid device in probe, when nobody else uses its features.
    #[cfg(CONFIG_VIRTIO_DEBUG)]
    unsafe {
        bindings::virtio_debug_device_filter_features(_device.as_raw())
    };
}
