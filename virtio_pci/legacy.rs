// SPDX-License-Identifier: GPL-2.0

//! The legacy interface of a device (Virtio 1.4, 4.1.4.10): status, features, queues.
//!
//! Everything is in BAR 0, behind I/O ports as a rule. There are 32 feature bits, so that
//! `VIRTIO_F_VERSION_1` is never among them: driver and ring then use the byte order of the guest.
//! A queue is a range of pages whose size the device alone decides.

#![deny(unsafe_code)]

use super::{
    common::Width,
    interface::Interface,
    legacy_regs as regs,
    regs::{
        Readable,
        Register as _,
        Writable, //
    },
    shared,
    vectors, //
};
use crate::{
    config::Features,
    kernel_ext::{
        pci_device,
        pci_io::{
            self,
            Mapping,
            Regions,
            Register, //
        }, //
    },
    virtio::transport::{
        ring::{
            Ring,
            Shape,
            Virtqueue,
            Wish, //
        },
        Device,
        Identity,
        SharedMemory, //
    },
};

use core::{
    ops::RangeInclusive,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};
use kernel::{
    dev_err,
    device::{
        Bound,
        Core, //
    },
    dma::DmaMask,
    page::PAGE_SIZE,
    pci,
    prelude::*,
    sync::Arc, //
};

/// The PCI ids of devices that can have this interface (Virtio 1.4, 4.1.2.3).
const IDS: RangeInclusive<u16> = 0x1000..=0x103f;

/// The PCI revision of devices that have it.
const REVISION: u8 = 0;

/// Where the registers are.
const BAR: u8 = 0;

/// The device knows queues by pages of `1 << PAGE_BITS` bytes, with numbers of 32 bits.
const PAGE_BITS: u32 = 12;

/// Where the used ring begins, in bytes.
const ALIGN: usize = 1 << PAGE_BITS;

/// The registers of a device.
type Registers<'bound> = Mapping<'bound, { regs::ALL_REGISTERS }>;

/// The legacy interface of a device.
pub(super) struct Legacy<'bound> {
    pci: &'bound pci::Device<Bound>,
    identity: Identity,
    /// The registers, and the device configuration space behind them.
    registers: Arc<Registers<'bound>>,
    /// MSI-X is enabled.
    msix: AtomicBool,
}

impl<'bound> Legacy<'bound> {
    /// Looks for the interface in a device that is enabled, and says how far the device can reach.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device has none; `EINVAL` if its BAR is too short; `EBUSY` if something
    /// else has that; `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn new(pci: &'bound pci::Device<Core<'_>>) -> Result<Self> {
        let length = pci_io::bar_len(pci, BAR);

        if !IDS.contains(&pci.device_id()) || length == 0 {
            return Err(ENODEV);
        }
        if pci.revision_id() != REVISION {
            dev_err!(
                pci,
                "virtio_pci: revision {} has no legacy interface\n",
                pci.revision_id()
            );
            return Err(ENODEV);
        }
        shared::set_dma_masks(pci, DmaMask::new::<{ u32::BITS + PAGE_BITS }>());

        let regions = Regions::new(pci, 1 << BAR, c"virtio-pci-legacy")?;
        // More than a page is more than any device has.
        let mapped = usize::try_from(length).map_or(PAGE_SIZE, |length| length.min(PAGE_SIZE));
        let registers = Mapping::new(&regions, BAR, 0, mapped).inspect_err(|_| {
            dev_err!(
                pci,
                "virtio_pci: unable to map the legacy interface in {} bytes on bar {}\n",
                length,
                BAR
            );
        })?;

        Ok(Self {
            pci,
            identity: Identity {
                device: pci.subsystem_device_id().into(),
                vendor: pci.subsystem_vendor_id().into(),
            },
            registers: Arc::new(registers, GFP_KERNEL)?,
            msix: AtomicBool::new(false),
        })
    }

    /// Reads a register.
    fn read<R>(&self, _register: R) -> R::Value
    where
        R: regs::Legacy + Readable,
        R::Value: Width,
    {
        R::Value::read(&self.registers, R::OFFSET)
    }

    /// Writes a register.
    fn write<R>(&self, _register: R, value: R::Value)
    where
        R: regs::Legacy + Writable,
        R::Value: Width,
    {
        value.write(&self.registers, R::OFFSET);
    }

    /// Selects a queue for the registers that are about one.
    fn select(&self, index: u32) -> Result {
        self.write(regs::QueueSelect, u16::try_from(index)?);
        Ok(())
    }

    /// Where the byte at `offset` of the device configuration space is.
    fn config(&self, offset: usize) -> Result<usize> {
        let start = regs::config(self.msix.load(Ordering::Relaxed));

        start.checked_add(offset).ok_or(EINVAL)
    }
}

