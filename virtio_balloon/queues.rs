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
            Queue,
            Queues, //
        },
        Device, //
    },
};

use core::mem::take;
use kernel::{
    device::Bound,
    prelude::*, //
};

/// All queues of one device, by who uses them.
pub(super) struct DeviceQueues<'a> {
    pub(super) pages: PageQueues<'a>,
    pub(super) info: InfoQueues<'a>,
}

impl<'a> DeviceQueues<'a> {
    /// Creates the queues of a device that is not live.
    ///
    /// # Errors
    ///
    /// As for [`Queues::new`].
    pub(super) fn new(dev: &'a Device<Bound>) -> Result<Self> {
        let features = dev.features();
        let names = QUEUES.map(|(name, feature)| {
            let exists = feature.is_none_or(|bit| features.has(bit));

            exists.then_some(name)
        });
        let mut queues = Queues::new::<BalloonDriver>(dev, &names)?;

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
pub(super) struct InfoQueues<'a> {
    pub(super) stats: Option<Queue<'a, stats::Buffer>>,
    pub(super) hints: Option<HintQueue<'a>>,
    pub(super) reports: Option<ReportQueue<'a>>,
}

/// The queue for free page hints.
pub(super) type HintQueue<'a> = Queue<'a, hint::Hint>;

/// The queue for reports of free pages.
pub(super) type ReportQueue<'a> = Queue<'a, report::Report>;

/// The two queues through which pages enter and leave the balloon.
pub(super) struct PageQueues<'a> {
    inflate: Queue<'a, Request>,
    deflate: Queue<'a, Request>,
    /// How many requests of each queue the device was not notified of.
    unnoticed: [usize; 2],
}

impl<'a> PageQueues<'a> {
    /// Makes a request available, without notifying the device.
    ///
    /// # Errors
    ///
    /// As for [`Queue::add`].
    pub(super) fn add(&mut self, request: KBox<Request>) -> Result<(), (Error, KBox<Request>)> {
        let (queue, [inflations, deflations]) = (&mut self.inflate, &mut self.unnoticed);
        let (queue, count) = match request.meta.kind {
            Kind::Inflate | Kind::MigrateIn => (queue, inflations),
            Kind::Deflate | Kind::MigrateOut => (&mut self.deflate, deflations),
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

        if inflations > 0 {
            self.inflate.notify();
        }
        if deflations > 0 {
            self.deflate.notify();
        }
        inflations + deflations > 0
    }

    /// Takes back one request that the device has answered.
    pub(super) fn take_used(&mut self) -> Option<KBox<Request>> {
        self.inflate
            .take_used()
            .or_else(|| self.deflate.take_used())
    }

    /// Tells whether one of the queues is unusable.
    pub(super) fn is_broken(&self) -> bool {
        self.inflate.is_broken() || self.deflate.is_broken()
    }

    /// Resets the device and hands each request that it still had to `take`.
    pub(super) fn close(self, mut take: impl FnMut(KBox<Request>)) {
        self.inflate.close(&mut take);
        self.deflate.close(&mut take);
    }
}
