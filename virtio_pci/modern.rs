// SPDX-License-Identifier: GPL-2.0

//! The modern interface of a device (Virtio 1.4, 4.1.4): status, features, queues.

use super::{
    caps::{
        Kind,
        Need, //
    },
    common::Common,
    interface::Interface,
    regs,
    shared::{
        self,
        INTERVAL, //
    },
    space::Space,
    structures::{
        self,
        Capabilities,
        Notifications, //
    },
    vectors, //
};
use crate::{
    config::{
        self,
        Features, //
    },
    kernel_ext::{
        pci_cap,
        pci_io::{
            Mapping,
            Regions,
            Register, //
        }, //
    },
    virtio::{
        transport::{
            ring::{
                Ring,
                Shape,
                Virtqueue,
                Wish, //
            },
            Device,
            Identity,
            SharedMemory, //
        }, //
    },
};

use kernel::{
    bindings,
    dev_err,
    dev_info,
    device::{
        Bound,
        Core, //
    },
    dma::DmaMask,
    io::poll::read_poll_timeout,
    pci,
    prelude::*,
    time::Delta, //
};

/// `VIRTIO_F_RING_PACKED`: queues have any number of descriptors (Virtio 1.4, 6).
const RING_PACKED: config::FeatureBit = 34;

/// `VIRTIO_F_SR_IOV`: the device can have virtual functions (Virtio 1.4, 6).
pub(super) const SR_IOV: config::FeatureBit = 37;

/// `VIRTIO_F_NOTIFICATION_DATA`: notifications have 32 bits (Virtio 1.4, 6).
const NOTIFICATION_DATA: config::FeatureBit = 38;

/// `VIRTIO_F_RING_RESET`: queues can be reset one by one (Virtio 1.4, 6).
pub(super) const RING_RESET: config::FeatureBit = 40;

/// `VIRTIO_F_ADMIN_VQ`: there are queues for administration (Virtio 1.4, 6).
const ADMIN_VQ: config::FeatureBit = 41;

/// `DRIVER_OK` of the device status (Virtio 1.4, 2.1): the device may use its queues.
pub(super) const DRIVER_OK: u8 = 4;

/// How long a device may take to give a queue back.
const QUEUE_PATIENCE: Delta = Delta::from_millis(1000);

/// Where parts of a ring begin, in bytes: cache lines.
const ALIGN: usize = 1 << bindings::L1_CACHE_SHIFT;

/// The PCI ids of virtio devices; from [`MODERN_IDS`] on they say the type of the device.
const IDS: core::ops::RangeInclusive<u16> = 0x1000..=0x107f;
const MODERN_IDS: u16 = 0x1040;

/// The structures that every device must have.
const COMMON: Need = Need {
    kind: Kind::Common,
    min: regs::COMMON as u64,
    align: 4,
};
const ISR: Need = Need {
    kind: Kind::Isr,
    min: 1,
    align: 1,
};
const NOTIFY: Need = Need {
    kind: Kind::Notify,
    min: 2,
    align: 2,
};

/// The one of those that have a configuration space.
const DEVICE: Need = Need {
    kind: Kind::Device,
    min: 1,
    align: 4,
};

/// The modern interface of a device.
pub(super) struct Modern<'bound> {
    pub(super) pci: &'bound pci::Device<Bound>,
    identity: Identity,
    pub(super) common: Common<'bound>,
    isr: Mapping<'bound>,
    notifications: Notifications<'bound>,
    space: Option<Space<'bound>>,
}

impl<'bound> Modern<'bound> {
    /// Looks for the interface in a device that is enabled, and says how far the device can reach.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device has none; `EINVAL` if it makes no sense; `EBUSY` if something else
    /// has its BARs; `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn new(pci: &'bound pci::Device<Core<'_>>) -> Result<Self> {
        let identity = identity(pci)?;
        let capabilities = Capabilities::new(pci)?;
        let Some((common, _)) = capabilities.find(COMMON)? else {
            dev_info!(pci, "virtio_pci: leaving for legacy driver\n");
            return Err(ENODEV);
        };
        let (notify, multiplier) = capabilities.required(NOTIFY)?;
        let (isr, _) = capabilities.required(ISR)?;

