// SPDX-License-Identifier: GPL-2.0

//! The platform driver: devices of the device tree, of ACPI, and of the command line.

use super::{
    regs,
    transport::{
        Version,
        VirtioDevice, //
    },
    window::Window, //
};
use crate::{
    kernel_ext,
    virtio::transport::{
        Identity,
        Registration, //
    },
};

use kernel::{
    acpi,
    dev_err,
    dev_warn,
    device::Core,
    dma::{
        Device as _,
        DmaMask, //
    },
    driver,
    of,
    page::PAGE_SHIFT,
    platform,
    prelude::*,
    ThisModule, //
};

/// How far a legacy device can reach: it has 32 bits for the number of a page.
const LEGACY_MASK: DmaMask = DmaMask::new::<{ 32 + PAGE_SHIFT as u32 }>();

kernel::of_device_table!(
    OF_TABLE,
    <MmioDriver as platform::Driver>::IdInfo,
    [(of::DeviceId::new(c"virtio,mmio"), ())]
);

kernel::acpi_device_table!(
    ACPI_TABLE,
    <MmioDriver as platform::Driver>::IdInfo,
    [(acpi::DeviceId::new(c"LNRO0005"), ())]
);

/// The driver of devices on the platform bus.
pub(super) struct MmioDriver;

/// What a bound device carries.
pub(super) struct Bound<'bound> {
    // Without system sleep it is only dropped.
    #[cfg_attr(not(CONFIG_PM_SLEEP), expect(dead_code))]
    pub(super) registration: Registration<'bound, VirtioDevice<'bound>>,
    /// What the device was when it was found.
    #[cfg(CONFIG_PM_SLEEP)]
    pub(super) identity: Identity,
}

impl platform::Driver for MmioDriver {
    type IdInfo = ();
    type Data<'bound> = Bound<'bound>;
    const OF_ID_TABLE: Option<of::IdTable<()>> = Some(&OF_TABLE);
    const ACPI_ID_TABLE: Option<acpi::IdTable<()>> = Some(&ACPI_TABLE);

    fn probe<'bound>(
        pdev: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<Bound<'bound>, Error> + 'bound {
        bind(pdev)
    }
}

/// Looks at a device and puts it on the virtio bus (Virtio 1.4, 4.2.3.1).
fn bind<'bound>(pdev: &'bound platform::Device<Core<'_>>) -> Result<Bound<'bound>> {
    let window = Window::new(kernel_ext::platform::ioremap_resource(pdev, 0)?);
    let magic = window.read(regs::MagicValue);

    if magic != regs::MAGIC {
        dev_warn!(pdev, "Wrong magic value {:#010x}!\n", magic);
        return Err(ENODEV);
    }
    let version = window.read(regs::Version);
    let Some(version) = Version::of(version) else {
        dev_err!(pdev, "Version {} not supported!\n", version);
        return Err(ENXIO);
    };
    let device = window.read(regs::DeviceId);

    // A place where a device could be, but is not.
    if device == 0 {
        return Err(ENODEV);
    }
    let identity = Identity {
        device,
        vendor: window.read(regs::VendorId),
    };

    set_dma_masks(pdev, version);
    let device = VirtioDevice::new(pdev, window, version);

    window.set_page_size(version);
    // SAFETY: The driver core drops it when the driver is unbound.
    let registration = unsafe { Registration::new(pdev.as_ref(), identity, device) }?;

    Ok(Bound {
        registration,
        #[cfg(CONFIG_PM_SLEEP)]
        identity,
    })
}

/// Says how far the device can reach.
fn set_dma_masks(pdev: &platform::Device<Core<'_>>, version: Version) {
    let coherent = match version {
        Version::Legacy => LEGACY_MASK,
        _ => DmaMask::new::<64>(),
    };
    // SAFETY: Nothing has been allocated or mapped for the device yet.
    let set = unsafe { pdev.dma_set_mask(DmaMask::new::<64>()) }.and_then(|()| {
        // SAFETY: As above.
        let set = unsafe { pdev.dma_set_coherent_mask(coherent) };

        // Queues that are too far away for a legacy device are refused later.
        match version {
            Version::Legacy => Ok(()),
            _ => set,
        }
    });
    // SAFETY: As above.
    let set = set.or_else(|_| unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<32>()) });

    if set.is_err() {
        dev_warn!(
            pdev,
            "Failed to enable 64-bit or 32-bit DMA.  Trying to continue, but this might not work.\n"
        );
    }
}

#[cfg(CONFIG_PM_SLEEP)]
type Adapter = kernel_ext::platform_driver::Adapter<MmioDriver>;
#[cfg(not(CONFIG_PM_SLEEP))]
type Adapter = platform::Adapter<MmioDriver>;

/// The module itself. The driver goes before the devices that were made for it.
#[pin_data]
pub(crate) struct VirtioMmio {
    #[pin]
    driver: driver::Registration<Adapter>,
    #[cfg(CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES)]
    devices: super::devices::Cleanup,
}

impl kernel::InPlaceModule for VirtioMmio {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            #[cfg(CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES)]
            devices: super::devices::Cleanup::new(module),
            driver <- driver::Registration::new(c"virtio-mmio", module),
        }? Error)
    }
}
