// SPDX-License-Identifier: GPL-2.0

//! The queues of the device (Virtio 1.4, 5.5.2), with what each of them carries.

use super::{
    hint,
    layout::{
        DEFLATE,
        HINTS,
        INFLATE,
        QUEUES,
        REPORTS,
        STATS, //
    },
    report,
    requests::{
        Kind,
        Request, //
    },
    stats, //
};
use crate::{
    balloon::BalloonDriver,
    virtio::{
        queue::{
            NewQueues,
            Queue,
            QueueInfo, //
        },
        Device,
        Reset, //
    },
};

use core::mem::take;
use kernel::{
    device::Bound,
    prelude::*, //
};

/// All queues of one device, by who uses them.
pub(super) struct DeviceQueues {
    pub(super) pages: PageQueues,
    pub(super) info: InfoQueues,
}

impl DeviceQueues {
    /// Creates the queues of a device that is not live.
    ///
    /// # Errors
    ///
    /// As for [`NewQueues::create`].
    pub(super) fn new(dev: &Device<Bound>, queues: NewQueues<'_, BalloonDriver>) -> Result<Self> {
        let features = dev.features();
        let infos = QUEUES.map(|(name, feature)| {
            QueueInfo::new(name).when(feature.is_none_or(|bit| features.has(bit)))
        });
        let mut queues = queues.create(&infos)?;

        Ok(Self {
            pages: PageQueues {
                inflate: queues.take(INFLATE).ok_or(ENOENT)?,
                deflate: queues.take(DEFLATE).ok_or(ENOENT)?,
                unnoticed: [0; 2],
            },
            info: InfoQueues {
                stats: queues.take(STATS),
                hints: queues.take(HINTS),
                reports: queues.take(REPORTS),
            },
        })
    }
}

/// The queues through which the device learns about the memory, where it has them.
pub(super) struct InfoQueues {
    pub(super) stats: Option<Queue<stats::Buffer>>,
    pub(super) hints: Option<HintQueue>,
    pub(super) reports: Option<ReportQueue>,
}

/// The queue for free page hints.
pub(super) type HintQueue = Queue<hint::Hint>;

/// The queue for reports of free pages.
pub(super) type ReportQueue = Queue<report::Report>;

/// The two queues through which pages enter and leave the balloon.
pub(super) struct PageQueues {
    inflate: Queue<Request>,
    deflate: Queue<Request>,
    /// How many requests of each queue the device was not notified of.
    unnoticed: [usize; 2],
}

impl PageQueues {
    /// Makes a request available, without notifying the device.
    ///
    /// # Errors
    ///
    /// As for [`Queue::add`].
    pub(super) fn add(&mut self, request: KBox<Request>) -> Result<(), (Error, KBox<Request>)> {
        let [inflations, deflations] = &mut self.unnoticed;
        let (queue, count) = match request.meta.kind {
            Kind::Inflate | Kind::MigrateIn => (&self.inflate, inflations),
            Kind::Deflate | Kind::MigrateOut | Kind::MigrateBack => (&self.deflate, deflations),
        };

        queue.add(request)?;
        *count += 1;
        Ok(())
    }

    /// How many requests the device was not notified of.
    pub(super) fn unnoticed(&self) -> usize {
        self.unnoticed.iter().sum()
    }

    /// Notifies the device of all of them; returns whether there were any.
    pub(super) fn notify(&mut self) -> bool {
        let [inflations, deflations] = take(&mut self.unnoticed);

        // If that fails the queue is broken, which shows.
        if inflations > 0 {
            let _ = self.inflate.notify();
        }
        if deflations > 0 {
            let _ = self.deflate.notify();
        }
        inflations + deflations > 0
    }

    /// Takes back one request that the device has answered.
    pub(super) fn take_used(&self) -> Option<KBox<Request>> {
        self.inflate
            .take_used()
            .or_else(|| self.deflate.take_used())
    }

    /// Tells whether one of the queues is unusable.
    pub(super) fn is_broken(&self) -> bool {
        self.inflate.is_broken() || self.deflate.is_broken()
    }

    /// Takes back one request that a device still had when it was reset.
    pub(super) fn take_unused(&self, reset: &Reset<'_>) -> Option<KBox<Request>> {
        let queues = [&self.inflate, &self.deflate];

        queues
            .iter()
            .find_map(|queue| queue.take_unused(reset).ok().flatten())
    }
}
