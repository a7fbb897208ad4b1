// SPDX-License-Identifier: GPL-2.0

//! A virtio device, its transport and its driver, which write all that the core has them do to the
//! kernel's log. Works on the C core as well as on ours, for tests that compare the two.
//!
//! `insmod virtio_fake.ko lie=<n>`: 0 is honest, [`Lie`] has the others. When the driver is bound,
//! the module goes through configuration changes, sleep and a reset by the transport.

#![allow(
    clippy::missing_safety_doc,
    reason = "the contracts of the callbacks are those of the C headers"
)]

/// The shared sources, as far as they are needed here.
#[path = "../../virtio"]
pub mod virtio {
    pub mod bindings;
}

/// What devices without hardware have in common.
#[path = "fake.rs"]
mod fake;

use crate::{
    fake::Table,
    virtio::bindings::{
        self,
        device,
        virtio_config_ops,
        virtio_device,
        virtio_device_id,
        virtio_driver,
        virtqueue, //
    }, //
};

use core::{
    cell::UnsafeCell,
    ptr::{
        null_mut,
        NonNull, //
    },
    sync::atomic::{
        AtomicPtr,
        AtomicU32,
        AtomicU8,
        Ordering::Relaxed, //
    },
};
use kernel::{
    error::to_result,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    },
};

module! {
    type: Module,
    name: "virtio_fake",
    authors: ["The virtio-rust developers"],
    description: "A virtio device that shows what the core does with it",
    license: "GPL",
    params: {
        lie: u32 {
            default: 0,
            description: "what is wrong with the device or its driver",
        },
    },
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Nothing.
    No = 0,
    /// The device does not keep `FEATURES_OK`.
    RefusesFeatures,
    /// Its status does not become 0 by a reset.
    NeverResets,
    /// It asks for a reset together with `FEATURES_OK`.
    NeedsResetEarly,
    /// It has gone when `FEATURES_OK` is read back.
    Gone,
    /// It offers less when it is asked a second time.
    OffersLess,
    /// It asks for a reset when it is live.
    NeedsReset,
    /// None: it is a legacy device.
    Legacy,
    /// None: the driver declines a feature.
    Declines,
    /// The driver refuses to sleep.
    WillNotSleep,
    /// The driver does not reset the device when it is removed.
    LeavesItRunning,
    /// The driver looks for a feature that is not in its tables.
    LooksForUnknown,
}

impl Lie {
    const ALL: [Self; 12] = [
        Self::No,
        Self::RefusesFeatures,
        Self::NeverResets,
        Self::NeedsResetEarly,
        Self::Gone,
        Self::OffersLess,
        Self::NeedsReset,
        Self::Legacy,
        Self::Declines,
        Self::WillNotSleep,
        Self::LeavesItRunning,
        Self::LooksForUnknown,
    ];

    /// The one that was asked for.
    fn told() -> Result<Self> {
        let number = usize::try_from(module_parameters::lie.value())?;

        Self::ALL.get(number).copied().ok_or(EINVAL)
    }

    /// Whether it is this one.
    fn is(self) -> bool {
        Self::told() == Ok(self)
    }
}

/// Says what the core did.
macro_rules! say {
    ($($arguments:tt)*) => {
        pr_info!("> {}\n", fmt!($($arguments)*))
    };
}

// The device

const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const VERSION_1: u64 = 1 << 32;

/// Beside those of the tables below a feature that no driver knows, and one of rings.
const OFFERED: [u64; 2] = [1 | 1 << 3 | 1 << 7 | 1 << 9 | 1 << 28, 1 << 6 | 1 << 7];

static STATUS: AtomicU8 = AtomicU8::new(0);
static RESETS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn get_status(_vdev: *mut virtio_device) -> u8 {
    STATUS.load(Relaxed)
}

unsafe extern "C" fn set_status(_vdev: *mut virtio_device, status: u8) {
    say!("status {status}");
    let status = match status & FEATURES_OK != 0 {
        true if Lie::RefusesFeatures.is() => status & !FEATURES_OK,
        true if Lie::NeedsResetEarly.is() => status | NEEDS_RESET,
        true if Lie::Gone.is() => 0xff,
        _ => status,
    };
    STATUS.store(status, Relaxed);
}

unsafe extern "C" fn reset(_vdev: *mut virtio_device) {
    say!("reset");
    RESETS.fetch_add(1, Relaxed);
    STATUS.store(if Lie::NeverResets.is() { 4 } else { 0 }, Relaxed);
}