        shared::set_dma_masks(pci, DmaMask::new::<64>());
        let device = capabilities.find(DEVICE)?.map(|(place, _)| place);
        let bars = [Some(common), Some(isr), Some(notify), device];
        let bars = bars
            .iter()
            .flatten()
            .fold(0, |bars, place| bars | 1 << place.bar);
        let regions = Regions::new(pci, bars, c"virtio-pci-modern")?;

        Ok(Self {
            pci,
            identity,
            common: Common::new(structures::map(pci, &regions, common, regs::ALL_KNOWN)?),
            isr: structures::map(pci, &regions, isr, 1)?,
            notifications: Notifications::new(pci, &regions, notify, multiplier)?,
            space: match device {
                Some(place) => Some(Space::new(pci, &regions, place)?),
                None => None,
            },
        })
    }

    /// Waits until a register of the selected queue reads 0.
    fn wait_for_zero(&self, read: impl FnMut() -> Result<u16>) -> Result {
        read_poll_timeout(read, |left| *left == 0, INTERVAL, QUEUE_PATIENCE)?;
        Ok(())
    }

    /// Selects a queue for the registers that are about one.
    fn select(&self, index: u32) -> Result {
        self.common
            .write(regs::QueueSelect, u16::try_from(index).map_err(|_| ENOENT)?);
        Ok(())
    }

    /// Logs that negotiated features need more common configuration than there is.
    fn too_short(&self, dev: &Device, feature: &str) -> Error {
        dev_err!(
            dev,
            "virtio: common cfg size({}) does not match the feature {}\n",
            self.common.length(),
            feature
        );
        EINVAL
    }
}

/// What kind of device has this PCI id (Virtio 1.4, 4.1.2).
fn identity(pci: &pci::Device) -> Result<Identity> {
    let id = pci.device_id();

    if !IDS.contains(&id) {
        return Err(ENODEV);
    }
    Ok(Identity {
        device: match id.checked_sub(MODERN_IDS) {
            Some(device) => device.into(),
            None => pci.subsystem_device_id().into(),
        },
        vendor: pci.subsystem_vendor_id().into(),
    })
}

impl<'bound> Interface for Modern<'bound> {
    type Bell = Register<'bound>;

    fn identity(&self) -> Identity {
        self.identity
    }

    fn has_config(&self) -> bool {
        self.space.is_some()
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> Result {
        self.space.as_ref().ok_or(EINVAL)?.read(offset, bytes)
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) -> Result {
        self.space.as_ref().ok_or(EINVAL)?.write(offset, bytes)
    }

    fn generation(&self) -> u32 {
        self.common.read(regs::ConfigGeneration).into()
    }

    fn status(&self) -> u8 {
        self.common.read(regs::Status)
    }

    fn set_status(&self, status: u8) {
        self.common.write(regs::Status, status);
    }

    fn begin_reset(&self) {
        self.common.write(regs::Status, 0);
    }

    fn offered_features(&self) -> Features {
        let words = core::array::from_fn(|half: usize| {
            // CAST: There are two halves.
            let select = 2 * half as u32;
            let [low, high] = [select, select + 1].map(|select| {
                self.common.write(regs::DeviceFeatureSelect, select);
                u64::from(self.common.read(regs::DeviceFeature))
            });

            high << 32 | low
        });

        Features::from_words(words)
    }

    fn own_features(&self) -> Features {
        let own = Features::of(&[RING_RESET, ADMIN_VQ]);

        match pci_cap::has_extended(self.pci, bindings::PCI_EXT_CAP_ID_SRIOV) {
            true => own.union(Features::of(&[SR_IOV])),
            false => own,
        }
    }

    fn accept_features(&self, dev: &Device, features: Features) -> Result {
        if !features.has(config::VERSION_1) {
            dev_err!(
                dev,
                "virtio: device uses modern interface but does not have VIRTIO_F_VERSION_1\n"
            );
            return Err(EINVAL);
        }
        if features.has(RING_RESET) && !self.common.has(regs::QueueReset) {
            return Err(self.too_short(dev, "VIRTIO_F_RING_RESET"));
        }
        if features.has(ADMIN_VQ) && !self.common.has(regs::AdminQueueNum) {
            return Err(self.too_short(dev, "VIRTIO_F_ADMIN_VQ"));
        }
        for (select, word) in (0..).step_by(2).zip(features.words()) {
            self.common.write(regs::DriverFeatureSelect, select);
            // CAST: The low half.
            self.common.write(regs::DriverFeature, word as u32);
            self.common.write(regs::DriverFeatureSelect, select + 1);
            // CAST: The high half.
            self.common.write(regs::DriverFeature, (word >> 32) as u32);
        }
        Ok(())
    }

    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        Capabilities::new(self.pci).ok()?.shared_memory(id)
    }

