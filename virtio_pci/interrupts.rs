// SPDX-License-Identifier: GPL-2.0

//! The interrupts of a device: MSI-X vectors, or INTx (Virtio 1.4, 4.1.5.3 and 4.1.5.4).
//!
//! They are requested when all queues are there and given up before the first of them goes, so
//! handlers walk over arrays that do not change.

use super::{
    interface::Interface,
    queues::Queue,
    vectors::{
        self,
        Policy, //
    }, //
};
use crate::{
    kernel_ext::{
        irq_handler::RawHandler,
        irq_vectors::{
            Registration,
            Vectors, //
        }, //
    },
    virtio::transport::{
        ring::Ring,
        Device, //
    },
};

use kernel::{
    bindings,
    cpumask::Cpumask,
    device::Bound,
    irq::{
        Handler,
        IrqReturn, //
    },
    pci,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// Bit of the interrupt status: the configuration changed (Virtio 1.4, 4.1.4.5).
const ISR_CONFIG: u8 = 2;

/// The vectors of a device, the first of which is for configuration changes.
pub(super) struct Msix<'bound, I: Interface> {
    interface: Arc<I>,
    vectors: Arc<Vectors<'bound>>,
}

impl<'bound, I: Interface> Msix<'bound, I> {
    /// Allocates `count` vectors. The first one is set apart when the others are spread over CPUs.
    ///
    /// # Errors
    ///
    /// That of the allocation; `EBUSY` if the device cannot use them.
    pub(super) fn new(
        pci: &'bound pci::Device<Bound>,
        interface: &Arc<I>,
        count: u32,
        affinity: Option<bindings::irq_affinity>,
    ) -> Result<Self> {
        let affinity = affinity.map(|affinity| bindings::irq_affinity {
            pre_vectors: affinity.pre_vectors + 1,
            ..affinity
        });
        let vectors = Vectors::new(pci, count, affinity)?;

        interface.msix_changed(true);
        let this = Self {
            interface: interface.clone(),
            vectors,
        };

        match interface.set_config_vector(vectors::CONFIG) {
            vectors::NONE => Err(EBUSY),
            _ => Ok(this),
        }
    }

    /// The CPUs that a vector was spread to.
    pub(super) fn affinity(&self, vector: u16) -> *const Cpumask {
        self.vectors.affinity(vector)
    }

    /// Has `handler` called for a vector; `what` stands after the device's name in
    /// `/proc/interrupts`.
    fn request<H: RawHandler + 'bound>(
        &self,
        vector: u16,
        dev: &Device,
        what: &CStr,
        handler: H,
    ) -> Result<Registration<'bound, H>> {
        let name = joined(name(dev), what)?;

        // SAFETY: It goes with the device's queues, and at the latest with the device's part of
        // the driver.
        unsafe { Registration::vector(&self.vectors, vector, name, handler) }
    }
}

impl<I: Interface> Drop for Msix<'_, I> {
    fn drop(&mut self) {
        self.interface.set_config_vector(vectors::NONE);
        self.interface.msix_changed(false);
    }
}

/// The device's name on the virtio bus.
fn name(dev: &Device) -> &CStr {
    kernel::device::Device::name(dev.as_ref())
}

/// A device's name, a hyphen, and the name of what interrupts. The kernel crate's formatting takes
/// 1,500 instructions for it.
fn joined(device: &CStr, what: &CStr) -> Result<CString> {
    let parts = [device.to_bytes(), b"-", what.to_bytes_with_nul()];
    let length = parts.iter().map(|part| part.len()).sum();
    let mut bytes = KVec::with_capacity(length, GFP_KERNEL)?;

    for part in parts {
        bytes.extend_from_slice(part, GFP_KERNEL)?;
    }
    let joined = CStr::from_bytes_with_nul(&bytes).map_err(|_| EINVAL)?;

    Ok(CString::try_from(joined)?)
}

/// Handles configuration changes, and queues that share their vector.
pub(super) struct ConfigChange<I: Interface> {
    device: ARef<Device>,
    slow: KVec<Arc<Queue<I>>>,
}

impl<I: Interface> Handler for ConfigChange<I> {
    fn handle(&self) -> IrqReturn {
        self.device.config_changed();
        for queue in &self.slow {
            queue.interrupt();
        }
        IrqReturn::Handled
    }
}

/// Handles the vector of all queues.
pub(super) struct AllQueues<I: Interface>(KVec<Arc<Queue<I>>>);

impl<I: Interface> AllQueues<I> {
    /// Looks for used buffers in all queues; returns whether there were any.
    fn interrupt(&self) -> bool {
        let mut handled = false;

        for queue in &self.0 {
            handled |= queue.interrupt();
        }
        handled
    }
}

impl<I: Interface> Handler for AllQueues<I> {
    fn handle(&self) -> IrqReturn {
        match self.interrupt() {
            true => IrqReturn::Handled,
            false => IrqReturn::None,
        }
    }
}

/// Handles an INTx interrupt.
pub(super) struct Line<I: Interface> {
    interface: Arc<I>,
    device: ARef<Device>,
    queues: AllQueues<I>,
}