unsafe extern "C" fn get_extended_features(_vdev: *mut virtio_device, features: *mut u64) {
    let [mut low, high] = OFFERED;

    // The first reset is that of the registration.
    if Lie::OffersLess.is() && RESETS.load(Relaxed) > 1 {
        low &= !(1 << 3);
    }
    if !Lie::Legacy.is() {
        low |= VERSION_1;
    }
    say!("offers {high:016x} {low:016x}");
    // SAFETY: The core gives room for two words.
    unsafe { features.cast::<[u64; 2]>().write([low, high]) };
}

unsafe extern "C" fn finalize_features(vdev: *mut virtio_device) -> c_int {
    // SAFETY: The core passes a valid device.
    let [low, high] = unsafe { (*vdev).__bindgen_anon_1.features_array };

    say!("features {high:016x} {low:016x}");
    0
}

static OPS: Table<virtio_config_ops> = Table(virtio_config_ops {
    get_status: Some(get_status),
    set_status: Some(set_status),
    reset: Some(reset),
    get_extended_features: Some(get_extended_features),
    finalize_features: Some(finalize_features),
    ..pin_init::zeroed()
});

unsafe extern "C" fn release(dev: *mut device) {
    say!("release");
    // SAFETY: `Module::init` made it; the driver core calls this last.
    unsafe { fake::free(dev) };
}

// The driver

static IDS: Table<[virtio_device_id; 2]> = Table([
    virtio_device_id {
        device: 0x3fff,
        vendor: bindings::VIRTIO_DEV_ANY_ID,
    },
    virtio_device_id {
        device: 0,
        vendor: 0,
    },
]);
static MODERN: [c_uint; 3] = [0, 3, 70];
static LEGACY: [c_uint; 2] = [0, 7];

/// The queue, with a ring that nobody else knows.
static QUEUE: AtomicPtr<virtqueue> = AtomicPtr::new(null_mut());

#[repr(C, align(4096))]
struct Ring(UnsafeCell<[u8; 8192]>);

// SAFETY: Only the ring's functions use it.
unsafe impl Sync for Ring {}

static RING: Ring = Ring(UnsafeCell::new([0; 8192]));

unsafe extern "C" fn notify(_vq: *mut virtqueue) -> bool {
    true
}

unsafe extern "C" fn validate(vdev: *mut virtio_device) -> c_int {
    say!("validate");
    if Lie::Declines.is() {
        // SAFETY: The core passes a valid device, whose features nobody else uses now.
        unsafe { (*vdev).__bindgen_anon_1.features_array[0] &= !(1 << 3) };
    }
    0
}

unsafe extern "C" fn probe(vdev: *mut virtio_device) -> c_int {
    say!("probe");
    if Lie::LooksForUnknown.is() {
        // SAFETY: The core passes a valid device, with a driver.
        unsafe { bindings::virtio_check_driver_offered_feature(vdev, 9) };
    }
    // SAFETY: The ring is large enough for 16 descriptors, and it is used once at a time.
    let queue = unsafe {
        bindings::vring_new_virtqueue(
            0,
            16,
            4096,
            vdev,
            true,
            false,
            RING.0.get().cast(),
            Some(notify),
            None,
            c"fake".as_char_ptr(),
        )
    };

    if queue.is_null() {
        return ENOMEM.to_errno();
    }
    QUEUE.store(queue, Relaxed);
    change(vdev);
    0
}

unsafe extern "C" fn scan(_vdev: *mut virtio_device) {
    say!("scan");
}

unsafe extern "C" fn remove(vdev: *mut virtio_device) {
    say!("remove");
    if !Lie::LeavesItRunning.is() {
        // SAFETY: The core passes a valid device.
        unsafe { bindings::virtio_reset_device(vdev) };
    }
    // SAFETY: `probe` made the queue.
    unsafe { bindings::vring_del_virtqueue(QUEUE.swap(null_mut(), Relaxed)) };
}

unsafe extern "C" fn config_changed(_vdev: *mut virtio_device) {
    say!("config_changed");
}

unsafe extern "C" fn freeze(_vdev: *mut virtio_device) -> c_int {
    say!("freeze");
    match Lie::WillNotSleep.is() {
        true => EBUSY.to_errno(),
        false => 0,
    }
}

unsafe extern "C" fn restore(_vdev: *mut virtio_device) -> c_int {
    say!("restore");
    0
}

unsafe extern "C" fn reset_prepare(_vdev: *mut virtio_device) -> c_int {
    say!("reset_prepare");
    0
}

unsafe extern "C" fn reset_done(_vdev: *mut virtio_device) -> c_int {
    say!("reset_done");
    0
}

// What the transport does

