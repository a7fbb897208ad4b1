// SPDX-License-Identifier: GPL-2.0

//! The queues of the device (Virtio 1.4, 5.5.2), with what each of them carries.

use super::{
    engine::Request,
    layout::{
        DEFLATE,
        INFLATE,
        QUEUE_NAMES, //
    },
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

use kernel::{
    device::Bound,
    prelude::*, //
};

/// The two queues through which pages enter and leave the balloon.
pub(super) struct PageQueues<'a> {
    inflate: Queue<'a, Request>,
    deflate: Queue<'a, Request>,
}

impl<'a> PageQueues<'a> {
    /// Creates the queues of a device that is not live.
    ///
    /// # Errors
    ///
    /// As for [`Queues::new`].
    pub(super) fn new(dev: &'a Device<Bound>) -> Result<Self> {
        let mut queues = Queues::new::<BalloonDriver>(dev, &QUEUE_NAMES.map(Some))?;

        Ok(Self {
            inflate: queues.take(INFLATE).ok_or(ENOENT)?,
            deflate: queues.take(DEFLATE).ok_or(ENOENT)?,
        })
    }

    /// The queue with a number.
    fn queue(&mut self, index: usize) -> &mut Queue<'a, Request> {
        match index {
            DEFLATE => &mut self.deflate,
            _ => &mut self.inflate,
        }
    }

    /// Makes a request available and notifies the device.
    ///
    /// # Errors
    ///
    /// As for [`Queue::add`].
    pub(super) fn send(
        &mut self,
        index: usize,
        request: KBox<Request>,
    ) -> Result<(), (Error, KBox<Request>)> {
        self.queue(index).send(request)
    }

    /// Takes back one request that the device has answered.
    pub(super) fn take_used(&mut self, index: usize) -> Option<KBox<Request>> {
        self.queue(index).take_used()
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
