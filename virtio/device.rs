// SPDX-License-Identifier: GPL-2.0

//! The virtio device: features, status, configuration space.
//!
//! Follows `struct virtio_device` of `include/linux/virtio.h` and Virtio 1.4, 2.1 to 2.5.

use super::{
    bindings,
    driver::Binding,
    endian::ByteOrder,
    id::DeviceId, //
};
use crate::config::{
    consistent,
    FeatureBit,
    Features,
    Field,
    Value,
    VERSION_1, //
};

use core::{
    marker::PhantomData,
    mem::offset_of,
    ops::Deref,
    ptr::{
        addr_of_mut,
        from_ref,
        null, //
    }, //
};
use kernel::{
    device,
    io::poll::read_poll_timeout,
    prelude::*,
    time::Delta,
    types::Opaque, //
};

#[cfg(CONFIG_VIRTIO_HARDEN_NOTIFICATION)]
compile_error!("drivers in Rust do not know how to make a hardened device live");

/// `DRIVER_OK` of the device status (Virtio 1.4, 2.1).
const STATUS_DRIVER_OK: u8 = 4;

/// `DEVICE_NEEDS_RESET` of the device status (Virtio 1.4, 2.1).
const STATUS_NEEDS_RESET: u8 = 64;

/// What the status of a device that has gone reads as.
const STATUS_GONE: u8 = 0xff;

/// How long a device may take for a reset beyond what core and transport give it.
const RESET_PATIENCE: Delta = Delta::from_secs(1);

/// How often it is asked meanwhile.
const RESET_POLL: Delta = Delta::from_millis(1);

/// A virtio device.
///
/// As with every bus of the kernel crate, the context says what may be done: [`device::Core`]
/// inside bus callbacks, [`device::Bound`] while the driver is bound, [`device::Normal`] otherwise.
///
/// # Invariants
///
/// Represents a valid `struct virtio_device` that was registered on the virtio bus, so `config` and
/// its operations other than `get`, `set`, `generation` and the optional ones are set.
#[repr(transparent)]
pub struct Device<Ctx: device::DeviceContext = device::Normal>(
    Opaque<bindings::virtio_device>,
    PhantomData<Ctx>,
);

impl<Ctx: device::DeviceContext> Device<Ctx> {
    /// The C structure.
    pub(super) fn as_raw(&self) -> *mut bindings::virtio_device {
        self.0.get()
    }

    /// The operations of the transport.
    pub(super) fn ops(&self) -> &bindings::virtio_config_ops {
        // SAFETY: By the type invariant `config` is set; transports keep their table in static
        // memory that outlives their devices.
        unsafe { &*(*self.as_raw()).config }
    }

    /// Type and vendor, for a driver that takes several.
    pub fn id(&self) -> DeviceId {
        // SAFETY: By the type invariant; nobody changes the id of a registered device.
        DeviceId::of_device(unsafe { (*self.as_raw()).id })
    }

    /// The negotiated features; before negotiation is complete, those still under consideration.
    pub fn features(&self) -> Features {
        // SAFETY: By the type invariant. Both members of the union are plain words. They change
        // during probe and restore, when threads of the driver may be reading them.
        let words = unsafe {
            (&raw const (*self.as_raw()).__bindgen_anon_1.features_array).read_volatile()
        };

        Features::from_words(words)
    }

    /// The byte order of buffers whose order depends on the kind of interface.
    pub fn byte_order(&self) -> ByteOrder {
        match self.features().has(VERSION_1) {
            true => ByteOrder::Little,
            false => ByteOrder::Native,
        }
    }
}

/// A device whose features are being negotiated: what [`Driver::validate`](super::Driver::validate)
/// is given, and nobody else.
pub struct Negotiation<'a>(&'a Device<device::Bound>);

impl<'a> Negotiation<'a> {
    /// # Safety
    ///
    /// The core must have asked the driver to look at the features, and wait for that.
    pub(super) unsafe fn new(dev: &'a Device<device::Bound>) -> Self {
        Self(dev)
    }

    /// Declines a feature.
    pub fn decline(&self, feature: FeatureBit) {
        let words = self.features().without(feature).words();

        // SAFETY: By the type invariant of the device. The core waits for `validate`, and nothing
        // else uses the features meanwhile.
        unsafe { (*self.as_raw()).__bindgen_anon_1.features_array = words };
    }
}

impl Deref for Negotiation<'_> {
    type Target = Device<device::Bound>;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

/// Proof that a device was reset: it does not touch the buffers in the queues that it had then.
pub struct Reset<'a>(PhantomData<&'a Device<device::Bound>>);

