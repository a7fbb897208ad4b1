// SPDX-License-Identifier: GPL-2.0

//! The virtqueues of a device, from their creation to their deletion.

#![deny(unsafe_code)]

use super::{
    admin::{
        Admin,
        Lease, //
    },
    device::VirtioDevice,
    interface::Interface,
    interrupts::{
        Interrupts,
        Msix, //
    },
    vectors::{
        self,
        Need,
        Policy,
        Sharing, //
    }, //
};
use crate::{
    kernel_ext::irq_vectors,
    virtio::transport::{
        ring::{
            Own,
            Ring,
            Virtqueue,
            Wanted,
            Wish, //
        },
        Device,
        DeviceOf, //
    },
};

// The kernel's atomics call a function to read a byte, for each queue in each interrupt.
use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    cpumask::Cpumask,
    device::Bound,
    pci,
    prelude::*,
    sync::Arc, //
};

/// A queue that is to be made.
pub(super) struct Request<'a> {
    index: u32,
    wish: Wish<'a>,
    slow: bool,
}

impl Request<'_> {
    fn need(&self) -> Need {
        Need {
            callback: self.wish.has_callback(),
            slow: self.slow,
        }
    }
}

/// A queue that the device may use.
///
/// Dropping it takes it back. If the device does not let go of it, its memory is lost.
pub(super) struct Queue<I: Interface> {
    interface: Arc<I>,
    /// There until `drop`.
    ring: Option<Arc<Ring<I::Bell>>>,
    vector: u16,
    /// The device has vectors.
    msix: bool,
    /// The driver may be called for used buffers.
    running: AtomicBool,
    /// Nothing is to be called.
    silent: bool,
}

impl<I: Interface> Queue<I> {
    /// Makes a queue and describes it to the device.
    fn new(interface: &Arc<I>, request: &Request<'_>, vector: u16, msix: bool) -> Result<Self> {
        let ring = interface.make_ring(request.index, &request.wish)?;
        let ring = Arc::new(ring, GFP_KERNEL)?;

        interface.describe(&ring, vector)?;
        Ok(Self {
            interface: interface.clone(),
            ring: Some(ring),
            vector,
            msix,
            running: AtomicBool::new(true),
            silent: !request.wish.has_callback(),
        })
    }

    /// The ring, until the queue is dropped.
    pub(super) fn ring(&self) -> Option<&Arc<Ring<I::Bell>>> {
        self.ring.as_ref()
    }

    /// The vector that serves it, if it is heard.
    pub(super) fn vector(&self) -> u16 {
        self.vector
    }

    /// Tells whether somebody wants to hear of used buffers.
    pub(super) fn is_heard(&self) -> bool {
        !self.silent
    }

    /// Looks for used buffers; returns whether there were any.
    #[inline(always)]
    pub(super) fn interrupt(&self) -> bool {
        match &self.ring {
            Some(ring) if self.running.load(Ordering::Relaxed) => ring.interrupt(),
            _ => false,
        }
    }
}

impl<I: Interface> Drop for Queue<I> {
    fn drop(&mut self) {
        let Some(ring) = self.ring.take() else {
            return;
        };

        let given_back = self.interface.retire(&ring, self.msix);

        // It was said so if a device keeps all that it has.
        if !given_back && !ring.is_lost() {
            pr_err!(
                "the device does not give queue {} back, its memory is lost\n",
                ring.index()
            );
            ring.leak();
        }
    }
}

/// The queues of a device and its interrupts.
///
/// The fields are dropped in this order: interrupts before the queues, which their handlers have,
/// then vectors.
pub(super) struct Active<'bound, I: Interface> {
    /// The use of the queue for administration, which is the last of the queues if there is one.
    lease: Option<Lease<I::Bell>>,
    interrupts: Interrupts<'bound, I>,
    queues: KVec<Arc<Queue<I>>>,
    msix: Option<Msix<'bound, I>>,
}

