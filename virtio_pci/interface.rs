// SPDX-License-Identifier: GPL-2.0

//! What the two interfaces that a device can have are to the rest of the driver.
//!
//! A device has the modern interface (Virtio 1.4, 4.1.4), the legacy one (4.1.4.10), or both.
//! Nothing here is chosen while the device works: all that uses an interface is generic over it.

#![deny(unsafe_code)]

use crate::{
    config::Features,
    kernel_ext::io_address::IoAddress,
    virtio::{
        transport::{
            ring::{
                Ring,
                Virtqueue,
                Wish, //
            },
            Device,
            Identity,
            SharedMemory, //
        }, //
    },
};

use kernel::prelude::*;

/// An interface of one device: its registers.
///
/// The core serialises what changes the device; what selects a queue is called by one thread at a
/// time.
pub(crate) trait Interface: Send + Sync {
    /// What notifications of a queue are written to.
    type Bell: IoAddress;

    /// What kind of device it is.
    fn identity(&self) -> Identity;

    /// Tells whether there is a device configuration space.
    fn has_config(&self) -> bool;

    /// Reads the device configuration space.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it does not have those bytes.
    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> Result;

    /// Writes the device configuration space; otherwise as [`Self::read_config`].
    fn write_config(&self, offset: usize, bytes: &[u8]) -> Result;

    /// The number that changes with the configuration.
    fn generation(&self) -> u32;

    /// The device status.
    fn status(&self) -> u8;

    /// Sets bits of the device status.
    fn set_status(&self, status: u8);

    /// Tells the device to reset, and does not wait.
    fn begin_reset(&self);

    /// The features the device offers.
    fn offered_features(&self) -> Features;

    /// The feature bits of transports that this one knows beside those of the ring.
    fn own_features(&self) -> Features;

    /// Tells the device what was negotiated.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the device offers what does not go together.
    fn accept_features(&self, dev: &Device, features: Features) -> Result;

    /// Looks a shared memory region up.
    fn shared_memory(&self, id: u8) -> Option<SharedMemory>;

    /// Reads the interrupt status (Virtio 1.4, 4.1.4.5), which acknowledges it.
    ///
    /// # Context
    ///
    /// Any, even a hard interrupt.
    fn interrupt_status(&self) -> u8;

    /// MSI-X was enabled or disabled.
    fn msix_changed(&self, enabled: bool);

    /// Sets the vector of configuration changes; returns what the device made of it.
    fn set_config_vector(&self, vector: u16) -> u16;

    /// Makes queue number `index`. The device does not know of it yet.
    ///
    /// # Errors
    ///
    /// `EINVAL` or `ENOENT` if there is no such queue, `ENOENT` if it is in use; `EINVAL` if the
    /// device says what makes no sense; `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    fn make_ring(&self, index: u32, wish: &Wish<'_>) -> Result<Ring<Self::Bell>>;

    /// Tells the device where a queue is, and its vector if it has one.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the device does not take the vector; `E2BIG` if it cannot be told the place.
    fn describe(&self, queue: &Virtqueue, vector: u16) -> Result;

    /// Gives a queue to the device, after all that has to be said about it.
    fn enable(&self, queue: &Virtqueue);

    /// Takes a queue back from a device that does not use it; `msix`: it had vectors. Returns
    /// whether the device gives it back.
    fn retire(&self, queue: &Virtqueue, msix: bool) -> bool;

    /// Takes a queue back from a live device (`VIRTIO_F_RING_RESET`), and waits until it lets go.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the device cannot do that, `EIO` if it does not do it.
    ///
    /// # Context
    ///
    /// May sleep.
    fn reset_queue(&self, _dev: &Device, _queue: &Virtqueue) -> Result {
        Err(ENOENT)
    }

    /// Tells whether the device has let go of a queue that was reset.
    fn is_queue_reset(&self, _queue: &Virtqueue) -> bool {
        false
    }

    /// The index of the queue for administration (Virtio 1.4, 2.13), if that was negotiated.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the device says what makes no sense.
    fn admin_queue(&self, _dev: &Device) -> Result<Option<u16>> {
        Ok(None)
    }
}
