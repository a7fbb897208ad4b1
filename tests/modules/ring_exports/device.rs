// SPDX-License-Identifier: GPL-2.0

//! A virtio device that is only what rings see of one: features, a list of queues, perhaps mapping
//! operations. It is not registered, and its device side is whoever looks into the rings.

use crate::virtio::bindings::{
    self,
    device,
    irqreturn_t,
    virtio_config_ops,
    virtio_device,
    virtqueue, //
};

use core::{
    cell::UnsafeCell,
    ptr::NonNull,
    sync::atomic::{
        AtomicI32,
        AtomicU32,
        Ordering::Relaxed, //
    },
};
use kernel::{
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    str::CStrExt, //
};

/// A value that only C code changes, under rules of its own.
#[repr(transparent)]
struct Static<T>(UnsafeCell<T>);

// SAFETY: See the type.
unsafe impl<T> Sync for Static<T> {}

/// No operations: a transport that cannot reset queues.
static OPS: Static<virtio_config_ops> = Static(UnsafeCell::new(pin_init::zeroed()));

/// Those of a transport that can.
static RESETTING: Static<virtio_config_ops> = Static(UnsafeCell::new(virtio_config_ops {
    disable_vq_and_reset: Some(disable_vq),
    enable_vq_after_reset: Some(enable_vq),
    ..pin_init::zeroed()
}));

/// What the transport says when it is to stop a queue.
pub(crate) static DISABLED: AtomicI32 = AtomicI32::new(0);

/// How many interrupts came that some queue said were its own, while it was being stopped or made
/// anew.
pub(crate) static LATE: AtomicU32 = AtomicU32::new(0);

/// An interrupt that comes when it should not.
///
/// # Safety
///
/// `vq` is a queue.
pub(crate) unsafe extern "C" fn late_interrupt(vq: *mut virtqueue) {
    // SAFETY: By the safety requirements.
    if unsafe { bindings::vring_interrupt(0, vq.cast()) } == irqreturn_t::IRQ_HANDLED {
        LATE.fetch_add(1, Relaxed);
    }
}

/// Stops a queue, or does not, as [`DISABLED`] says; an interrupt comes all the same.
///
/// # Safety
///
/// `vq` is a queue.
unsafe extern "C" fn disable_vq(vq: *mut virtqueue) -> c_int {
    // SAFETY: By the safety requirements it is a queue.
    unsafe { late_interrupt(vq) };
    DISABLED.load(Relaxed)
}

/// Says that a queue is in use again.
///
/// # Safety
///
/// None.
unsafe extern "C" fn enable_vq(_vq: *mut virtqueue) -> c_int {
    0
}

static KEY: Static<bindings::lock_class_key> = Static(UnsafeCell::new(pin_init::zeroed()));

/// How often a queue has notified the device.
pub(crate) static NOTIFICATIONS: AtomicU32 = AtomicU32::new(0);

/// How often the driver was told of used buffers.
pub(crate) static CALLBACKS: AtomicU32 = AtomicU32::new(0);

/// The function of the transport that notifies the device.
///
/// # Safety
///
/// None: it does not look at the queue.
pub(crate) unsafe extern "C" fn notify(_vq: *mut virtqueue) -> bool {
    NOTIFICATIONS.fetch_add(1, Relaxed);
    true
}

/// The function of the driver that hears of used buffers.
///
/// # Safety
///
/// None: it does not look at the queue.
pub(crate) unsafe extern "C" fn callback(_vq: *mut virtqueue) {
    CALLBACKS.fetch_add(1, Relaxed);
}

/// The function of the driver that gets back what is in a queue that is reset.
///
/// # Safety
///
/// None: it does not look at the queue.
pub(crate) unsafe extern "C" fn recycle(_vq: *mut virtqueue, _token: *mut c_void) {}

/// The device.
///
/// # Invariants
///
/// Points to a device that [`Self::new`] has allocated.
pub(crate) struct Device(NonNull<virtio_device>);

impl Device {
    /// A device with these features negotiated, below `parent`, which may be null.
    pub(crate) fn new(features: u64, parent: *mut device) -> Result<Self> {
        let mut vdev: virtio_device = pin_init::zeroed();

        vdev.__bindgen_anon_1.features_array = [features, 0];
        vdev.config = OPS.0.get();
        vdev.dev.parent = parent;
        let vdev = KBox::into_raw(KBox::new(vdev, GFP_KERNEL)?);
        // SAFETY: It was just allocated.
        let (lock, list) = unsafe { (&raw mut (*vdev).vqs_list_lock, &raw mut (*vdev).vqs) };
        // SAFETY: The lock is not in use, the key is static.
        unsafe { bindings::__spin_lock_init(lock, c"vqs".as_char_ptr(), KEY.0.get()) };
        // SAFETY: Nothing uses the list yet.
        unsafe { (*list).next = list };
        // SAFETY: As above.
        unsafe { (*list).prev = list };
        // INVARIANT: As allocated.
        Ok(Self(NonNull::new(vdev).ok_or(ENOMEM)?))
    }

    /// The C structure.
    pub(crate) fn as_ptr(&self) -> *mut virtio_device {
        self.0.as_ptr()
    }

    /// Has the transport be one that can reset queues.
    pub(crate) fn let_reset(&self) {
        // SAFETY: By the type invariant; nobody else uses the device.
        unsafe { (*self.as_ptr()).config = RESETTING.0.get() };
    }

    /// Has the transport map by itself.
    pub(crate) fn set_map(&self, ops: *const bindings::virtio_map_ops, map: bindings::virtio_map) {
        // SAFETY: By the type invariant; nobody else uses the device.
        unsafe { (*self.as_ptr()).map = ops };
        // SAFETY: As above.
        unsafe { (*self.as_ptr()).vmap = map };
    }

    /// Creates a queue with a ring of its own, of `size` descriptors.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn queue(&self, size: u32, map: bindings::virtio_map) -> Result<*mut virtqueue> {
        // SAFETY: By the type invariant; callers delete the queue before the device.
        let vq = unsafe {
            bindings::vring_create_virtqueue_map(
                0,
                size,
                64,
                self.as_ptr(),
                true,
                false,
                false,
                Some(notify),
                Some(callback),
                c"queue".as_char_ptr(),
                map,
            )
        };

        if vq.is_null() {
            Err(ENOMEM)
        } else {
            Ok(vq)
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; its queues were deleted.
        drop(unsafe { KBox::from_raw(self.as_ptr()) });
    }
}

/// Memory that a scatterlist of one entry names.
pub(crate) struct Memory(KBox<[u8; Self::SIZE as usize]>);

impl Memory {
    /// Its size in bytes.
    pub(crate) const SIZE: u32 = 64;

    /// Zeroed memory.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(KBox::new([0; Self::SIZE as usize], GFP_KERNEL)?))
    }

    /// Where it is.
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr().cast_mut().cast()
    }

    /// The list.
    pub(crate) fn list(&self) -> bindings::scatterlist {
        let mut list = bindings::scatterlist::default();

        // SAFETY: The list is one entry, the memory is in the linear mapping.
        unsafe { bindings::sg_init_one(&raw mut list, self.as_ptr(), Self::SIZE) };
        list
    }
}
