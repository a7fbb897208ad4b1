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
    kernel_ext::{
        hwrng,
        wait::{
            new_wait_queue,
            Mode,
            WaitQueue, //
        }, //
    },
    virtio::{
        id::IdTable,
        payload::InBuf,
        queue::{
            Queue,
            Queues, //
        },
        Device,
        DeviceId,
        Driver, //
    },
};

use core::mem::take;
use kernel::{
    device::{
        Bound,
        Core, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Mutex, //
    },
    time::Msecs, //
};

virtio::id::virtio_device_table!(ID_TABLE, [DeviceId::any_vendor(DeviceId::RNG)]);

virtio::driver::module_virtio_driver! {
    type: RngDriver,
    name: "virtio_rng",
    authors: ["The virtio-rust developers"],
    description: "Virtio entropy driver, a sample of the API for drivers in Rust",
    license: "GPL",
}

/// How many buffers the device has at most.
const IN_FLIGHT: usize = 2;

/// How long a reader waits before the next one may try, in milliseconds.
const PATIENCE_MS: Msecs = 1000;

/// Memory for the device to fill.
type Page = InBuf<PAGE_SIZE>;

/// The entropy driver.
struct RngDriver;

/// What the driver keeps for one device.
#[pin_data]
struct Rng<'a> {
    dev: &'a Device<Bound>,
    #[pin]
    supply: Mutex<Supply<'a>>,
    #[pin]
    readers: WaitQueue,
    closed: Atomic<bool>,
}

/// Where the bytes come from; without a queue while the system sleeps.
#[derive(Default)]
struct Supply<'a> {
    queue: Option<Queue<'a, Page>>,
    /// What the device has filled, perhaps not used up yet.
    page: Option<KBox<Page>>,
}

impl<'a> Supply<'a> {
    /// Creates the queue and fills it, for a device that is not live yet.
    fn new(dev: &'a Device<Bound>) -> Result<Self> {
        let mut queues = Queues::new::<RngDriver>(dev, &[Some(c"input")])?;
        let mut queue = queues.take(0).ok_or(ENOENT)?;

        for _ in 0..IN_FLIGHT {
            queue.add(Page::new()?).map_err(|(error, _)| error)?;
        }
        Ok(Self {
            queue: Some(queue),
            page: None,
        })
    }

    /// Moves bytes to `out` as far as there are any, and empty pages back to the device.
    fn take(&mut self, out: &mut hwrng::Buffer<'_>) -> Result {
        // A device that fills its buffers with little or nothing must not keep us here.
        for _ in 0..=IN_FLIGHT {
            if let Some(page) = &mut self.page {
                out.put(page.take(out.room()));
                if !page.is_empty() {
                    break;
                }
            }
            let Some(queue) = &mut self.queue else {
                break;
            };
            if let Some(page) = self.page.take() {
                queue.send(page).map_err(|(error, _)| error)?;
            }
            if out.room() == 0 {
                break;
            }
            self.page = queue.take_used();
            if self.page.is_none() && queue.is_broken() {
                return Err(EIO);
            }
        }
        Ok(())
    }
}

impl hwrng::Source for Rng<'_> {
    const NAME: &'static CStr = c"virtio_rng";

    fn read(&self, out: &mut hwrng::Buffer<'_>, wait: bool) -> Result {
        let mut result = Ok(());
        let mut attempt = || {
            result = match self.closed.load(Acquire) {
                true => Err(ENODEV),
                false => self.supply.lock().take(out),
            };
            result.is_err() || !out.is_empty()
        };

        if !attempt() && wait {
            self.readers
                .wait(Mode::Interruptible, Some(PATIENCE_MS), attempt);
        }
        result
    }

    fn close(&self) {
        self.closed.store(true, Release);
        self.readers.wake_all();
    }
}

#[vtable]
impl Driver for RngDriver {
    type Data<'bound> = Rng<'bound>;
    type Registration<'bound> = hwrng::Registration<'bound, Rng<'bound>>;

    const ID_TABLE: IdTable = &ID_TABLE;

    fn probe<'bound>(dev: &'bound Device<Core<'_>>) -> impl PinInit<Rng<'bound>, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let supply = Supply::new(dev)?;

            Ok(try_pin_init!(Rng {
                dev,
                supply <- new_mutex!(supply),
                readers <- new_wait_queue!("virtio_rng"),
                closed: Atomic::new(false),
            }? Error))
        })
    }

    fn live(_dev: &Device<Core<'_>>, data: Pin<&Rng<'_>>) {
        if let Some(queue) = &mut data.supply.lock().queue {
            queue.notify();
        }
    }

    fn notified(_dev: &Device<Bound>, data: Pin<&Rng<'_>>, _place: usize) {
        data.readers.wake_all();
    }

    fn unbind(_dev: &Device<Core<'_>>, data: Pin<&Rng<'_>>) {
        let supply = take(&mut *data.supply.lock());

        drop(supply);
    }

    fn freeze(dev: &Device<Core<'_>>, data: Pin<&Rng<'_>>) -> Result {
        // What is left goes, too: two systems resumed from one image must not share it.
        Self::unbind(dev, data);
        Ok(())
    }

    fn restore(_dev: &Device<Core<'_>>, data: Pin<&Rng<'_>>) -> Result {
        *data.supply.lock() = Supply::new(data.dev)?;
        Ok(())
    }
}