impl Device<device::Core<'_>> {
    /// Breaks all virtqueues, waits for their callbacks, and resets the device.
    ///
    /// For [`Driver::shutdown`](super::Driver::shutdown): it is of no more use to the driver then.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn shut_down(&self) {
        match self.binding() {
            Some(binding) => binding.shut_down(self),
            None => self.shut_down_raw(),
        }
    }
}

impl Device<device::Bound> {
    /// Reads a configuration field.
    ///
    /// A field that takes several accesses is read again until none of them saw another state of
    /// the device than the others.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the field depends on a feature that was not negotiated, or if the transport has
    /// no configuration space for this device; `EIO` if the device does not stop to change it.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn read<T: Value>(&self, field: &Field<T>) -> Result<T::Cpu> {
        let bytes = match field.tears() {
            true => self.read_together(|| self.read_once(field))?,
            false => self.read_once(field)?,
        };

        Ok(T::from_bytes(bytes, self.byte_order()))
    }

    /// Reads several fields that belong together: `read` is called until the device did not change
    /// its configuration meanwhile.
    ///
    /// # Examples
    ///
    /// ```
    /// use crate::virtio::prelude::*;
    ///
    /// const COLUMNS: Field<Virtio16> = Field::gated(0, 0);
    /// const ROWS: Field<Virtio16> = Field::gated(2, 0);
    ///
    /// /// The size of a console (Virtio 1.4, 5.3.4).
    /// fn size(dev: &Device<Bound>) -> Result<(u16, u16)> {
    ///     dev.read_together(|| Ok((dev.read(&COLUMNS)?, dev.read(&ROWS)?)))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// What `read` says; `EIO` if the device does not stop to change its configuration.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn read_together<R: PartialEq>(&self, read: impl FnMut() -> Result<R>) -> Result<R> {
        consistent(|| self.generation(), read)?.ok_or_else(|| {
            dev_err!(
                self,
                "the device does not stop to change its configuration\n"
            );
            EIO
        })
    }

    /// Reads the bytes of a configuration field, which may belong to different states of the
    /// device.
    fn read_once<T: Value>(&self, field: &Field<T>) -> Result<T::Bytes> {
        let get = self.ops().get.ok_or(ENOENT)?;
        if !field.exists(self.features()) {
            return Err(ENOENT);
        }
        Ok(field.read_by(|offset, part| {
            if let Ok(len) = c_uint::try_from(part.len()) {
                // SAFETY: The device is bound, hence valid; `part` has as many bytes as asked for.
                unsafe { get(self.as_raw(), offset, part.as_mut_ptr().cast(), len) };
            }
        }))
    }

    /// The generation counter of the configuration (Virtio 1.4, 2.5.1); `None` if there is none.
    fn generation(&self) -> Option<u32> {
        if !self.features().has(VERSION_1) {
            return None;
        }
        let generation = self.ops().generation?;
        // SAFETY: The device is bound, hence valid and registered.
        Some(unsafe { generation(self.as_raw()) })
    }

    /// Writes a configuration field.
    ///
    /// # Errors
    ///
    /// `ENOENT` as for [`Self::read`].
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn write<T: Value>(&self, field: &Field<T>, value: T::Cpu) -> Result {
        let set = self.ops().set.ok_or(ENOENT)?;
        if !field.exists(self.features()) {
            return Err(ENOENT);
        }
        let bytes = T::to_bytes(value, self.byte_order());
        field.write_by(&bytes, |offset, part| {
            if let Ok(len) = c_uint::try_from(part.len()) {
                // SAFETY: The device is bound, hence valid; `part` has the bytes announced.
                unsafe { set(self.as_raw(), offset, part.as_ptr().cast(), len) };
            }
        });
        Ok(())
    }

    /// Tells whether the device asks for a reset (Virtio 1.4, 2.1.2).
    ///
    /// A device that is gone reads as all ones and counts as asking, too.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn needs_reset(&self) -> bool {
        self.status() & STATUS_NEEDS_RESET != 0
    }

    /// Resets the device: it neither notifies the driver nor touches its memory any more. All
    /// queues refuse buffers and notifications from here on; what is left in them can be taken back
    /// ([`Queue::take_unused`](super::queue::Queue::take_unused)).
    ///
    /// A device that was reset since its queues were made is not reset again. Its queues are
    /// deleted when the driver gives it up, and new ones made only after the core has prepared it.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not say that the reset is complete (Virtio 1.4, 2.4.2): what it has
    /// is lost. `ENODEV` if it has no queues.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn reset(&self) -> Result<Reset<'_>> {
        self.binding().ok_or(ENODEV)?.reset(self)?;
        Ok(Reset(PhantomData))
    }

    /// Lets the device be found with its binding, or without one.
    ///
    /// # Safety
    ///
    /// The binding must exist until this is called again, and no queue may exist now. Nobody else
    /// may use the device.
    pub(super) unsafe fn set_binding(&self, binding: Option<&Binding>) {
        let binding = binding.map_or(null(), from_ref);

        // SAFETY: The device is bound, so `priv` is its driver's.
        unsafe { (*self.as_raw()).priv_ = binding.cast_mut().cast() };
    }

    /// What the driver and the device have in common; `None` before the probe begins and when the
    /// driver's data is gone.
    #[inline(always)]
    pub(super) fn binding(&self) -> Option<&Binding> {
        // SAFETY: The device is bound, so `priv` is its driver's, which sets it by `set_binding`
        // only, before anybody else uses the device and when nobody does any more.
        unsafe { (*self.as_raw()).priv_.cast::<Binding>().as_ref() }
    }

    /// The device status (Virtio 1.4, 2.1); 0 after a reset.
    pub(super) fn status(&self) -> u8 {
        let Some(get) = self.ops().get_status else {
            return 0;
        };
        // SAFETY: The device is bound, hence valid and registered.
        unsafe { get(self.as_raw()) }
    }

    /// Tells the device that the driver is ready (`DRIVER_OK`), as `virtio_device_ready()` does.
    ///
    /// # Context
    ///
    /// May sleep.
    pub(super) fn make_live(&self) {
        if let Some(set) = self.ops().set_status {
            // SAFETY: The device is bound, hence valid and registered.
            unsafe { set(self.as_raw(), self.status() | STATUS_DRIVER_OK) };
        }
    }

    /// Tells whether the device is in the state of one that was reset, or is gone.
    pub(super) fn is_reset(&self) -> bool {
        matches!(self.status(), 0 | STATUS_GONE)
    }

    /// Resets the device: it neither notifies nor touches memory of the driver any more.
    ///
    /// # Errors
    ///
    /// `EIO` if it does not say that the reset is complete (Virtio 1.4, 2.4.2). It may still do
    /// both then.
    ///
    /// # Context
    ///
    /// May sleep. No other thread may be notifying the device.
    pub(super) fn reset_raw(&self) -> Result {
        // SAFETY: The device is bound, hence valid and registered.
        unsafe { bindings::virtio_reset_device(self.as_raw()) };

        // Not every core and transport waits, and none says how it went.
        let status = || Ok(self.status());
        let done = |status: &u8| matches!(*status, 0 | STATUS_GONE);
        match read_poll_timeout(status, done, RESET_POLL, RESET_PATIENCE) {
            Ok(_) => Ok(()),
            Err(_) => Err(EIO),
        }
    }

    /// Breaks all virtqueues, waits for their callbacks, and resets the device.
    ///
    /// # Context
    ///
    /// May sleep. No other thread may be notifying the device.
    pub(super) fn shut_down_raw(&self) {
        // SAFETY: The device is bound, hence valid and registered.
        unsafe { bindings::virtio_device_shutdown(self.as_raw()) };
    }
}

