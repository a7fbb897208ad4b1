// SPDX-License-Identifier: GPL-2.0

//! A device that uses no buffer, with its transport, and a driver in safe Rust that says what
//! becomes of the buffers that it gave away. Works on the C core and rings as well as on ours.
//!
//! `insmod virtio_held.ko lie=<n>`: with 1 the device does not finish a reset any more once it is
//! live, with 2 it does not stop to change its configuration.

#![allow(
    unused_imports,
    unused_macros,
    reason = "the module registers more than a driver, and waits for nothing"
)]

#[path = "../../config.rs"]
pub mod config;

/// What the API uses.
#[path = "../../kernel_ext"]
pub mod kernel_ext {
    pub mod kthread;
    pub mod registration;
    pub mod sg;
    pub mod wait;
}

#[path = "../../virtio/mod.rs"]
pub mod virtio;

/// What devices without hardware have in common.
#[path = "fake.rs"]
mod fake;

module! {
    type: Module,
    name: "virtio_held",
    authors: ["The virtio-rust developers"],
    description: "A virtio driver that shows what becomes of its buffers",
    license: "GPL",
    params: {
        lie: u32 {
            default: 0,
            description: "what is wrong with the device",
        },
    },
}

use kernel::prelude::*;

const NEVER_RESETS: u32 = 1;
const NEVER_RESTS: u32 = 2;

/// The device type, which nobody else has.
const DEVICE: u32 = 0x3ffe;

/// What is wrong with the device.
fn lie() -> u32 {
    module_parameters::lie.value()
}

/// Says what happens.
macro_rules! say {
    ($($arguments:tt)*) => {
        ::kernel::pr_info!("> {}\n", ::kernel::prelude::fmt!($($arguments)*))
    };
}

/// The device and its transport.
mod device {
    #![allow(
        clippy::missing_safety_doc,
        reason = "the contracts of the callbacks are those of the C headers"
    )]

    use super::{
        lie,
        DEVICE,
        NEVER_RESETS,
        NEVER_RESTS, //
    };
    use crate::{
        fake::{
            self,
            Table, //
        },
        virtio::bindings::{
            self,
            irq_affinity,
            virtio_config_ops,
            virtio_device,
            virtqueue,
            virtqueue_info, //
        }, //
    };
    use core::{
        ptr::null_mut,
        sync::atomic::{
            AtomicPtr,
            AtomicU32,
            AtomicU8,
            Ordering::Relaxed, //
        },
    };
    use kernel::{
        error::to_result,
        prelude::*, //
    };

    const DRIVER_OK: u8 = 4;
    const VERSION_1: u64 = 1 << 32;

    static STATUS: AtomicU8 = AtomicU8::new(0);
    static GENERATION: AtomicU32 = AtomicU32::new(0);
    static QUEUE: AtomicPtr<virtqueue> = AtomicPtr::new(null_mut());

    unsafe extern "C" fn get_status(_vdev: *mut virtio_device) -> u8 {
        STATUS.load(Relaxed)
    }

    unsafe extern "C" fn set_status(_vdev: *mut virtio_device, status: u8) {
        STATUS.store(status, Relaxed);
    }

    unsafe extern "C" fn reset(_vdev: *mut virtio_device) {
        let is_live = STATUS.load(Relaxed) & DRIVER_OK != 0;

        say!("reset");
        if !(is_live && lie() == NEVER_RESETS) {
            STATUS.store(0, Relaxed);
        }
    }

    unsafe extern "C" fn get_features(_vdev: *mut virtio_device) -> u64 {
        VERSION_1 | 1
    }

    unsafe extern "C" fn finalize_features(_vdev: *mut virtio_device) -> c_int {
        0
    }

    /// The configuration counts up from 1.
    unsafe extern "C" fn get(
        _vdev: *mut virtio_device,
        offset: c_uint,
        to: *mut c_void,
        len: c_uint,
    ) {
        for (at, value) in (0..).zip(offset..offset + len) {
            // CAST: There are a few bytes only.
            // SAFETY: The caller gives room for `len` bytes.
            unsafe { to.cast::<u8>().add(at).write(value as u8 + 1) };
        }
    }

    unsafe extern "C" fn generation(_vdev: *mut virtio_device) -> u32 {
        match lie() {
            NEVER_RESTS => GENERATION.fetch_add(1, Relaxed),
            _ => 0,
        }
    }

    unsafe extern "C" fn notify(_vq: *mut virtqueue) -> bool {
        true
    }

    unsafe extern "C" fn find_vqs(
        vdev: *mut virtio_device,
        count: c_uint,
        vqs: *mut *mut virtqueue,
        infos: *mut virtqueue_info,
        _affinity: *mut irq_affinity,
    ) -> c_int {
        if count != 1 {
            return ENOENT.to_errno();
        }
        // SAFETY: The caller gives one of each.
        let info = unsafe { &*infos };
        // SAFETY: The device is one that `Device::new` made, and its features are negotiated.
        let queue = unsafe {
            bindings::vring_create_virtqueue(
                0,
                4,
                4096,
                vdev,
                true,
                false,
                false,
                Some(notify),
                info.callback,
                info.name,
            )
        };

        if queue.is_null() {
            return ENOMEM.to_errno();
        }
        QUEUE.store(queue, Relaxed);
        // SAFETY: As above.
        unsafe { vqs.write(queue) };
        0
    }

    unsafe extern "C" fn del_vqs(_vdev: *mut virtio_device) {
        say!("del_vqs");
        // SAFETY: `find_vqs` made it.
        unsafe { bindings::vring_del_virtqueue(QUEUE.swap(null_mut(), Relaxed)) };
    }

    static OPS: Table<virtio_config_ops> = Table(virtio_config_ops {
        get: Some(get),
        generation: Some(generation),
        get_status: Some(get_status),
        set_status: Some(set_status),
        reset: Some(reset),
        find_vqs: Some(find_vqs),
        del_vqs: Some(del_vqs),
        get_features: Some(get_features),
        finalize_features: Some(finalize_features),
        ..pin_init::zeroed()
    });

    unsafe extern "C" fn release(dev: *mut bindings::device) {
        // SAFETY: `Device::new` made it; the driver core calls this last.
        unsafe { fake::free(dev) };
    }

    /// The device, registered.
    pub(super) struct Device {
        parent: *mut bindings::device,
        vdev: *mut virtio_device,
    }

    // SAFETY: It is only used when the module is loaded and removed.
    unsafe impl Send for Device {}

    // SAFETY: As above.
    unsafe impl Sync for Device {}

    impl Device {
        /// Registers it.
        pub(super) fn new(module: &'static ThisModule) -> Result<Self> {
            let (parent, vdev) = fake::new(module, c"virtio_held", DEVICE, &OPS, release)?;

            // SAFETY: The device is complete; `release` frees it.
            to_result(unsafe { bindings::register_virtio_device(vdev) })?;
            Ok(Self { parent, vdev })
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            // SAFETY: `new` registered it.
            unsafe { bindings::unregister_virtio_device(self.vdev) };
            // SAFETY: As above.
            unsafe { bindings::root_device_unregister(self.parent) };
        }
    }
}

