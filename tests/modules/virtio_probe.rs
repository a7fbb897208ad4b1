// SPDX-License-Identifier: GPL-2.0

//! A driver that asks its device's transport for what few drivers want, and writes the answers to
//! the kernel's log: shared memory regions, and the reset of a single queue.

#![allow(
    clippy::missing_safety_doc,
    reason = "the contracts of the callbacks are those of the C headers"
)]

/// The shared sources, as far as they are needed here.
#[path = "../../virtio"]
pub mod virtio {
    pub mod bindings;
}

use crate::virtio::bindings::{
    self,
    virtio_config_ops,
    virtio_device,
    virtio_device_id,
    virtio_driver,
    virtqueue,
    virtqueue_info, //
};

use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*, //
};

module! {
    type: Module,
    name: "virtio_probe",
    authors: ["The virtio-rust developers"],
    description: "Tells what a transport answers",
    license: "GPL",
}

/// Takes devices of a type, of any vendor.
const fn any_vendor(device: u32) -> virtio_device_id {
    virtio_device_id {
        device,
        vendor: u32::MAX,
    }
}

/// A type that nobody else uses; a disk and a balloon, whose configuration QEMU changes when it is
/// told to, and which keep their queues over a sleep here; then the end of the table.
static IDS: [virtio_device_id; 4] = [
    any_vendor(0x3ffe),
    any_vendor(2),
    any_vendor(5),
    virtio_device_id {
        device: 0,
        vendor: 0,
    },
];

/// `DRIVER_OK` of the device status (Virtio 1.4, 2.1).
const DRIVER_OK: u8 = 4;

/// How many shared memory regions to ask for.
const REGIONS: u8 = 2;

/// Makes the device live, and asks.
unsafe extern "C" fn probe(vdev: *mut virtio_device) -> c_int {
    // SAFETY: The core passes a valid device, whose operations live as long.
    let ops = unsafe { &*(*vdev).config };

    from_result(|| {
        let queue = find_queue(vdev, ops)?;
        let status = ops.get_status.ok_or(EINVAL)?;
        let set_status = ops.set_status.ok_or(EINVAL)?;

        // SAFETY: As above.
        let status = unsafe { status(vdev) };
        // SAFETY: As above.
        unsafe { set_status(vdev, status | DRIVER_OK) };
        for id in 0..REGIONS {
            show_region(vdev, ops, id)?;
        }
        reset_queue(queue, ops)?;
        Ok(0)
    })
}

/// Has the transport make the only queue.
fn find_queue(vdev: *mut virtio_device, ops: &virtio_config_ops) -> Result<*mut virtqueue> {
    let find = ops.find_vqs.ok_or(EINVAL)?;
    let mut queue = null_mut();
    let mut info = virtqueue_info {
        name: c"requests".as_char_ptr(),
        ..pin_init::zeroed()
    };

    // SAFETY: A valid device, and one place and description for one queue.
    to_result(unsafe { find(vdev, 1, &mut queue, &mut info, null_mut()) })?;
    Ok(queue)
}

/// Asks for a shared memory region.
fn show_region(vdev: *mut virtio_device, ops: &virtio_config_ops, id: u8) -> Result {
    let get = ops.get_shm_region.ok_or(EINVAL)?;
    let mut region = pin_init::zeroed();

    // SAFETY: A valid device.
    match unsafe { get(vdev, &mut region, id) } {
        true => pr_info!(
            "region {}: {} bytes at {:#x}\n",
            id,
            region.len,
            region.addr
        ),
        false => pr_info!("region {}: none\n", id),
    }
    Ok(())
}

/// Resets the queue and has it made available again.
fn reset_queue(queue: *mut virtqueue, ops: &virtio_config_ops) -> Result {
    let reset = ops.disable_vq_and_reset.ok_or(EINVAL)?;
    let restart = ops.enable_vq_after_reset.ok_or(EINVAL)?;
    // SAFETY: The transport made the queue, and nobody uses it.
    let status = unsafe { reset(queue) };

    pr_info!("reset: {}\n", status);
    if status == 0 {
        // SAFETY: As above; it was reset.
        pr_info!("restart: {}\n", unsafe { restart(queue) });
    }
    Ok(())
}

unsafe extern "C" fn remove(vdev: *mut virtio_device) {
    // SAFETY: The core passes a valid device.
    unsafe { bindings::virtio_reset_device(vdev) };
    // SAFETY: As above; its operations live as long.
    if let Some(delete) = unsafe { (*(*vdev).config).del_vqs } {
        // SAFETY: As above; the device was reset.
        unsafe { delete(vdev) };
    }
}

/// The driver, registered.
struct Module(NonNull<virtio_driver>);

// SAFETY: It is only used when the module is loaded and removed.
unsafe impl Send for Module {}

// SAFETY: As above.
unsafe impl Sync for Module {}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let mut driver: virtio_driver = pin_init::zeroed();

        driver.driver.name = c"virtio_probe".as_char_ptr();
        driver.id_table = IDS.as_ptr();
        driver.probe = Some(probe);
        driver.remove = Some(remove);
        let driver = KBox::into_raw(KBox::new(driver, GFP_KERNEL)?);

        // SAFETY: The driver is complete, and lives until the module goes.
        to_result(unsafe { bindings::__register_virtio_driver(driver, module.as_ptr()) })?;
        Ok(Self(NonNull::new(driver).ok_or(ENOMEM)?))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: `init` registered it.
        unsafe { bindings::unregister_virtio_driver(self.0.as_ptr()) };
        // SAFETY: It was leaked there, and nobody uses it any more.
        drop(unsafe { KBox::from_raw(self.0.as_ptr()) });
    }
}
