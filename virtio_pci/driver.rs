// SPDX-License-Identifier: GPL-2.0

//! The PCI driver: how devices are found, sleep, are reset and go.

#[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
use super::legacy::Legacy;
use super::{
    admin::{
        self,
        Admin,
        Listed, //
    },
    choice::Choice,
    device::VirtioDevice,
    interface::Interface,
    modern::{
        Modern,
        DRIVER_OK,
        SR_IOV, //
    }, //
};
#[cfg(CONFIG_PM_SLEEP)]
use crate::kernel_ext::pci_driver::SleepDriver;
use crate::{
    kernel_ext::{
        pci_device::{
            self,
            Enabled, //
        },
        pci_driver::{
            Adapter,
            FullDriver, //
        },
        pci_iov, //
    },
    virtio::transport::{
        Registration,
        Transport, //
    },
};

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    bindings,
    dev_warn,
    device::{
        self,
        Core, //
    },
    driver,
    new_mutex,
    pci,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    ThisModule, //
};

kernel::pci_device_table!(
    PCI_TABLE,
    <PciDriver as pci::Driver>::IdInfo,
    [(
        // CAST: All bits are set in either width.
        pci::DeviceId::from_id(pci::Vendor::REDHAT_QUMRANET, bindings::PCI_ANY_ID as u32),
        ()
    )]
);

/// The driver of virtio devices on the PCI bus.
pub(super) struct PciDriver;

/// A device on the virtio bus, by the interface that is used.
enum Registered<'bound> {
    Modern(Registration<'bound, VirtioDevice<'bound, Modern<'bound>>>),
    #[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
    Legacy(Registration<'bound, VirtioDevice<'bound, Legacy<'bound>>>),
}

/// Does the same to a device whatever its interface.
macro_rules! with_device {
    ($registered:expr, $device:ident => $do:expr) => {
        match $registered {
            Registered::Modern($device) => $do,
            #[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
            Registered::Legacy($device) => $do,
        }
    };
}

impl<'bound> Registered<'bound> {
    /// Looks for an interface of a device and puts it on the virtio bus.
    fn new(pci: &'bound pci::Device<Core<'_>>, admin: Arc<Admin>) -> Result<Self> {
        let choice = Choice::new(pci)?;

        pci_device::set_master(pci);
        Ok(match choice {
            Choice::Modern(interface) => Self::Modern(register(pci, interface, admin)?),
            #[cfg(CONFIG_VIRTIO_PCI_LEGACY)]
            Choice::Legacy(interface) => Self::Legacy(register(pci, interface, admin)?),
        })
    }

    /// Lets a device that was enabled reach memory, unless it was kept from that: it must reset
    /// first.
    fn reach_memory(&self, pci: &pci::Device<device::Bound>) {
        if !with_device!(self, device => device.is_fenced()) {
            pci_device::set_master(pci);
        }
    }

    /// Tells whether the device may have virtual functions now.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is not live, `EINVAL` if that was not negotiated.
    fn may_have_functions(&self) -> Result {
        with_device!(self, device => {
            if device.transport().status() & DRIVER_OK == 0 {
                return Err(EBUSY);
            }
            match device.virtio() {
                Some(virtio) if virtio.has(SR_IOV) => Ok(()),
                _ => Err(EINVAL),
            }
        })
    }
}

/// Puts a device on the virtio bus.
fn register<'bound, I: Interface + 'bound>(
    pci: &'bound pci::Device<Core<'_>>,
    interface: I,
    admin: Arc<Admin>,
) -> Result<Registration<'bound, VirtioDevice<'bound, I>>> {
    let identity = interface.identity();
    let device = VirtioDevice::new(pci, Arc::new(interface, GFP_KERNEL)?, admin);

    // SAFETY: `unbind` drops it, or else the driver core does when the driver is unbound.
    unsafe { Registration::new(pci.as_ref(), identity, device) }
}

/// What a bound device carries. The device is taken off the virtio bus before it is disabled.
#[pin_data]
pub(super) struct Bound<'bound> {
    /// There until `unbind`. The device's lock serialises its users.
    #[pin]
    registered: Mutex<Option<Registered<'bound>>>,
    /// The virtio driver has given its queues up for a reset that is under way.
    resetting: AtomicBool,
    /// The device said that it keeps its state when it was suspended.
    #[cfg_attr(not(CONFIG_PM_SLEEP), expect(dead_code))]
    keeps_state: AtomicBool,
    _listed: Listed,
    enabled: Enabled<'bound>,
}

#[cfg(CONFIG_PM_SLEEP)]
impl Bound<'_> {
    /// Takes the queues away from a device that is about to lose its state.
    fn freeze(&self) -> Result {
        if let Some(registered) = &*self.registered.lock() {
            with_device!(registered, device => device.freeze())?;
            self.enabled.disable();
        }
        Ok(())
    }

    /// The device is there again.
    fn restore(&self, pci: &pci::Device<device::Bound>) -> Result {
        if let Some(registered) = &*self.registered.lock() {
            self.enabled.enable()?;
            registered.reach_memory(pci);
            with_device!(registered, device => device.restore())?;
        }
        Ok(())
    }
}