/// The driver.
mod driver {
    #![deny(unsafe_code)]

    use super::DEVICE;
    use crate::virtio::prelude::*;

    virtio_device_table!(TABLE, [DeviceId::any_vendor(DEVICE)]);

    const WIDE: Field<Le64> = Field::new(0);
    const ABSENT: Field<Le32> = Field::gated(8, 7);
    const PRESENT: Field<Le32> = Field::gated(8, 0);

    /// A buffer that says when it is freed.
    struct Told {
        buf: KBox<InBuf<64>>,
        number: usize,
    }

    impl Payload for Told {
        fn parts(&mut self) -> Parts<'_> {
            Parts::new().writable(&mut *self.buf)
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            say!("buffer {} is freed", self.number);
        }
    }

    /// The driver.
    pub(super) struct HeldDriver;

    /// What it keeps for its device.
    #[pin_data]
    pub(super) struct Held {
        queue: Queue<Told>,
    }

    /// Looks at the device, and fills its queue.
    fn start(dev: &Device<Bound>, queues: NewQueues<'_, HeldDriver>) -> Result<Queue<Told>> {
        let id = dev.id();

        say!("device {:#x} of vendor {:#x}", id.device(), id.vendor());
        say!("wide: {:?}", dev.read(&WIDE).map_err(Error::to_errno));
        say!("absent: {:?}", dev.read(&ABSENT).map_err(Error::to_errno));
        say!("present: {:?}", dev.read(&PRESENT).map_err(Error::to_errno));
        let queue = queues.single(c"held")?;

        for number in 0..=queue.size() {
            let buf = InBuf::new()?;
            let told = KBox::new(Told { buf, number }, GFP_KERNEL)?;

            if let Err((error, told)) = queue.add(told) {
                say!("buffer {} is refused: {}", told.number, error.to_errno());
            }
        }
        Ok(queue)
    }

    #[vtable]
    impl Driver for HeldDriver {
        type Data<'bound> = Held;
        type Registration<'bound> = ();

        const ID_TABLE: IdTable = &TABLE;
        const FEATURES: &'static [FeatureBit] = &[0, 7];

        fn probe<'bound>(
            dev: &'bound Device<Core<'_>>,
            queues: NewQueues<'_, Self>,
        ) -> impl PinInit<Held, Error> {
            pin_init::pin_init_scope(move || {
                let queue = start(dev, queues)?;

                Ok(try_pin_init!(Held { queue }? Error))
            })
        }

        fn live(_dev: &Device<Core<'_>>, data: Pin<&Held>) -> Result {
            data.queue.notify()
        }

        fn unbind(_dev: &Device<Core<'_>>, data: Pin<&Held>) {
            say!("the queue goes, of {}", data.queue.size());
        }
    }
}

/// Driver and device, registered. The device is dropped first.
#[pin_data]
struct Module {
    device: device::Device,
    #[pin]
    driver: kernel::driver::Registration<virtio::driver::Adapter<driver::HeldDriver>>,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            driver <- kernel::driver::Registration::new(c"virtio_held", module),
            device: device::Device::new(module)?,
        })
    }
}