/// Tells the core that the configuration changed.
fn change(vdev: *mut virtio_device) {
    say!("a change");
    // SAFETY: All callers pass a registered device.
    unsafe { bindings::virtio_config_changed(vdev) };
}

/// Calls a function of the core that can fail, and says how it ended.
fn tell(
    name: &str,
    vdev: *mut virtio_device,
    f: unsafe extern "C" fn(*mut virtio_device) -> c_int,
) {
    say!("{name}:");
    // SAFETY: As for `change`; no driver is bound or unbound meanwhile.
    let status = unsafe { f(vdev) };

    say!("{name}: {status}");
}

/// Goes through all that can happen to a live device.
fn live(vdev: *mut virtio_device) {
    change(vdev);
    // SAFETY: A registered device whose driver is bound.
    unsafe { bindings::virtio_config_driver_disable(vdev) };
    change(vdev);
    change(vdev);
    say!("the driver listens again");
    // SAFETY: As above.
    unsafe { bindings::virtio_config_driver_enable(vdev) };
    tell("freeze", vdev, bindings::virtio_device_freeze);
    change(vdev);
    if !Lie::WillNotSleep.is() {
        tell("restore", vdev, bindings::virtio_device_restore);
        tell("reset_prepare", vdev, bindings::virtio_device_reset_prepare);
        tell("reset_done", vdev, bindings::virtio_device_reset_done);
    }
    if Lie::NeedsReset.is() {
        STATUS.fetch_or(NEEDS_RESET, Relaxed);
        for _ in 0..2 {
            change(vdev);
            fsleep(Delta::from_millis(300));
        }
        // SAFETY: `probe` made the queue.
        let broken = unsafe { bindings::virtqueue_is_broken(QUEUE.load(Relaxed)) };
        say!("broken: {broken}");
    }
}

/// Driver and device, registered.
struct Module {
    parent: NonNull<device>,
    driver: NonNull<virtio_driver>,
    /// Null if the core did not take it.
    device: *mut virtio_device,
}

// SAFETY: It is only used when the module is loaded and removed.
unsafe impl Send for Module {}

// SAFETY: As above.
unsafe impl Sync for Module {}

/// The driver's structure, which the core changes.
fn driver() -> virtio_driver {
    let mut driver: virtio_driver = pin_init::zeroed();

    driver.driver.name = c"virtio_fake".as_char_ptr();
    driver.id_table = (&raw const IDS.0).cast();
    driver.feature_table = MODERN.as_ptr();
    driver.feature_table_size = 3;
    driver.feature_table_legacy = LEGACY.as_ptr();
    driver.feature_table_size_legacy = 2;
    driver.validate = Some(validate);
    driver.probe = Some(probe);
    driver.scan = Some(scan);
    driver.remove = Some(remove);
    driver.config_changed = Some(config_changed);
    driver.freeze = Some(freeze);
    driver.restore = Some(restore);
    driver.reset_prepare = Some(reset_prepare);
    driver.reset_done = Some(reset_done);
    driver
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Lie::told()?;
        let driver = KBox::into_raw(KBox::new(driver(), GFP_KERNEL)?);
        let (parent, vdev) = fake::new(module, c"virtio_fake", 0x3fff, &OPS, release)?;

        // SAFETY: The driver is complete, and lives until the module goes.
        to_result(unsafe { bindings::__register_virtio_driver(driver, module.as_ptr()) })?;
        say!("register:");
        // SAFETY: The device is complete; `release` frees it.
        let status = unsafe { bindings::register_virtio_device(vdev) };
        say!("register: {status}");
        let mut this = Self {
            parent: NonNull::new(parent).ok_or(ENOMEM)?,
            driver: NonNull::new(driver).ok_or(ENOMEM)?,
            device: vdev,
        };

        if status != 0 {
            // SAFETY: The core initialised the device; this was the only reference.
            unsafe { bindings::put_device(&raw mut (*vdev).dev) };
            this.device = null_mut();
            return Ok(this);
        }
        // SAFETY: The device is registered, hence valid.
        let bound = unsafe { !(*vdev).dev.driver.is_null() };
        if bound {
            live(vdev);
        }
        Ok(this)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if !self.device.is_null() {
            say!("unregister:");
            // SAFETY: `init` registered it.
            unsafe { bindings::unregister_virtio_device(self.device) };
        }
        // SAFETY: As above.
        unsafe { bindings::unregister_virtio_driver(self.driver.as_ptr()) };
        // SAFETY: It was leaked there, and nobody uses it any more.
        drop(unsafe { KBox::from_raw(self.driver.as_ptr()) });
        // SAFETY: `init` registered it.
        unsafe { bindings::root_device_unregister(self.parent.as_ptr()) };
    }
}