impl<'bound, I: Interface + 'bound> Active<'bound, I> {
    /// Makes all queues that a driver wants, and one for `admin` if the device has that, and gives
    /// them to the device, with as many vectors as there are.
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    pub(super) fn new(
        pci: &'bound pci::Device<Bound>,
        interface: &Arc<I>,
        dev: &DeviceOf<VirtioDevice<'bound, I>>,
        wanted: &Wanted<'_>,
        own: Option<Own<VirtioDevice<'bound, I>>>,
        admin: &Arc<Admin>,
    ) -> Result<Self> {
        let own = own.map(|own| (own.index, own.wish(dev)));
        let has_own = own.is_some();
        let requests = requests(wanted, own)?;
        let mut active = Self::attempt(pci, interface, dev, wanted, &requests)?;

        if has_own {
            let queue = active.queues.last().and_then(|queue| queue.ring());

            active.lease = queue.map(|ring| Lease::new(admin, ring));
        }
        Ok(active.enabled())
    }

    /// Makes the queues with as many vectors as there are.
    fn attempt(
        pci: &'bound pci::Device<Bound>,
        interface: &Arc<I>,
        dev: &Device,
        wanted: &Wanted<'_>,
        requests: &[Request<'_>],
    ) -> Result<Self> {
        let mut error = ENODEV;

        for policy in Policy::ALL {
            let affinity = wanted.affinity().filter(|_| policy.has_own());
            let count = Sharing::count(policy, requests.iter().map(Request::need));
            let msix = match Msix::new(pci, interface, count, affinity) {
                Ok(msix) => msix,
                Err(reason) => {
                    error = reason;
                    continue;
                }
            };

            match Self::with_vectors(interface, dev, requests, policy, msix) {
                Ok(active) => return Ok(active),
                // The device does not have such a queue, whatever its vectors.
                Err(reason @ (ENOENT | EINVAL | E2BIG)) => return Err(reason),
                Err(reason) => error = reason,
            }
        }
        if irq_vectors::intx_line(pci).is_none() {
            return Err(error);
        }
        Self::with_line(pci, interface, dev, requests)
    }

    /// Makes the queues with vectors.
    fn with_vectors(
        interface: &Arc<I>,
        dev: &Device,
        requests: &[Request<'_>],
        policy: Policy,
        msix: Msix<'bound, I>,
    ) -> Result<Self> {
        let mut sharing = Sharing::new(policy);
        let queues = make(requests, |request| {
            let vector = sharing.vector(request.need());

            Queue::new(interface, request, vector, true)
        })?;

        Ok(Self {
            lease: None,
            interrupts: Interrupts::vectors(&msix, dev, &queues, policy)?,
            queues,
            msix: Some(msix),
        })
    }

    /// Makes the queues with one INTx interrupt.
    fn with_line(
        pci: &'bound pci::Device<Bound>,
        interface: &Arc<I>,
        dev: &Device,
        requests: &[Request<'_>],
    ) -> Result<Self> {
        let queues = make(requests, |request| {
            Queue::new(interface, request, vectors::NONE, false)
        })?;

        Ok(Self {
            lease: None,
            interrupts: Interrupts::line(pci, interface, dev, &queues)?,
            queues,
            msix: None,
        })
    }

    /// Gives all queues to the device. There is no way back from here but a reset.
    fn enabled(self) -> Self {
        for queue in &self.queues {
            if let Some(ring) = queue.ring() {
                queue.interface.enable(ring);
            }
        }
        self
    }

    /// The queues, in the order in which the driver wants them.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Virtqueue> {
        let rings = self.queues.iter().filter_map(|queue| queue.ring());

        rings.map(|ring| &***ring)
    }

    /// The device may still use the queues, for ever: their memory is lost when they are dropped.
    pub(super) fn lose(&self) {
        for ring in self.queues.iter().filter_map(|queue| queue.ring()) {
            ring.leak();
        }
    }

    /// Waits for callbacks of queues that run on other CPUs.
    pub(super) fn wait_for_callbacks(&self) {
        self.interrupts.synchronize();
    }

    /// Says on which CPUs the interrupt of a queue should be handled.
    ///
    /// # Errors
    ///
    /// `EINVAL` if nobody hears of the queue; `ENOMEM`.
    pub(super) fn set_affinity(&mut self, queue: &Virtqueue, cpus: Option<&Cpumask>) -> Result {
        let queue = find(&self.queues, queue.index()).ok_or(EINVAL)?;

        if !queue.is_heard() {
            return Err(EINVAL);
        }
        self.interrupts.set_affinity(queue.vector, cpus)
    }

    /// The CPUs that the vector of a queue was spread to, if it has one of its own.
    pub(super) fn affinity(&self, index: u32) -> *const Cpumask {
        match (&self.msix, find(&self.queues, index)) {
            (Some(msix), Some(queue)) if self.interrupts.has_own(queue.vector) => {
                msix.affinity(queue.vector)
            }
            _ => core::ptr::null(),
        }
    }

    /// Takes one queue back from the device (Virtio 1.4, 2.6.1).
    ///
    /// # Errors
    ///
    /// `ENOENT` if that was not negotiated, `EIO` if it does not come to an end. Either way the
    /// device still has the queue.
    pub(super) fn reset(&self, dev: &Device, queue: &Virtqueue) -> Result {
        let found = find(&self.queues, queue.index()).ok_or(ENOENT)?;

        found.interface.reset_queue(dev, queue)?;
        found.running.store(false, Ordering::Relaxed);
        self.interrupts.synchronize();
        Ok(())
    }

    /// Gives a queue that was reset to the device again.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the device has it, or does not take its vector.
    pub(super) fn restart(&self, queue: &Virtqueue) -> Result {
        let found = find(&self.queues, queue.index()).ok_or(ENOENT)?;

        if !found.interface.is_queue_reset(queue) {
            return Err(EBUSY);
        }
        found.interface.describe(queue, found.vector)?;
        found.running.store(true, Ordering::Relaxed);
        found.interface.enable(queue);
        Ok(())
    }
}

/// All queues that are to be made, the transport's own last.
fn requests<'a>(wanted: &Wanted<'a>, own: Option<(u32, Wish<'a>)>) -> Result<KVec<Request<'a>>> {
    let mut requests = KVec::with_capacity(wanted.wishes().count() + 1, GFP_KERNEL)?;
    let of_driver = (0..).zip(wanted.wishes());
    let of_driver = of_driver.map(|(index, wish)| (index, wish, false));
    let of_transport = own.map(|(index, wish)| (index, wish, true));

    for (index, wish, slow) in Iterator::chain(of_driver, of_transport) {
        requests.push(Request { index, wish, slow }, GFP_KERNEL)?;
    }
    Ok(requests)
}

/// Makes a queue for each request.
fn make<I: Interface>(
    requests: &[Request<'_>],
    mut queue: impl FnMut(&Request<'_>) -> Result<Queue<I>>,
) -> Result<KVec<Arc<Queue<I>>>> {
    let mut queues = KVec::with_capacity(requests.len(), GFP_KERNEL)?;

    for request in requests {
        queues.push(Arc::new(queue(request)?, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    Ok(queues)
}

/// The queue with an index.
fn find<I: Interface>(queues: &[Arc<Queue<I>>], index: u32) -> Option<&Arc<Queue<I>>> {
    let has_index = |queue: &&Arc<Queue<I>>| queue.ring().is_some_and(|ring| ring.index() == index);

    queues.iter().find(has_index)
}
