// SPDX-License-Identifier: GPL-2.0

//! A driver as some in C are: it frees a buffer that is still in the queue, after the device was
//! reset, then deletes the queue, and says whether that wrote to the memory, which has another
//! owner by then. Takes any entropy device.

/// The shared sources, as far as they are needed here.
#[path = "../../virtio"]
pub mod virtio {
    pub mod bindings;
}

use crate::virtio::bindings::{
    self,
    scatterlist,
    virtio_device,
    virtio_device_id,
    virtio_driver,
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
    prelude::*,
    str::CStrExt, //
};

module! {
    type: Module,
    name: "ring_stale",
    authors: ["The virtio-rust developers"],
    description: "A virtio driver that frees a buffer which is still in a queue",
    license: "GPL",
}

/// Every entropy device.
static IDS: [virtio_device_id; 2] = [
    virtio_device_id {
        device: 4,
        vendor: u32::MAX,
    },
    virtio_device_id {
        device: 0,
        vendor: 0,
    },
];

const SIZE: usize = 4096;

/// What the memory's second owner has in it.
const THEIRS: u8 = 0xaa;

type Memory = KBox<[u8; SIZE]>;

/// The memory that was just freed, with another owner.
fn take_over(old: *const u8) -> Result<Memory> {
    let mut others = KVec::new();
    for _ in 0..64 {
        let new: Memory = KBox::new([THEIRS; SIZE], GFP_KERNEL)?;
        if new.as_ptr() == old {
            return Ok(new);
        }
        others.push(new, GFP_KERNEL)?;
    }
    Err(EAGAIN)
}

/// # Safety
///
/// `vdev` is a device that was just bound.
unsafe fn try_device(vdev: *mut virtio_device) -> Result {
    // SAFETY: By the safety requirements; the transport's table outlives the device.
    let ops = unsafe { &*(*vdev).config };
    let (find, del) = (ops.find_vqs.ok_or(EINVAL)?, ops.del_vqs.ok_or(EINVAL)?);
    let mut info = virtqueue_info {
        name: c"input".as_char_ptr(),
        ..pin_init::zeroed()
    };
    let mut vq = null_mut();
    // SAFETY: By the safety requirements; there is room for the one queue.
    to_result(unsafe { find(vdev, 1, &mut vq, &mut info, null_mut()) })?;

    let mut old: Memory = KBox::new([0x11; SIZE], GFP_KERNEL)?;
    let place = old.as_mut_ptr();
    let mut halves = [scatterlist::default(); 2];
    let mut lists = [null_mut(); 2];
    for (number, (half, list)) in halves.iter_mut().zip(&mut lists).enumerate() {
        let part = place.wrapping_add(number * SIZE / 2).cast();
        // SAFETY: The list has one entry, the memory is in the linear mapping.
        unsafe { bindings::sg_init_one(half, part, SIZE as u32 / 2) };
        *list = half;
    }
    let gfp = bindings::GFP_KERNEL;
    // SAFETY: The lists are well-formed. The device never hears of the buffer: it is not notified.
    to_result(unsafe {
        bindings::virtqueue_add_sgs(vq, lists.as_mut_ptr(), 0, 2, place.cast(), gfp)
    })?;
    // SAFETY: By the safety requirements.
    unsafe { bindings::virtio_reset_device(vdev) };
    drop(old);
    let new = take_over(place);
    // SAFETY: By the safety requirements; the queue is not used any more.
    unsafe { del(vdev) };
    let bad = new?.iter().filter(|byte| **byte != THEIRS).count();
    pr_info!("> {} bytes overwritten\n", bad);
    Ok(())
}

/// # Safety
///
/// As the contract of `struct virtio_driver` says.
unsafe extern "C" fn probe(vdev: *mut virtio_device) -> c_int {
    // SAFETY: By the contract.
    from_result(|| unsafe { try_device(vdev) }.and(Err(ENODEV)))
}

/// # Safety
///
/// As the contract of `struct virtio_driver` says.
unsafe extern "C" fn remove(_vdev: *mut virtio_device) {}

/// The driver, which is registered as long as this lives.
struct Module(NonNull<virtio_driver>);

// SAFETY: Nobody uses the pointer but when the module goes.
unsafe impl Send for Module {}

// SAFETY: As for `Send`: shared, it is of no use.
unsafe impl Sync for Module {}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let mut driver: virtio_driver = pin_init::zeroed();
        driver.driver.name = c"ring_stale".as_char_ptr();
        driver.id_table = IDS.as_ptr();
        driver.probe = Some(probe);
        driver.remove = Some(remove);
        let driver = KBox::into_raw(KBox::new(driver, GFP_KERNEL)?);
        // SAFETY: The driver is complete, and lives until it is unregistered.
        to_result(unsafe { bindings::__register_virtio_driver(driver, module.as_ptr()) })?;
        Ok(Self(NonNull::new(driver).ok_or(ENOMEM)?))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: It was registered.
        unsafe { bindings::unregister_virtio_driver(self.0.as_ptr()) };
        // SAFETY: It came from a box, and nobody has it any more.
        drop(unsafe { KBox::from_raw(self.0.as_ptr()) });
    }
}
