// SPDX-License-Identifier: GPL-2.0

//! The virtqueues of a device, and the interrupt that serves them all.
//!
//! The interrupt is requested when all queues are there and given up before the first of them
//! goes, so its handler walks over an array that does not change.

use super::{
    regs::{
        self,
        Causes, //
    },
    transport::{
        Version,
        VirtioDevice,
        INTERVAL,
        PATIENCE, //
    },
    window::{
        Window,
        PAGE_BYTES, //
    }, //
};
use crate::{
    kernel_ext::irq,
    virtio::transport::{
        callback::Callback,
        ring::{
            Ring,
            Shape,
            Virtqueue,
            Wanted,
            Wish,
            MAX_SIZE, //
        },
        Device,
        DeviceOf, //
    },
};

use kernel::{
    dev_err,
    device::Bound,
    io::poll::read_poll_timeout,
    irq::{
        Handler,
        IrqReturn, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    platform,
    prelude::*,
    sync::aref::ARef, //
};

/// A queue that the device may use.
///
/// Dropping it takes it back. If the device does not let go of it, its memory is lost.
struct Queue<'bound> {
    platform: &'bound platform::Device<Bound>,
    window: Window<'bound>,
    version: Version,
    /// There until `drop`.
    ring: Option<Ring>,
}

impl<'bound> Queue<'bound> {
    /// Makes queue number `index` and gives it to the device.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such queue or it is in use; `EINVAL` if its size is none; `EIO` if
    /// the device does not take it; `E2BIG`, `ENOMEM`.
    fn new(
        device: &VirtioDevice<'bound>,
        dev: &DeviceOf<VirtioDevice<'bound>>,
        index: u32,
        wish: &Wish<'_>,
    ) -> Result<Self> {
        let window = device.window;
        let platform = device.platform;

        window.write(regs::QueueSel, index);
        if is_in_use(window, device.version) != 0 {
            dev_err!(platform, "queue {} is in use already\n", index);
            return Err(ENOENT);
        }
        let size = window.read(regs::QueueSizeMax);

        if size == 0 {
            dev_err!(platform, "there is no queue {}\n", index);
            return Err(ENOENT);
        }
        if size > MAX_SIZE {
            dev_err!(
                platform,
                "queue {} cannot have {} descriptors\n",
                index,
                size
            );
            return Err(EINVAL);
        }
        let shape = Shape {
            size,
            align: PAGE_SIZE,
            may_shrink: true,
        };
        let ring = Ring::new(dev, index, shape, wish)?;
        let queue = Self {
            platform,
            window,
            version: device.version,
            ring: Some(ring),
        };

        queue.start()?;
        Ok(queue)
    }

    /// The ring, until it is dropped.
    #[inline(always)]
    fn ring(&self) -> Result<&Ring> {
        self.ring.as_ref().ok_or(ENOENT)
    }

    /// Gives the queue to the device; it is selected.
    ///
    /// # Errors
    ///
    /// `E2BIG` if a legacy device cannot be told where it is; `EIO` if the device does not take it.
    fn start(&self) -> Result {
        let window = self.window;
        let ring = self.ring()?;

        window.write(regs::QueueSize, ring.size());
        if self.version == Version::Legacy {
            return self.start_legacy(ring);
        }
        window.write_halves(regs::QueueDescLow, regs::QueueDescHigh, ring.descriptors());
        window.write_halves(
            regs::QueueDriverLow,
            regs::QueueDriverHigh,
            ring.driver_area(),
        );
        window.write_halves(
            regs::QueueDeviceLow,
            regs::QueueDeviceHigh,
            ring.device_area(),
        );
        window.write(regs::QueueReady, 1);
        if window.read(regs::QueueReady) == 1 {
            return Ok(());
        }
        dev_err!(
            self.platform,
            "the device does not take queue {}\n",
            ring.index()
        );
        Err(EIO)
    }

