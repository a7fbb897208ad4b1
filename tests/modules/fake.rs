// SPDX-License-Identifier: GPL-2.0

//! What devices without hardware have in common.

use crate::virtio::bindings::{
    self,
    device,
    virtio_config_ops,
    virtio_device, //
};

use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

/// A table that is only read.
#[repr(transparent)]
pub(crate) struct Table<T>(pub(crate) T);

// SAFETY: Nobody writes to it.
unsafe impl<T> Sync for Table<T> {}

/// Makes a device of type `id`, not registered yet, below a root device called `name`.
///
/// `release` must call [`free`]; the root device is to be unregistered when the device is gone.
///
/// # Errors
///
/// `ENOMEM`, `EEXIST`.
pub(crate) fn new(
    module: &'static ThisModule,
    name: &'static CStr,
    id: u32,
    ops: &'static Table<virtio_config_ops>,
    release: unsafe extern "C" fn(*mut device),
) -> Result<(*mut device, *mut virtio_device)> {
    let mut vdev: virtio_device = pin_init::zeroed();
    // SAFETY: The name is NUL-terminated, the module is the one that is loaded.
    let parent = from_err_ptr(unsafe {
        bindings::__root_device_register(name.as_char_ptr(), module.as_ptr())
    })?;

    vdev.dev.parent = parent;
    vdev.dev.release = Some(release);
    vdev.id.device = id;
    vdev.id.vendor = 0xcafe;
    vdev.config = &raw const ops.0;
    Ok((parent, KBox::into_raw(KBox::new(vdev, GFP_KERNEL)?)))
}

/// Frees a device.
///
/// # Safety
///
/// It is one that [`new`] made, and nobody uses it any more.
pub(crate) unsafe fn free(dev: *mut device) {
    // SAFETY: By the safety requirements.
    let vdev = unsafe { kernel::container_of!(dev, virtio_device, dev) };
    // SAFETY: It was leaked by `new`.
    drop(unsafe { KBox::from_raw(vdev) });
}
