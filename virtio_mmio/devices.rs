// SPDX-License-Identifier: GPL-2.0

//! The devices of the parameter `device=`.
//!
//! They are made while parameters are read, which is before the module is initialised, and so
//! before there is a driver for them. When a value is bad a loadable module is not initialised at
//! all: then the devices made so far go at once.

use super::cmdline::{
    self,
    Spec, //
};
use crate::kernel_ext::{
    module_param::{
        module_parameter,
        Page,
        Parameter, //
    },
    platform_device::{
        Parts,
        PlatformDevice,
        RootDevice, //
    }, //
};

use kernel::{
    prelude::*,
    ThisModule, //
};

module_parameter! {
    /// `device=<size>@<base>:<irq>[:<id>]`, as often as there are devices.
    DEVICES: Devices = Devices::NONE, c"device", c"virtio_mmio.device"
}

/// A device, and what it was made of.
struct Device {
    parts: Parts,
    registered: PlatformDevice,
}

/// The devices made so far, which go before their parent.
struct Devices {
    devices: KVec<Device>,
    parent: Option<RootDevice>,
    /// The id of the next device that has none of its own.
    next: i32,
}

impl Devices {
    const NONE: Self = Self {
        devices: KVec::new(),
        parent: None,
        next: 0,
    };

    fn add(&mut self, value: &CStr) -> Result {
        let spec = cmdline::parse(value.to_bytes()).map_err(|mistake| {
            pr_err!("device={}: {}\n", value, mistake.text());
            EINVAL
        })?;
        let parts = parts(spec)?;
        let id = spec.id.unwrap_or(self.next);

        // As in the C driver, whatever becomes of the device.
        self.next = id.wrapping_add(1);
        let parent = match self.parent.take() {
            Some(parent) => parent,
            None => RootDevice::new(c"virtio-mmio-cmdline")
                .inspect_err(|_| pr_err!("Failed to register parent device!\n"))?,
        };
        let parent = self.parent.insert(parent);

        self.devices.reserve(1, GFP_KERNEL)?;
        pr_info!(
            "Registering device virtio-mmio.{} at {:#x}-{:#x}, IRQ {}.\n",
            id,
            spec.base,
            spec.base + (spec.size - 1),
            spec.irq
        );
        let registered = PlatformDevice::new(parent, c"virtio-mmio", id, parts)
            .inspect_err(|error| pr_err!("device={}: {:?}\n", value, error))?;

        self.devices
            .push(Device { parts, registered }, GFP_KERNEL)?;
        Ok(())
    }
}

/// What a device is made of, if this machine has such addresses.
#[allow(
    clippy::useless_conversion,
    reason = "physical addresses may have 32 bits"
)]
fn parts(spec: Spec) -> Result<Parts> {
    Ok(Parts {
        start: spec.base.try_into()?,
        size: spec.size.try_into()?,
        irq: spec.irq,
    })
}

impl Parameter for Devices {
    fn set(&mut self, value: &CStr) -> Result {
        let added = self.add(value);

        if added.is_err() && cfg!(MODULE) {
            *self = Self::NONE;
        }
        added
    }

    fn show(&self, page: &mut Page<'_>) {
        for Device { parts, registered } in &self.devices {
            page.print(fmt!(
                "{:#x}@{:#x}:{}:{}\n",
                parts.size,
                parts.start,
                parts.irq,
                registered.id()
            ));
        }
        // C's driver counts the NUL of its string, so that readers get it.
        page.end();
    }
}

/// Takes the devices away when it is dropped.
pub(super) struct Cleanup(&'static ThisModule);

impl Cleanup {
    /// To be dropped after the driver.
    pub(super) fn new(module: &'static ThisModule) -> Self {
        Self(module)
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let devices = DEVICES.with(self.0, |devices| core::mem::replace(devices, Devices::NONE));

        drop(devices);
    }
}