    /// As [`Self::start`], for a legacy device, which knows pages with numbers of 32 bits.
    fn start_legacy(&self, ring: &Ring) -> Result {
        let Ok(page) = u32::try_from(ring.descriptors() >> PAGE_SHIFT) else {
            dev_err!(
                self.platform,
                "platform bug: legacy virtio-mmio must not be used with RAM above {:#x}GB\n",
                1u64 << (32 + PAGE_SHIFT - 30)
            );
            return Err(E2BIG);
        };

        self.window.write(regs::QueueAlign, PAGE_BYTES);
        self.window.write(regs::QueuePfn, page);
        Ok(())
    }

    /// Tells the device to give the queue back; it is selected.
    fn take_back(&self) {
        match self.version {
            Version::Legacy => self.window.write(regs::QueuePfn, 0),
            _ => self.window.write(regs::QueueReady, 0),
        }
    }

    /// Waits until the device has let go of the queue, which is selected. Returns whether it has.
    fn is_given_back(&self) -> bool {
        let left = read_poll_timeout(
            || Ok(is_in_use(self.window, self.version)),
            |in_use| *in_use == 0 || *in_use == regs::GONE,
            INTERVAL,
            PATIENCE,
        );

        match left {
            Ok(0) => true,
            // A device that is gone does not use memory.
            _ => self.window.is_gone(),
        }
    }
}

/// What says that the device has the selected queue, if it is not 0.
fn is_in_use(window: Window<'_>, version: Version) -> u32 {
    match version {
        Version::Legacy => window.read(regs::QueuePfn),
        _ => window.read(regs::QueueReady),
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        let Some(ring) = self.ring.take() else {
            return;
        };

        self.window.write(regs::QueueSel, ring.index());
        self.take_back();
        // It was said so if a device keeps all that it has.
        if !ring.is_lost() && !self.is_given_back() {
            dev_err!(
                self.platform,
                "the device does not give queue {} back, its memory is lost\n",
                ring.index()
            );
            ring.leak();
        }
    }
}

/// What the handler of the interrupt has.
struct Interrupt<'bound> {
    window: Window<'bound>,
    device: ARef<Device>,
    /// Those of `queues`, in the same order; apart from them, to be close together.
    callbacks: KVec<Callback>,
    queues: KVec<Queue<'bound>>,
}

impl Handler for Interrupt<'_> {
    /// Acknowledges what the device has to say, then acts on it: if it was the other way round,
    /// what happens in between would be acknowledged unseen.
    fn handle(&self) -> IrqReturn {
        let handled = match self.window.read(regs::InterruptStatus) {
            // Nearly always.
            Causes::USED_BUFFER => {
                self.window.write(regs::InterruptAck, Causes::USED_BUFFER);
                self.look_for_used_buffers()
            }
            status => self.handle_other(status),
        };

        match handled {
            true => IrqReturn::Handled,
            false => IrqReturn::None,
        }
    }
}

impl Interrupt<'_> {
    /// Acknowledges and does what any other status means, if it means something; returns whether
    /// the interrupt was the device's.
    #[cold]
    fn handle_other(&self, status: u32) -> bool {
        let Some(causes) = Causes::of(status) else {
            return false;
        };

        self.window.write(regs::InterruptAck, causes.bits());
        if causes.config_change() {
            self.device.config_changed();
        }
        // Both have to be looked at.
        causes.config_change() | (causes.used_buffer() && self.look_for_used_buffers())
    }

    /// Returns whether any queue had some. The last queue comes first: a loop that counts down has
    /// fewer instructions.
    #[inline(always)]
    fn look_for_used_buffers(&self) -> bool {
        let mut handled = 0;

        for callback in self.callbacks.iter().rev() {
            handled |= callback.interrupt();
        }
        handled != 0
    }
}

/// The queues of a device and its interrupt.
///
/// The fields are dropped in this order; the interrupt before the queues, which its handler has.
pub(super) struct Active<'bound> {
    _wake: Option<irq::WakeSource>,
    interrupt: irq::Registration<'bound, Interrupt<'bound>>,
}

