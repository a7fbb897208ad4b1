// SPDX-License-Identifier: GPL-2.0

//! `virtio_rng.ko`: a driver for the entropy device (Virtio 1.4, 5.4), to be copied from.
//!
//! It can be loaded in place of the C driver of the same name. `Documentation/writing-drivers.rst`
//! explains it line by line.

#![deny(unsafe_code)]

#[path = "../config.rs"]
pub mod config;

/// What this driver uses of the facilities that the kernel crate does not wrap yet.
#[allow(unsafe_code)]
#[path = "../kernel_ext"]
pub mod kernel_ext {
    pub mod hwrng;
    pub mod kthread;
    pub mod registration;
    pub mod sg;
    pub mod wait;
}

#[allow(unsafe_code)]
#[path = "../virtio/mod.rs"]
pub mod virtio;

use crate::{
    kernel_ext::hwrng,
    virtio::prelude::*, //
};
use kernel::{
    new_spinlock,
    page::PAGE_SIZE,
    sync::SpinLock, //
};

virtio_device_table!(ID_TABLE, [DeviceId::any_vendor(DeviceId::RNG)]);

module_virtio_driver! {
    type: RngDriver,
    name: "virtio_rng",
    authors: ["The virtio-rust developers"],
    description: "Virtio entropy driver, a sample of the API for drivers in Rust",
    license: "GPL",
}

/// How many buffers of a page there are: the device fills one while the other is read.
const DEPTH: usize = 2;

/// The entropy driver.
struct RngDriver;

/// What the driver keeps for one device.
#[pin_data]
struct Rng {
    /// What the device gives; nothing while the system sleeps.
    #[pin]
    stream: SpinLock<Option<InStream<PAGE_SIZE>>>,
    #[pin]
    readers: hwrng::Readers,
}

/// Gives a device, which is not live yet, its queue.
fn connect(queues: NewQueues<'_, RngDriver>) -> Result<InStream<PAGE_SIZE>> {
    InStream::new(queues.single(c"input")?, DEPTH)
}

impl hwrng::Source for Rng {
    const NAME: &'static CStr = c"virtio_rng";

    fn readers(&self) -> &hwrng::Readers {
        &self.readers
    }

    // The kernel asks for no more than a cache line at a time.
    #[inline(always)]
    fn read(&self, out: &mut hwrng::Buffer<'_>) -> Result {
        if let Some(stream) = &mut *self.stream.lock() {
            out.put(stream.read(out.room())?);
        }
        Ok(())
    }
}

#[vtable]
impl Driver for RngDriver {
    type Data<'bound> = Rng;
    type Registration<'bound> = hwrng::Registration<'bound, Rng>;

    const ID_TABLE: IdTable = &ID_TABLE;

    fn probe<'bound>(
        _dev: &'bound Device<Core<'_>>,
        queues: NewQueues<'_, Self>,
    ) -> impl PinInit<Rng, Error> {
        pin_init::pin_init_scope(move || {
            let stream = connect(queues)?;

            Ok(try_pin_init!(Rng {
                stream <- new_spinlock!(Some(stream)),
                readers <- hwrng::Readers::new(),
            }? Error))
        })
    }

    fn live(_dev: &Device<Core<'_>>, data: Pin<&Rng>) -> Result {
        match &*data.stream.lock() {
            Some(stream) => stream.notify(),
            None => Ok(()),
        }
    }

    fn notified(_dev: &Device<Bound>, data: Pin<&Rng>, _place: usize) {
        data.readers.wake();
    }

    fn freeze(_dev: &Device<Core<'_>>, data: Pin<&Rng>) -> Result {
        // What is left goes, too: two systems resumed from one image must not share it.
        *data.stream.lock() = None;
        Ok(())
    }

    fn restore(_dev: &Device<Core<'_>>, data: Pin<&Rng>, queues: NewQueues<'_, Self>) -> Result {
        *data.stream.lock() = Some(connect(queues)?);
        Ok(())
    }
}
