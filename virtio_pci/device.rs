// SPDX-License-Identifier: GPL-2.0

//! A device as the virtio core uses it, by either of its interfaces.

#![deny(unsafe_code)]

use super::{
    admin::Admin,
    interface::Interface,
    modern::DRIVER_OK,
    queues::Active, //
};
use crate::{
    config::Features,
    kernel_ext::pci_device,
    virtio::{
        buffers::Quiet,
        transport::{
            ring::{
                Own,
                Virtqueue,
                Wanted, //
            },
            Device,
            DeviceOf,
            SharedMemory,
            Transport, //
        }, //
    },
};

use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    cpumask::Cpumask,
    dev_err,
    device::Bound,
    new_mutex,
    pci,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
    time::Delta, //
};

/// One device.
#[pin_data]
pub(super) struct VirtioDevice<'bound, I: Interface> {
    pci: &'bound pci::Device<Bound>,
    interface: Arc<I>,
    admin: Arc<Admin>,
    /// The log was told that there is less configuration space than the driver wants.
    complained: AtomicBool,
    /// The queues, from their creation to their deletion. Protects the selection of a queue as
    /// well, beyond those two moments.
    #[pin]
    active: Mutex<Option<Active<'bound, I>>>,
}

impl<'bound, I: Interface> VirtioDevice<'bound, I> {
    /// A device whose interface was found good.
    pub(super) fn new(
        pci: &'bound pci::Device<Bound>,
        interface: Arc<I>,
        admin: Arc<Admin>,
    ) -> impl PinInit<Self, Error> + 'bound
    where
        I: 'bound,
    {
        try_pin_init!(Self {
            pci,
            interface,
            admin,
            complained: AtomicBool::new(false),
            active <- new_mutex!(None),
        }? Error)
    }

    /// The queue for administration, if the device has one.
    fn own_queue(&self, dev: &Device) -> Result<Option<Own<Self>>>
    where
        I: 'bound,
    {
        let Some(index) = self.interface.admin_queue(dev)? else {
            return Ok(None);
        };
        let name = CString::try_from_fmt(fmt!("avq.{}", index))?;

        Ok(Some(Own::new(index.into(), name)?))
    }

    /// Logs that the driver wants more configuration space than there is, once for each reset.
    fn no_such_field(&self, offset: usize, len: usize) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            dev_err!(
                self.pci,
                "no configuration space at offset {}, {} bytes\n",
                offset,
                len
            );
        }
    }
}

#[vtable]
impl<'bound, I: Interface + 'bound> Transport for VirtioDevice<'bound, I> {
    fn patience(&self) -> Delta {
        Delta::from_secs(10)
    }

    fn has_config(&self) -> bool {
        self.interface.has_config()
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) {
        if self.interface.read_config(offset, bytes).is_err() {
            bytes.fill(0);
            self.no_such_field(offset, bytes.len());
        }
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        if self.interface.write_config(offset, bytes).is_err() {
            self.no_such_field(offset, bytes.len());
        }
    }

    fn generation(&self) -> u32 {
        self.interface.generation()
    }

    fn status(&self) -> u8 {
        self.interface.status()
    }

    fn set_status(&self, status: u8) {
        self.interface.set_status(status);
        if status & DRIVER_OK != 0 {
            self.admin.start();
        }
    }

    fn is_present(&self) -> bool {
        pci_device::is_present(self.pci)
    }

    fn begin_reset(&self) {
        self.complained.store(false, Ordering::Relaxed);
        self.interface.begin_reset();
    }

    fn fence(&self) -> bool {
        pci_device::clear_master(self.pci)
    }

    fn lift_fence(&self) {
        pci_device::set_master(self.pci);
    }

    #[allow(unsafe_code, reason = "passes on what it is told")]
    unsafe fn reset_is_over(&self, quiet: bool) {
        // SAFETY: By the requirements of the function.
        let quiet = quiet.then(|| unsafe { Quiet::new() });

        self.wait_for_callbacks();
        self.admin.stop(quiet.as_ref());
    }

    fn offered_features(&self) -> Features {
        self.interface.offered_features()
    }

    fn own_features(&self) -> Features {
        self.interface.own_features()
    }

    fn accept_features(&self, dev: &Device, features: Features) -> Result {
        self.interface.accept_features(dev, features)
    }

    fn make_queues(&self, dev: &DeviceOf<Self>, wanted: &mut Wanted<'_>) -> Result {
        let own = self.own_queue(dev)?;
        let active = Active::new(self.pci, &self.interface, dev, wanted, own, &self.admin)?;

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
        pci_device::name(self.pci)
    }

    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        self.interface.shared_memory(id)
    }

    fn set_queue_affinity(&self, queue: &Virtqueue, cpus: Option<&Cpumask>) -> Result {
        match &mut *self.active.lock() {
            Some(active) => active.set_affinity(queue, cpus),
            None => Err(EINVAL),
        }
    }

    fn queue_affinity(&self, index: u32) -> *const Cpumask {
        match &*self.active.lock() {
            Some(active) => active.affinity(index),
            None => core::ptr::null(),
        }
    }

    fn own_queue_used(&self) {
        self.admin.wake();
    }

    fn reset_queue(&self, dev: &Device, queue: &Virtqueue) -> Result {
        self.active.lock().as_ref().ok_or(ENOENT)?.reset(dev, queue)
    }

    fn restart_queue(&self, _dev: &Device, queue: &Virtqueue) -> Result {
        self.active.lock().as_ref().ok_or(ENOENT)?.restart(queue)
    }
}
