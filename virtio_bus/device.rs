// SPDX-License-Identifier: GPL-2.0

//! The device as this module sees it: what its transport can do, in safe methods.
//!
//! Here is where a device is asked; what is made of the answers stands in `lifecycle.rs`.

use super::{
    driver::VirtioDriver,
    ids::Id,
    index::Index,
    status::Status, //
};
use crate::{
    config::Features,
    virtio::{
        bindings::{
            self,
            virtio_config_ops,
            virtio_device, //
        },
        reset::{
            self,
            state::Answer, //
        }, //
    }, //
};

use kernel::{
    container_of,
    dev_err,
    device::Device,
    error::to_result,
    prelude::*,
    sync::rcu::synchronize_rcu,
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
    types::Opaque, //
};

/// How long a device may take to reset if its transport does not wait.
const RESET_PATIENCE: Delta = Delta::from_secs(5);

/// A device on the virtio bus, or on its way there.
///
/// # Invariants
///
/// A valid `struct virtio_device` whose `config` points to the table of a transport. The table and
/// the functions in it outlive the device, and each of them may be called with it.
#[repr(transparent)]
pub(super) struct VirtioDevice(Opaque<virtio_device>);

impl VirtioDevice {
    /// Takes what a transport or a driver passes to a C function.
    ///
    /// # Safety
    ///
    /// The type invariants must hold for `vdev` during `'a`.
    pub(super) unsafe fn from_raw<'a>(vdev: *mut virtio_device) -> &'a Self {
        // SAFETY: By the safety requirements; the type is transparent.
        unsafe { &*vdev.cast::<Self>() }
    }

    /// Takes what the driver core passes to a callback of the bus.
    ///
    /// # Safety
    ///
    /// `dev` must be that of a device on the virtio bus, for which the type invariants hold during
    /// `'a`.
    pub(super) unsafe fn from_dev<'a>(dev: *const bindings::device) -> &'a Self {
        // SAFETY: All devices of the bus are embedded so, by the safety requirements.
        let vdev = unsafe { container_of!(dev.cast_mut(), virtio_device, dev) };
        // SAFETY: By the safety requirements.
        unsafe { Self::from_raw(vdev) }
    }

    /// The C structure.
    pub(super) fn as_raw(&self) -> *mut virtio_device {
        self.0.get()
    }

    /// The embedded device of the driver core.
    pub(super) fn as_dev(&self) -> *mut bindings::device {
        // SAFETY: By the type invariants; only an address is formed.
        unsafe { &raw mut (*self.as_raw()).dev }
    }

    /// The operations of the transport.
    pub(super) fn ops(&self) -> &virtio_config_ops {
        // SAFETY: By the type invariants.
        unsafe { &*(*self.as_raw()).config }
    }

    /// Tells whether the transport has all operations that it must have.
    pub(super) fn is_complete(&self) -> bool {
        let ops = self.ops();

        ops.get_status.is_some()
            && ops.set_status.is_some()
            && ops.reset.is_some()
            && (ops.get_features.is_some() || ops.get_extended_features.is_some())
            && ops.finalize_features.is_some()
    }

    /// Type and vendor.
    pub(super) fn id(&self) -> Id {
        // SAFETY: By the type invariants; the transport sets the id before it registers the device.
        let id = unsafe { &raw const (*self.as_raw()).id };
        // SAFETY: As above; nobody changes the id.
        let id = unsafe { id.read() };

        Id {
            device: id.device,
            vendor: id.vendor,
        }
    }

    /// The number of the device on the bus.
    pub(super) fn index(&self) -> Index {
        // SAFETY: By the type invariants; `register` sets it once, before anybody else looks.
        Index::from_raw(unsafe { (*self.as_raw()).index })
    }

    /// The driver, if there is one.
    pub(super) fn driver(&self) -> Option<&VirtioDriver> {
        // SAFETY: By the type invariants; the driver core writes the pointer in one piece.
        let driver = unsafe { (&raw const (*self.as_dev()).driver).read_volatile() };

        // SAFETY: A driver of a virtio device is registered by this module; it stays valid while
        // the device is bound, which callbacks of the bus and of transports can rely on.
        (!driver.is_null()).then(|| unsafe { VirtioDriver::from_driver(driver) })
    }

    // Status

