// SPDX-License-Identifier: GPL-2.0

//! What the kernel crate's `platform::Device` lacks: the device's name, and register windows.
//!
//! `kernel::io::mem::IoMem` names the range in `/proc/iomem` otherwise than C drivers do and gives
//! no more than the resource; [`ioremap_resource`] is `devm_platform_ioremap_resource()`. C header:
//! `include/linux/platform_device.h`.

use kernel::{
    bindings,
    device::Bound,
    error::from_err_ptr,
    io::{
        Mmio,
        MmioRaw,
        Region, //
    },
    page::PAGE_SIZE,
    platform,
    prelude::*, //
};

/// Claims and maps memory resource `index` of a device until its driver is unbound.
///
/// The window ends with the resource. If that has no more than `SIZE` bytes, it ends with the
/// page, for device trees and command lines that name only the first registers of a device.
///
/// # Errors
///
/// `EINVAL` if there is no such resource, if it is shorter than `SIZE`, or not aligned to 4 bytes;
/// `EBUSY` if something else has it; `ENOMEM`. All but a short one have been logged.
///
/// # Context
///
/// May sleep.
pub fn ioremap_resource<const SIZE: usize>(
    dev: &platform::Device<Bound>,
    index: u32,
) -> Result<Mmio<'_, Region<SIZE>>> {
    // CAST: `platform::Device` is a transparent wrapper.
    let raw = core::ptr::from_ref(dev).cast_mut().cast();
    // SAFETY: The device is bound, hence valid.
    let base = from_err_ptr(unsafe { bindings::devm_platform_ioremap_resource(raw, index) })?;
    let resource = dev.resource_by_index(index).ok_or(EINVAL)?;
    let length = usize::try_from(resource.size())?;
    let end = base.addr().checked_add(length).ok_or(EINVAL)?;
    let end = match length <= SIZE {
        true => end.next_multiple_of(PAGE_SIZE),
        false => end & !3,
    };
    let window = MmioRaw::new_region(base.addr(), end - base.addr())?;

    // SAFETY: Whole pages are mapped, so up to `end`, until the driver is unbound, which is not
    // before the borrow of a bound device ends.
    Ok(unsafe { Mmio::from_raw(window) })
}

/// The device's name without its number.
pub fn name(dev: &platform::Device<Bound>) -> &CStr {
    // CAST: `platform::Device` is a transparent wrapper.
    let raw = core::ptr::from_ref(dev).cast::<bindings::platform_device>();

    // SAFETY: The device is bound, hence valid, and keeps its name.
    unsafe { CStr::from_char_ptr((*raw).name) }
}