impl<I: Interface> Handler for Line<I> {
    fn handle(&self) -> IrqReturn {
        // Reading it acknowledges it; what happens from now on interrupts again.
        let status = self.interface.interrupt_status();

        // All ones come from a device that is not there.
        if matches!(status, 0 | 0xff) {
            return IrqReturn::None;
        }
        if status & ISR_CONFIG != 0 {
            self.device.config_changed();
        }
        self.queues.interrupt();
        IrqReturn::Handled
    }
}

/// The handler of a queue's own vector.
type Own<I> = Arc<Ring<<I as Interface>::Bell>>;

/// The interrupts of a device; none is handled any more when this was dropped.
pub(super) enum Interrupts<'bound, I: Interface> {
    /// Each queue has its vector, but for those that share that of configuration changes.
    Each {
        config: Registration<'bound, KBox<ConfigChange<I>>>,
        /// With the number of the vector.
        queues: KVec<(u16, Registration<'bound, Own<I>>)>,
    },
    /// All queues share a vector.
    Shared {
        config: Registration<'bound, KBox<ConfigChange<I>>>,
        queues: Registration<'bound, KBox<AllQueues<I>>>,
    },
    /// There are no vectors.
    Line(Registration<'bound, KBox<Line<I>>>),
}

impl<'bound, I: Interface + 'bound> Interrupts<'bound, I> {
    /// Requests vectors for queues that have been given theirs by `policy`.
    ///
    /// # Errors
    ///
    /// That of `request_irq()`; `ENOMEM`.
    pub(super) fn vectors(
        msix: &Msix<'bound, I>,
        dev: &Device,
        queues: &[Arc<Queue<I>>],
        policy: Policy,
    ) -> Result<Self> {
        let handler = ConfigChange {
            device: ARef::from(dev),
            slow: served_by(queues, vectors::CONFIG)?,
        };
        let handler = KBox::new(handler, GFP_KERNEL)?;
        let config = msix.request(vectors::CONFIG, dev, c"config", handler)?;

        if !policy.has_own() {
            let handler = AllQueues(served_by(queues, vectors::SHARED)?);
            let handler = KBox::new(handler, GFP_KERNEL)?;

            return Ok(Self::Shared {
                config,
                queues: msix.request(vectors::SHARED, dev, c"virtqueues", handler)?,
            });
        }
        let mut own = KVec::with_capacity(queues.len(), GFP_KERNEL)?;

        for queue in queues {
            let vector = queue.vector();
            let Some(ring) = queue.ring() else {
                continue;
            };

            if !matches!(vector, vectors::CONFIG | vectors::NONE) {
                let registration = msix.request(vector, dev, ring.name(), ring.clone())?;

                own.push((vector, registration), GFP_KERNEL)?;
            }
        }
        Ok(Self::Each {
            config,
            queues: own,
        })
    }

    /// Requests the device's INTx interrupt.
    ///
    /// # Errors
    ///
    /// As for [`Self::vectors`].
    pub(super) fn line(
        pci: &'bound pci::Device<Bound>,
        interface: &Arc<I>,
        dev: &Device,
        queues: &[Arc<Queue<I>>],
    ) -> Result<Self> {
        let handler = Line {
            interface: interface.clone(),
            device: ARef::from(dev),
            queues: AllQueues(served_by(queues, vectors::NONE)?),
        };
        let handler = KBox::new(handler, GFP_KERNEL)?;
        let name = CString::try_from(name(dev))?;

        // SAFETY: It goes with the device's queues, and at the latest with the device's part of
        // the driver.
        Ok(Self::Line(unsafe {
            Registration::intx(pci, name, handler)
        }?))
    }

    /// Waits for handlers that run on other CPUs.
    pub(super) fn synchronize(&self) {
        match self {
            Self::Each { config, queues } => {
                config.synchronize();
                for (_, queue) in queues {
                    queue.synchronize();
                }
            }
            Self::Shared { config, queues } => {
                config.synchronize();
                queues.synchronize();
            }
            Self::Line(line) => line.synchronize(),
        }
    }

    /// Tells whether a vector serves one queue alone.
    pub(super) fn has_own(&self, vector: u16) -> bool {
        match self {
            Self::Each { queues, .. } => queues.iter().any(|(own, _)| *own == vector),
            _ => false,
        }
    }

    /// Moves a vector to some CPUs; INTx stays where it is.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn set_affinity(&mut self, vector: u16, cpus: Option<&Cpumask>) -> Result {
        match self {
            Self::Line(_) => Ok(()),
            Self::Each { config, .. } | Self::Shared { config, .. }
                if vector == vectors::CONFIG =>
            {
                config.set_affinity(cpus)
            }
            Self::Shared { queues, .. } => queues.set_affinity(cpus),
            Self::Each { queues, .. } => {
                let mut queues = queues.iter_mut();

                match queues.find(|(own, _)| *own == vector) {
                    Some((_, queue)) => queue.set_affinity(cpus),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The queues that somebody wants to hear of and that a vector serves.
fn served_by<I: Interface>(queues: &[Arc<Queue<I>>], vector: u16) -> Result<KVec<Arc<Queue<I>>>> {
    let mut served = KVec::with_capacity(queues.len(), GFP_KERNEL)?;

    for queue in queues {
        if queue.is_heard() && queue.vector() == vector {
            served.push(queue.clone(), GFP_KERNEL)?;
        }
    }
    Ok(served)
}