    /// The status, as the device says now.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn status(&self) -> Status {
        let Some(get) = self.ops().get_status else {
            return Status::RESET;
        };
        // SAFETY: By the type invariants.
        Status::from_bits(unsafe { get(self.as_raw()) })
    }

    /// Writes the status.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn set_status(&self, status: Status) {
        if let Some(set) = self.ops().set_status {
            // SAFETY: By the type invariants.
            unsafe { set(self.as_raw(), status.bits()) };
        }
    }

    /// Adds bits to the status, unless the device has gone.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn add_status(&self, bits: Status) {
        let status = self.status();

        if !status.is_gone() {
            self.set_status(status.with(bits));
        }
    }

    /// Resets the device, and waits until it says that the reset is complete (2.4.2) or has gone.
    /// Then it neither notifies nor touches memory of the driver.
    ///
    /// A transport that has waited has said its say; only others are waited for.
    ///
    /// # Errors
    ///
    /// `EIO` if it does not say so in time, or refuses. It may still do both then, and counts as
    /// failed ([`Self::was_failed`]).
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn reset(&self) -> Result {
        if cfg!(CONFIG_VIRTIO_HARDEN_NOTIFICATION) {
            self.break_queues();
            self.synchronize_callbacks();
        }
        let asked = Instant::<Monotonic>::now();

        if let Some(reset) = self.ops().reset {
            // SAFETY: By the type invariants.
            unsafe { reset(self.as_raw()) };
        }
        let look = || Answer::of(self.status().bits());
        let answer = match asked.elapsed() < RESET_PATIENCE {
            true => reset::wait(asked, RESET_PATIENCE, look),
            false => look(),
        };

        if matches!(answer, Answer::Done | Answer::Gone) {
            return Ok(());
        }
        dev_err!(
            self.as_ref(),
            "the device does not finish its reset: status {:#x}\n",
            self.status().bits()
        );
        self.set_was_failed(true);
        Err(EIO)
    }

    // Features

    /// The features that the device offers now; each call may give others.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn offered(&self) -> Features {
        let mut words = Features::default().words();

        if let Some(get) = self.ops().get_extended_features {
            // SAFETY: By the type invariants; there is room for the words that are asked for.
            unsafe { get(self.as_raw(), words.as_mut_ptr()) };
        } else if let Some(get) = self.ops().get_features {
            // SAFETY: By the type invariants.
            words[0] = unsafe { get(self.as_raw()) };
        }
        Features::from_words(words)
    }

    /// The negotiated features; before negotiation is complete, those under consideration.
    pub(super) fn features(&self) -> Features {
        // SAFETY: By the type invariants. Both members of the union are plain words, which change
        // only during probe and restore.
        Features::from_words(unsafe { (*self.as_raw()).__bindgen_anon_1.features_array })
    }

    /// Changes the features under consideration.
    pub(super) fn set_features(&self, features: Features) {
        // SAFETY: As above; only probe calls this, when no driver uses the device yet.
        unsafe { (*self.as_raw()).__bindgen_anon_1.features_array = features.words() };
    }

    /// Lets the transport tell the device the features under consideration; it may decline some.
    ///
    /// # Errors
    ///
    /// Those of the transport.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn finalize_features(&self) -> Result {
        let finalize = self.ops().finalize_features.ok_or(EINVAL)?;

        // SAFETY: By the type invariants.
        to_result(unsafe { finalize(self.as_raw()) })
    }

    /// Tells whether the platform lets devices reach only some of the memory.
    #[cfg(CONFIG_VIRTIO_ANCHOR)]
    pub(super) fn needs_restricted_memory(&self) -> bool {
        // SAFETY: The platform sets the variable while it boots.
        let check = unsafe { bindings::virtio_check_mem_acc_cb };

        // SAFETY: By the type invariants.
        check.is_some_and(|check| unsafe { check(self.as_raw()) })
    }

    // Queues

    /// Breaks all queues: from now on they take no buffer and do not notify the device.
    pub(super) fn break_queues(&self) {
        // SAFETY: By the type invariants; `register` made the list of queues.
        unsafe { bindings::virtio_break_device(self.as_raw()) };
    }

    /// The opposite of [`Self::break_queues`], for kernels that create queues broken.
    pub(super) fn unbreak_queues(&self) {
        // SAFETY: As above.
        unsafe { bindings::__virtio_unbreak_device(self.as_raw()) };
    }

    /// Tells whether there is a queue that is not broken.
    ///
    /// # Context
    ///
    /// The driver must be kept bound.
    pub(super) fn has_sound_queue(&self) -> bool {
        let vdev = self.as_raw();
        // SAFETY: By the type invariants; `register` initialised the lock.
        let (lock, head) = unsafe { (&raw mut (*vdev).vqs_list_lock, &raw mut (*vdev).vqs) };
        let mut found = false;

        // SAFETY: As above.
        unsafe { bindings::spin_lock(lock) };
        // SAFETY: Under the lock the list is stable.
        let mut entry = unsafe { (*head).next };
        while entry != head && !found {
            // SAFETY: Queues are on the list by this member.
            let vq = unsafe { container_of!(entry, bindings::virtqueue, list) };

            // SAFETY: Queues on the list are valid.
            found = !unsafe { bindings::virtqueue_is_broken(vq) };
            // SAFETY: As for the first one.
            entry = unsafe { (*entry).next };
        }
        // SAFETY: It was locked above.
        unsafe { bindings::spin_unlock(lock) };
        found
    }

    /// Waits for the callbacks of queues that run now; later ones see what was done before.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn synchronize_callbacks(&self) {
        match self.ops().synchronize_cbs {
            // SAFETY: By the type invariants.
            Some(synchronize) => unsafe { synchronize(self.as_raw()) },
            None => synchronize_rcu(),
        }
    }

    // What is remembered

    /// Whether the device was failed when it was frozen, or did not finish a reset since.
    pub(super) fn was_failed(&self) -> bool {
        // SAFETY: By the type invariants; only who resets the device uses the field, one at a time.
        unsafe { (*self.as_raw()).failed }
    }

    /// Remembers whether the device is failed.
    pub(super) fn set_was_failed(&self, failed: bool) {
        // SAFETY: As above.
        unsafe { (*self.as_raw()).failed = failed };
    }
}

impl AsRef<Device> for VirtioDevice {
    fn as_ref(&self) -> &Device {
        // SAFETY: By the type invariants; the embedded device lives as long as this one.
        unsafe { Device::from_raw(self.as_dev()) }
    }
}