/// The number of a queue's first page.
///
/// # Errors
///
/// `E2BIG` if the device cannot be told.
fn page_number(queue: &Virtqueue) -> Result<u32> {
    u32::try_from(queue.descriptors() >> PAGE_BITS).map_err(|_| E2BIG)
}

impl<'bound> Interface for Legacy<'bound> {
    type Bell = Register<'bound, { regs::ALL_REGISTERS }>;

    fn identity(&self) -> Identity {
        self.identity
    }

    fn has_config(&self) -> bool {
        true
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> Result {
        for (byte, place) in bytes.iter_mut().zip(self.config(offset)?..) {
            *byte = self.registers.get8(place)?;
        }
        Ok(())
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) -> Result {
        for (byte, place) in bytes.iter().zip(self.config(offset)?..) {
            self.registers.put8(*byte, place)?;
        }
        Ok(())
    }

    fn generation(&self) -> u32 {
        0
    }

    fn status(&self) -> u8 {
        self.read(regs::Status)
    }

    fn set_status(&self, status: u8) {
        self.write(regs::Status, status);
    }

    fn begin_reset(&self) {
        // When the status is read the write has arrived, and so have interrupts sent before.
        self.write(regs::Status, 0);
    }

    fn offered_features(&self) -> Features {
        Features::from_words([self.read(regs::DeviceFeatures).into(), 0])
    }

    fn own_features(&self) -> Features {
        Features::EMPTY
    }

    fn accept_features(&self, dev: &Device, features: Features) -> Result {
        let [word, _] = features.words();
        let word = u32::try_from(word)
            .inspect_err(|_| dev_err!(dev, "virtio: features that were not offered\n"))?;

        self.write(regs::DriverFeatures, word);
        Ok(())
    }

    fn shared_memory(&self, _id: u8) -> Option<SharedMemory> {
        None
    }

    fn interrupt_status(&self) -> u8 {
        self.read(regs::InterruptStatus)
    }

    fn msix_changed(&self, enabled: bool) {
        self.msix.store(enabled, Ordering::Relaxed);
    }

    fn set_config_vector(&self, vector: u16) -> u16 {
        self.write(regs::ConfigVector, vector);
        self.read(regs::ConfigVector)
    }

    fn make_ring(&self, index: u32, wish: &Wish<'_>) -> Result<Ring<Self::Bell>> {
        self.select(index)?;
        let size = self.read(regs::QueueSize);
        let is_in_use = || self.read(regs::QueuePfn) != 0;
        let shape = Shape {
            size: shared::queue_size(self.pci, index, size, true, is_in_use)?,
            align: ALIGN,
            may_shrink: false,
        };
        let offset = regs::QueueNotify::OFFSET;
        let bell = Register::new(self.registers.clone(), offset, size_of::<u16>())?;

        Ring::with_bell(index, shape, wish, bell)
    }

    fn describe(&self, queue: &Virtqueue, vector: u16) -> Result {
        page_number(queue).inspect_err(|_| {
            dev_err!(
                self.pci,
                "platform bug: legacy virtio-pci must not be used with RAM above {:#x}GB\n",
                1u64 << (u32::BITS + PAGE_BITS - 30)
            );
        })?;
        if vector != vectors::NONE {
            self.select(queue.index())?;
            self.write(regs::QueueVector, vector);
            if self.read(regs::QueueVector) == vectors::NONE {
                return Err(EBUSY);
            }
        }
        Ok(())
    }

    /// Only now the device learns the place: to take that back may reset all of the device.
    fn enable(&self, queue: &Virtqueue) {
        if let (Ok(()), Ok(page)) = (self.select(queue.index()), page_number(queue)) {
            self.write(regs::QueuePfn, page);
        }
    }

    fn retire(&self, queue: &Virtqueue, msix: bool) -> bool {
        if self.select(queue.index()).is_err() {
            return true;
        }
        if msix {
            self.write(regs::QueueVector, vectors::NONE);
            // The write has arrived when this is read.
            self.read(regs::QueueVector);
        }
        if self.read(regs::QueuePfn) == 0 {
            return true;
        }
        self.write(regs::QueuePfn, 0);
        // A device that is gone does not use memory.
        self.read(regs::QueuePfn) == 0 || !pci_device::is_present(self.pci)
    }
}