impl<'bound> Active<'bound> {
    /// Makes all queues that a driver wants, then lets the device interrupt.
    ///
    /// # Errors
    ///
    /// That of the first queue that cannot be made, or of the interrupt.
    pub(super) fn new(
        device: &VirtioDevice<'bound>,
        dev: &DeviceOf<VirtioDevice<'bound>>,
        wanted: &Wanted<'_>,
    ) -> Result<Self> {
        let count = wanted.wishes().count();
        let mut queues = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut callbacks = KVec::with_capacity(count, GFP_KERNEL)?;

        for (index, wish) in (0..).zip(wanted.wishes()) {
            let queue = Queue::new(device, dev, index, &wish)?;
            // SAFETY: Only the handler of the interrupt uses it, which goes before the queues.
            let callback = unsafe { Callback::new(queue.ring()?) };

            callbacks.push(callback, GFP_KERNEL)?;
            queues.push(queue, GFP_KERNEL)?;
        }
        let window = device.window;
        let reference = ARef::from(&**dev);
        let interrupt = try_init!(Interrupt {
            window,
            device: reference,
            callbacks,
            queues,
        }? Error);
        let name = kernel::device::Device::name(dev.as_ref());
        // SAFETY: It goes with the device's queues, and at the latest with the device's part of
        // the driver.
        let interrupt = unsafe { irq::Registration::new(device.platform, 0, name, interrupt) }?;
        let node = device.platform.as_ref().fwnode();
        let wakes =
            node.is_some_and(|node| node.is_of_node() && node.property_read_bool(c"wakeup-source"));

        Ok(Self {
            _wake: match wakes {
                true => irq::WakeSource::new(device.platform, 0),
                false => None,
            },
            interrupt,
        })
    }

    /// The queues, in the order of their indexes.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Virtqueue> {
        let queues = self.interrupt.handler().queues.iter();

        queues.filter_map(|queue| queue.ring.as_deref())
    }

    /// The device may still use the queues, for ever: their memory is lost when they are dropped.
    pub(super) fn lose(&self) {
        for queue in &self.interrupt.handler().queues {
            if let Ok(ring) = queue.ring() {
                ring.leak();
            }
        }
    }

    /// Waits for callbacks of queues that run on other CPUs.
    pub(super) fn wait_for_callbacks(&self) {
        self.interrupt.synchronize();
    }

    /// Selects one of the queues.
    fn select(&self, queue: &Virtqueue) -> Result<(&Queue<'bound>, &Callback)> {
        let Interrupt {
            queues, callbacks, ..
        } = self.interrupt.handler();
        let index = queue.index();
        let mut all = queues.iter().zip(callbacks);
        let found = all.find(|(queue, _)| queue.ring().is_ok_and(|ring| ring.index() == index));
        let (queue, callback) = found.ok_or(ENOENT)?;

        queue.window.write(regs::QueueSel, index);
        Ok((queue, callback))
    }

    /// Takes one queue back from the device (Virtio 1.4, 2.6.1).
    ///
    /// # Errors
    ///
    /// `ENOENT` if the device offers that, but does not know the register; `EIO` if it does not
    /// come to an end. Either way the device still has the queue.
    pub(super) fn reset(&self, queue: &Virtqueue) -> Result {
        let (queue, callback) = self.select(queue)?;
        let window = queue.window;

        window.write(regs::QueueReset, 1);
        let done = read_poll_timeout(
            || Ok(window.read(regs::QueueReset)),
            |left| *left == 0,
            INTERVAL,
            PATIENCE,
        );
        let kept = window.read(regs::QueueReady) != 0;

        if done.is_err() || kept {
            let index = queue.ring()?.index();

            dev_err!(
                queue.platform,
                "the device does not reset queue {}\n",
                index
            );
            return Err(if done.is_err() { EIO } else { ENOENT });
        }
        callback.turn_off();
        self.interrupt.synchronize();
        Ok(())
    }

    /// Gives a queue that was reset to the device again.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the device has it, `EIO` if it does not take it.
    pub(super) fn restart(&self, queue: &Virtqueue) -> Result {
        let (queue, callback) = self.select(queue)?;
        let window = queue.window;

        if window.read(regs::QueueReset) != 0 || window.read(regs::QueueReady) != 0 {
            return Err(EBUSY);
        }
        callback.turn_on();
        queue.start()
    }
}
