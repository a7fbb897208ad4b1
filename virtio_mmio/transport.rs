// SPDX-License-Identifier: GPL-2.0

//! A device as the virtio core uses it: status, features, configuration.

#![deny(unsafe_code)]

use super::{
    queues::Active,
    regs,
    window::Window, //
};
use crate::{
    config::{
        self,
        Features, //
    },
    kernel_ext,
    virtio::transport::{
        ring::{
            Virtqueue,
            Wanted, //
        },
        Device,
        DeviceOf,
        Notify,
        SharedMemory,
        Transport, //
    },
};

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    dev_err,
    device::Bound,
    new_mutex,
    platform,
    prelude::*,
    sync::Mutex,
    time::Delta, //
};

/// `VIRTIO_F_RING_RESET`: queues can be reset one by one (Virtio 1.4, 6).
pub(super) const RING_RESET: config::FeatureBit = 40;

/// How long a device may take to do what it was told.
pub(super) const PATIENCE: Delta = Delta::from_millis(1000);

/// How often to look whether it has.
pub(super) const INTERVAL: Delta = Delta::from_millis(1);

/// A version of the interface that this driver knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    /// 1: before Virtio 1.0; a queue is a range of pages.
    Legacy,
    /// 2: a reset is over when it was written.
    Modern,
    /// 3: as 2, but a reset takes until the status reads 0.
    SlowReset,
}

impl Version {
    /// The version that register `Version` names, if it is known.
    pub(crate) const fn of(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Legacy),
            2 => Some(Self::Modern),
            3 => Some(Self::SlowReset),
            _ => None,
        }
    }
}

/// One device.
#[pin_data]
pub(crate) struct VirtioDevice<'bound> {
    pub(super) platform: &'bound platform::Device<Bound>,
    pub(super) window: Window<'bound>,
    pub(super) version: Version,
    /// The log was told that there is less configuration space than the driver wants.
    complained: AtomicBool,
    /// The queues, from their creation to their deletion. Protects the selection of a queue by
    /// `QueueSel` as well, beyond those two moments.
    #[pin]
    pub(super) active: Mutex<Option<Active<'bound>>>,
}

impl<'bound> VirtioDevice<'bound> {
    /// A device whose registers were found good.
    pub(super) fn new(
        platform: &'bound platform::Device<Bound>,
        window: Window<'bound>,
        version: Version,
    ) -> impl PinInit<Self, Error> + 'bound {
        try_pin_init!(Self {
            platform,
            window,
            version,
            complained: AtomicBool::new(false),
            active <- new_mutex!(None),
        }? Error)
    }

    /// Logs that the driver wants more configuration space than there is, once for each reset.
    fn no_such_field(&self, offset: usize, len: usize) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            dev_err!(
                self.platform,
                "no configuration space at offset {}, {} bytes\n",
                offset,
                len
            );
        }
    }
}

#[vtable]
impl Transport for VirtioDevice<'_> {
    fn patience(&self) -> Delta {
        match self.version {
            Version::SlowReset => Delta::from_secs(10),
            _ => Delta::from_secs(5),
        }
    }

    /// Firecracker's devices do so.
    fn may_refuse(&self) -> bool {
        self.version != Version::SlowReset
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) {
        let read = match self.version {
            Version::Legacy => self.window.read_bytes(offset, bytes),
            _ => self.window.read_config(offset, bytes),
        };

        if read.is_err() {
            bytes.fill(0);
            self.no_such_field(offset, bytes.len());
        }
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        let written = match self.version {
            Version::Legacy => self.window.write_bytes(offset, bytes),
            _ => self.window.write_config(offset, bytes),
        };

        if written.is_err() {
            self.no_such_field(offset, bytes.len());
        }
    }

    fn generation(&self) -> u32 {
        match self.version {
            Version::Legacy => 0,
            _ => self.window.read(regs::ConfigGeneration),
        }
    }

    fn status(&self) -> u8 {
        let [status, ..] = self.window.read(regs::Status).to_le_bytes();

        status
    }

    fn set_status(&self, status: u8) {
        self.window.write(regs::Status, status.into());
    }

    fn is_present(&self) -> bool {
        !self.window.is_gone()
    }

    fn begin_reset(&self) {
        self.complained.store(false, Ordering::Relaxed);
        self.window.write(regs::Status, 0);
    }

    fn offered_features(&self) -> Features {
        self.window.write(regs::DeviceFeaturesSel, 1);
        let high = self.window.read(regs::DeviceFeatures);

        self.window.write(regs::DeviceFeaturesSel, 0);
        let low = self.window.read(regs::DeviceFeatures);

        Features::from_words([u64::from(high) << 32 | u64::from(low), 0])
    }

    fn own_features(&self) -> Features {
        match self.version {
            Version::Legacy => Features::EMPTY,
            _ => Features::of(&[RING_RESET]),
        }
    }

    fn accept_features(&self, dev: &Device, features: Features) -> Result {
        if self.version != Version::Legacy && !features.has(config::VERSION_1) {
            dev_err!(
                dev,
                "New virtio-mmio devices (version >= 2) must provide VIRTIO_F_VERSION_1 feature!\n"
            );
            return Err(EINVAL);
        }
        let [word, _] = features.words();
        let (low, high) = super::window::halves(word);

        self.window.write(regs::DriverFeaturesSel, 1);
        self.window.write(regs::DriverFeatures, high);
        self.window.write(regs::DriverFeaturesSel, 0);
        self.window.write(regs::DriverFeatures, low);
        Ok(())
    }

    fn make_queues(&self, dev: &DeviceOf<Self>, wanted: &mut Wanted<'_>) -> Result {
        let active = Active::new(self, dev, wanted)?;

        wanted.grant(active.queues());
        *self.active.lock() = Some(active);
        Ok(())
    }

    fn delete_queues(&self, quiet: bool) {
        let active = self.active.lock().take();

        if let Some(active) = active.as_ref().filter(|_| !quiet) {
            active.lose();
        }
        drop(active);
    }

    fn wait_for_callbacks(&self) {
        if let Some(active) = &*self.active.lock() {
            active.wait_for_callbacks();
        }
    }

    fn bus_name(&self) -> &CStr {
        kernel_ext::platform::name(self.platform)
    }

    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        if self.version == Version::Legacy {
            return None;
        }
        self.window.write(regs::ShmSel, id.into());
        let length = self.window.read_halves(regs::ShmLenLow, regs::ShmLenHigh);

        if length == u64::MAX {
            return None;
        }
        let address = self.window.read_halves(regs::ShmBaseLow, regs::ShmBaseHigh);

        if address.checked_add(length).is_none() {
            dev_err!(
                self.platform,
                "shared memory region {} has {} bytes at {:#x}\n",
                id,
                length,
                address
            );
            return None;
        }
        Some(SharedMemory { address, length })
    }

    fn reset_queue(&self, dev: &Device, queue: &Virtqueue) -> Result {
        if !dev.has(RING_RESET) {
            return Err(ENOENT);
        }
        self.active.lock().as_ref().ok_or(ENOENT)?.reset(queue)
    }

    fn restart_queue(&self, _dev: &Device, queue: &Virtqueue) -> Result {
        self.active.lock().as_ref().ok_or(ENOENT)?.restart(queue)
    }
}

impl Notify for VirtioDevice<'_> {
    #[inline]
    fn notify(&self, queue: &Virtqueue) {
        self.window.write(regs::QueueNotify, queue.index());
    }

    #[inline]
    fn notify_with_data(&self, _queue: &Virtqueue, data: u32) {
        self.window.write(regs::QueueNotify, data);
    }
}
