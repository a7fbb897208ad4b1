// SPDX-License-Identifier: GPL-2.0

//! A device that refuses one step of a sleep transition.
//!
//! `insmod pm_veto.ko step=<n>`: 1 refuses `freeze`, 2 `freeze_noirq`, 3 `poweroff`, 4
//! `poweroff_noirq`. Devices are frozen in the reverse order of their registration, so this one
//! refuses `freeze` before the devices that are older than it were asked at all.

use core::{
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*,
    types::Opaque, //
};

module! {
    type: PmVeto,
    name: "pm_veto",
    authors: ["The virtio-rust developers"],
    description: "Refuses a step of a sleep transition",
    license: "GPL",
    params: {
        step: u8 {
            default: 1,
            description: "1 freeze, 2 freeze_noirq, 3 poweroff, 4 poweroff_noirq",
        },
    },
}

/// The device, and the PM domain whose callbacks take the place of the (missing) ones of a driver.
struct PmVeto {
    device: NonNull<bindings::device>,
    _domain: Pin<KBox<Opaque<bindings::dev_pm_domain>>>,
}

// SAFETY: The device and the domain are only written when the module is loaded and removed.
unsafe impl Send for PmVeto {}

// SAFETY: As above.
unsafe impl Sync for PmVeto {}

/// The veto.
///
/// # Safety
///
/// None needed: the device is not looked at.
unsafe extern "C" fn refuse(_dev: *mut bindings::device) -> c_int {
    EBUSY.to_errno()
}

impl kernel::Module for PmVeto {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let mut ops: bindings::dev_pm_ops = pin_init::zeroed();
        match module_parameters::step.value() {
            1 => ops.freeze = Some(refuse),
            2 => ops.freeze_noirq = Some(refuse),
            3 => ops.poweroff = Some(refuse),
            4 => ops.poweroff_noirq = Some(refuse),
            _ => return Err(EINVAL),
        }
        let domain = KBox::pin(Opaque::<bindings::dev_pm_domain>::zeroed(), GFP_KERNEL)?;
        // SAFETY: Nobody else knows the domain yet.
        unsafe { (*domain.get()).ops = ops };

        // SAFETY: The name is NUL-terminated, the module is this one.
        let device = from_err_ptr(unsafe {
            bindings::__root_device_register(c"pm_veto".as_char_ptr(), module.as_ptr())
        })?;
        // SAFETY: The device was registered just now; the domain outlives the pointer to it, which
        // goes away with the device.
        unsafe {
            (*device).pm_domain = domain.get();
            (*device).power.set_no_pm_callbacks(false);
        }
        Ok(Self {
            device: NonNull::new(device).ok_or(ENOMEM)?,
            _domain: domain,
        })
    }
}

impl Drop for PmVeto {
    fn drop(&mut self) {
        // SAFETY: The device was registered by `init`.
        unsafe { bindings::root_device_unregister(self.device.as_ptr()) };
    }
}