impl pci::Driver for PciDriver {
    type IdInfo = ();
    type Data<'bound> = Bound<'bound>;
    const ID_TABLE: pci::IdTable<()> = &PCI_TABLE;

    fn probe<'bound>(
        pci: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<Bound<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let enabled = Enabled::new(pci)?;
            let admin = Admin::new(pci.as_ref())?;
            let listed = Listed::new(pci, admin.clone())?;
            let registered = Registered::new(pci, admin)?;

            Ok(try_pin_init!(Bound {
                registered <- new_mutex!(Some(registered)),
                resetting: AtomicBool::new(false),
                keeps_state: AtomicBool::new(false),
                _listed: listed,
                enabled,
            }? Error))
        })
    }

    fn unbind<'bound>(pci: &'bound pci::Device<Core<'_>>, this: Pin<&Bound<'bound>>) {
        if !pci_device::is_present(pci) {
            if let Some(registered) = &*this.registered.lock() {
                // Drivers of virtual functions may wait for it, too.
                with_device!(registered, device => device.give_up());
            }
        }
        pci_iov::disable(pci);
        let registered = this.registered.lock().take();

        drop(registered);
        this.enabled.disable();
    }
}

#[cfg(CONFIG_PM_SLEEP)]
impl SleepDriver for PciDriver {
    fn suspend(pci: &pci::Device<device::Bound>, data: Pin<&Bound<'_>>) -> Result {
        let keeps = pci_device::keeps_state(pci);

        data.keeps_state.store(keeps, Ordering::Relaxed);
        match keeps {
            true => Ok(()),
            false => data.freeze(),
        }
    }

    fn resume(pci: &pci::Device<device::Bound>, data: Pin<&Bound<'_>>) -> Result {
        // The device may say something else now; what was done to it counts.
        match data.keeps_state.load(Ordering::Relaxed) {
            true => Ok(()),
            false => data.restore(pci),
        }
    }

    fn freeze(_pci: &pci::Device<device::Bound>, data: Pin<&Bound<'_>>) -> Result {
        data.freeze()
    }

    fn restore(pci: &pci::Device<device::Bound>, data: Pin<&Bound<'_>>) -> Result {
        data.restore(pci)
    }
}

impl FullDriver for PciDriver {
    fn prepare_reset(pci: &pci::Device<device::Bound>, data: Pin<&Bound<'_>>) {
        let registered = data.registered.lock();
        let Some(registered) = &*registered else {
            return;
        };

        // Who binds or unbinds a driver has no lock of the PCI device. It would meet one that does
        // not answer.
        // SAFETY: The PCI core calls `finish_reset` next, in the same thread.
        with_device!(registered, device => unsafe { device.lock_driver() });
        // A device that sleeps has no queues.
        if !data.enabled.is_on() {
            return;
        }
        match with_device!(registered, device => device.prepare_reset()) {
            Ok(()) => {
                data.resetting.store(true, Ordering::Relaxed);
                data.enabled.disable();
            }
            Err(EOPNOTSUPP) => (),
            Err(error) => dev_warn!(pci, "Reset prepare failure: {}", error.to_errno()),
        }
    }

    fn finish_reset(pci: &pci::Device<device::Bound>, data: Pin<&Bound<'_>>) {
        let registered = data.registered.lock();
        let Some(registered) = &*registered else {
            return;
        };

        if data.resetting.swap(false, Ordering::Relaxed) {
            let done = data.enabled.enable().and_then(|()| {
                registered.reach_memory(pci);
                with_device!(registered, device => device.finish_reset())
            });

            match done {
                Ok(()) | Err(EOPNOTSUPP) => (),
                Err(error) => dev_warn!(pci, "Reset done failure: {}", error.to_errno()),
            }
        }
        // SAFETY: `prepare_reset` has locked it, in this thread: nobody else has taken the device
        // off the virtio bus meanwhile, since the PCI core keeps this device locked.
        with_device!(registered, device => unsafe { device.unlock_driver() });
    }

    fn set_functions(
        pci: &pci::Device<device::Bound>,
        data: Pin<&Bound<'_>>,
        count: u16,
    ) -> Result<u16> {
        data.registered
            .lock()
            .as_ref()
            .ok_or(ENODEV)?
            .may_have_functions()?;
        if pci_iov::is_any_assigned(pci) {
            return Err(EPERM);
        }
        // Drivers of virtual functions come and go here, and ask this one for services.
        match count {
            0 => pci_iov::disable(pci),
            _ => pci_iov::enable(pci, count)?,
        }
        Ok(count)
    }
}

/// The module itself.
#[pin_data]
pub(crate) struct VirtioPci {
    #[pin]
    driver: driver::Registration<Adapter<PciDriver>>,
}

impl kernel::InPlaceModule for VirtioPci {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: This is called once, before there are devices or others can call the module.
        unsafe { admin::init() };
        try_pin_init!(Self {
            driver <- driver::Registration::new(c"virtio-pci", module),
        }? Error)
    }
}