// SAFETY: `Device` is a transparent wrapper of a type that doesn't depend on the generic argument.
kernel::impl_device_context_deref!(unsafe { Device });

impl<Ctx: device::DeviceContext> AsRef<device::Device<Ctx>> for Device<Ctx> {
    fn as_ref(&self) -> &device::Device<Ctx> {
        // SAFETY: By the type invariant the pointer is valid and `dev` is inside the structure.
        let dev = unsafe { addr_of_mut!((*self.as_raw()).dev) };

        // SAFETY: `dev` points to a valid `struct device` that lives as long as `self`.
        unsafe { device::Device::from_raw(dev) }
    }
}

// SAFETY: `OFFSET` is the place of the embedded `struct device`.
unsafe impl<Ctx: device::DeviceContext> device::AsBusDevice<Ctx> for Device<Ctx> {
    const OFFSET: usize = offset_of!(bindings::virtio_device, dev);
}

// SAFETY: A `struct virtio_device` can be used from any thread.
unsafe impl Send for Device {}

// SAFETY: The methods of `Device` are either read-only or calls that the transports serialise.
unsafe impl Sync for Device {}

// SAFETY: `Bound` is only a marker, and the methods of `Device` are either read-only or calls that
// the transports or the binding serialise. Configuration access and reset may be called
// from any thread that may sleep.
unsafe impl Sync for Device<device::Bound> {}