    fn interrupt_status(&self) -> u8 {
        // It has the byte: it was mapped.
        self.isr.get8(0).unwrap_or(0)
    }

    fn msix_changed(&self, _enabled: bool) {}

    fn set_config_vector(&self, vector: u16) -> u16 {
        self.common.write(regs::ConfigVector, vector);
        self.common.read(regs::ConfigVector)
    }

    fn make_ring(&self, index: u32, wish: &Wish<'_>) -> Result<Ring<Self::Bell>> {
        let dev = wish.device();
        let is_admin = || self.admin_queue(dev) == Ok(u16::try_from(index).ok());
        let exists = index < self.common.read(regs::NumQueues).into() || is_admin();

        self.select(index)?;
        let size = match exists {
            true => self.common.read(regs::QueueSize),
            false => 0,
        };
        let size = shared::queue_size(self.pci, index, size, !dev.has(RING_PACKED), || {
            self.common.read(regs::QueueEnable) != 0
        })?;
        let offset = self.common.read(regs::QueueNotifyOff);
        let width = match dev.has(NOTIFICATION_DATA) {
            true => 4,
            false => 2,
        };
        let bell = self.notifications.register(index, offset, width)?;
        let shape = Shape {
            size,
            align: ALIGN,
            may_shrink: true,
        };

        Ring::with_bell(index, shape, wish, bell)
    }

    fn describe(&self, queue: &Virtqueue, vector: u16) -> Result {
        let common = &self.common;

        self.select(queue.index())?;
        common.write(regs::QueueSize, u16::try_from(queue.size())?);
        common.write_halves(regs::QueueDescLow, regs::QueueDescHigh, queue.descriptors());
        common.write_halves(
            regs::QueueDriverLow,
            regs::QueueDriverHigh,
            queue.driver_area(),
        );
        common.write_halves(
            regs::QueueDeviceLow,
            regs::QueueDeviceHigh,
            queue.device_area(),
        );
        if vector != vectors::NONE {
            common.write(regs::QueueVector, vector);
            if common.read(regs::QueueVector) == vectors::NONE {
                return Err(EBUSY);
            }
        }
        Ok(())
    }

    fn enable(&self, queue: &Virtqueue) {
        if self.select(queue.index()).is_ok() {
            self.common.write(regs::QueueEnable, 1);
        }
    }

    fn retire(&self, queue: &Virtqueue, msix: bool) -> bool {
        if msix && self.select(queue.index()).is_ok() {
            self.common.write(regs::QueueVector, vectors::NONE);
            // The write has arrived when this is read.
            self.common.read(regs::QueueVector);
        }
        true
    }

    fn reset_queue(&self, dev: &Device, queue: &Virtqueue) -> Result {
        if !dev.has(RING_RESET) {
            return Err(ENOENT);
        }
        self.select(queue.index())?;
        self.common.try_write(regs::QueueReset, 1)?;
        self.wait_for_zero(|| self.common.try_read(regs::QueueReset))
            .and_then(|()| self.wait_for_zero(|| Ok(self.common.read(regs::QueueEnable))))
            .map_err(|_| {
                dev_err!(
                    self.pci,
                    "the device does not reset queue {}\n",
                    queue.index()
                );
                EIO
            })
    }

    fn is_queue_reset(&self, queue: &Virtqueue) -> bool {
        self.select(queue.index()).is_ok()
            && self.common.try_read(regs::QueueReset) == Ok(0)
            && self.common.read(regs::QueueEnable) == 0
    }

    fn admin_queue(&self, dev: &Device) -> Result<Option<u16>> {
        if !dev.has(ADMIN_VQ) {
            return Ok(None);
        }
        let count = self.common.try_read(regs::AdminQueueNum)?;
        let index = self.common.try_read(regs::AdminQueueIndex)?;

        if count == 0 || index < self.common.read(regs::NumQueues) {
            dev_err!(
                self.pci,
                "virtio_pci: {} queues for administration from {} on make no sense\n",
                count,
                index
            );
            return Err(EINVAL);
        }
        Ok(Some(index))
    }
}
