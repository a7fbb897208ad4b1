// SPDX-License-Identifier: GPL-2.0

//! System sleep: the device loses its state, or is another one when the machine wakes.

#![deny(unsafe_code)]

use super::{
    platform::{
        Bound,
        MmioDriver, //
    },
    regs, //
};
use crate::kernel_ext::platform_driver::SleepDriver;

use core::pin::Pin;
use kernel::{
    dev_err,
    device,
    platform,
    prelude::*, //
};

impl SleepDriver for MmioDriver {
    fn freeze(_dev: &platform::Device<device::Bound>, data: Pin<&Bound<'_>>) -> Result {
        data.registration.freeze()
    }

    fn restore(dev: &platform::Device<device::Bound>, data: Pin<&Bound<'_>>) -> Result {
        let device = data.registration.transport();

        if device.window.read(regs::DeviceId) != data.identity.device {
            dev_err!(dev, "another device than before, or none\n");
            return Err(ENODEV);
        }
        device.window.set_page_size(device.version);
        data.registration.restore()
    }
}
