// SPDX-License-Identifier: GPL-2.0

//! The second thread: what the driver tells the device of itself.
//!
//! Nothing here holds up the engine, which has a thread of its own.

use super::{
    hint::Hints,
    queues::InfoQueues,
    report::Reports,
    shared::Shared,
    stats::Stats, //
};
use crate::{
    kernel_ext::{
        kthread,
        wait::{
            new_wait_queue,
            Mode,
            WaitQueue, //
        }, //
    },
    virtio::Device, //
};

use kernel::{
    device::Bound,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Release, //
        },
        Arc,
        Mutex, //
    },
    time::Msecs, //
};

/// What wakes the second thread.
#[pin_data]
pub(super) struct Bell {
    #[pin]
    queue: WaitQueue,
    /// It rang since the thread last listened.
    rang: Atomic<bool>,
}

impl Bell {
    /// Makes a silent bell.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            queue <- new_wait_queue!("virtio_balloon_info"),
            rang: Atomic::new(false),
        })
    }

    /// Makes the thread look at everything.
    ///
    /// # Context
    ///
    /// Any, interrupts included.
    pub(super) fn ring(&self) {
        self.rang.store(true, Release);
        self.queue.wake_all();
    }

    /// Waits until the bell rings, or `give_up`, for at most `timeout` milliseconds.
    fn wait(&self, timeout: Option<Msecs>, give_up: impl Fn() -> bool) {
        self.queue.wait(Mode::Freezable, timeout, || {
            self.rang.xchg(false, Full) || give_up()
        });
    }
}

/// What the second thread looks after.
#[pin_data]
pub(super) struct Informer<'a> {
    shared: Arc<Shared>,
    /// Whether the device is live; locked while it is worked with.
    #[pin]
    live: Mutex<bool>,
    #[pin]
    stats: Stats<'a>,
    #[pin]
    hints: Hints<'a>,
    #[pin]
    reports: Reports<'a>,
}

impl<'a> Informer<'a> {
    /// Prepares what a device that is not live yet wants to know.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what [`Stats::new`], [`Hints::new`] and [`Reports::new`] say.
    pub(super) fn new(
        dev: &'a Device<Bound>,
        shared: Arc<Shared>,
        queues: InfoQueues,
    ) -> impl PinInit<Self, Error> + use<'a> {
        try_pin_init!(Self {
            stats <- Stats::new(dev, shared.clone(), queues.stats),
            hints <- Hints::new(dev, shared.clone(), queues.hints),
            reports <- Reports::new(dev, shared.clone(), queues.reports),
            live <- new_mutex!(false),
            shared,
        }? Error)
    }

    /// Serves the device until the driver is unbound.
    pub(super) fn serve(&self, current: &kthread::Current) {
        while !current.should_stop_or_freeze() {
            let timeout = self.step();

            self.shared.info.wait(timeout, || current.should_stop());
        }
    }

    /// Does what there is to do; returns after how many milliseconds to look again, if that is not
    /// to wait for the bell.
    fn step(&self) -> Option<Msecs> {
        let live = self.live.lock();

        if !*live || self.shared.is_ended() {
            return None;
        }
        let times = [self.stats.step(), self.hints.step(), self.reports.step()];

        times.into_iter().flatten().min()
    }

    /// The device is live: begins to serve it.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn go_live(&self) {
        *self.live.lock() = true;
        self.shared.info.ring();
    }

    /// Leaves the device alone until [`Self::go_live`]; waits for what is being done.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn pause(&self) {
        *self.live.lock() = false;
    }

    /// Takes everything back from the device by a reset.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn disconnect(&self) {
        self.pause();
        self.stats.disconnect();
        self.hints.disconnect();
        self.reports.disconnect();
    }

    /// Begins anew on a device that was reset; [`Self::go_live`] must follow.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    ///
    /// # Context
    ///
    /// As for [`Self::disconnect`].
    pub(super) fn connect(&self, queues: InfoQueues) -> Result {
        self.stats.connect(queues.stats)?;
        self.hints.connect(queues.hints);
        self.reports.connect(queues.reports)
    }
}
