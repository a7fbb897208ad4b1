// SPDX-License-Identifier: GPL-2.0

//! Queues of 256 descriptors, for as long as the module is loaded, to see what memory they take.
//!
//! `insmod ring_memory.ko count=<queues> features=<bits> fill=<0 or 1>`: with `fill` each queue is
//! full of buffers of three entries.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "not all of the shared device is used"
)]

/// The shared sources, as far as they are needed here.
#[path = "../../virtio"]
pub mod virtio {
    pub mod bindings;
}

#[path = "ring_exports"]
mod ring_exports {
    pub(crate) mod device;
}

use crate::{
    ring_exports::device::{
        Device,
        Memory, //
    },
    virtio::bindings::{
        self,
        device,
        virtio_map,
        virtqueue, //
    },
};

use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    str::CStrExt, //
};

const SIZE: u32 = 256;

module! {
    type: Module,
    name: "ring_memory",
    authors: ["The virtio-rust developers"],
    description: "Virtqueues that do nothing but exist",
    license: "GPL",
    params: {
        count: u32 {
            default: 1,
            description: "number of queues",
        },
        features: u64 {
            default: 0,
            description: "the features of the device",
        },
        fill: u32 {
            default: 0,
            description: "whether the queues are full of buffers",
        },
    },
}

/// The device of the DMA API: one that reaches all memory.
struct Parent(NonNull<device>);

impl Parent {
    fn new(module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The name is NUL-terminated, the module is this one.
        let parent = from_err_ptr(unsafe {
            bindings::__root_device_register(c"ring_memory".as_char_ptr(), module.as_ptr())
        })?;
        let this = Self(NonNull::new(parent).ok_or(ENOMEM)?);
        // SAFETY: The device is registered; nobody else uses it.
        unsafe { (*parent).dma_mask = &raw mut (*parent).coherent_dma_mask };
        // SAFETY: As above.
        to_result(unsafe { bindings::dma_set_mask(parent, u64::MAX) })?;
        // SAFETY: As above.
        to_result(unsafe { bindings::dma_set_coherent_mask(parent, u64::MAX) })?;
        Ok(this)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // SAFETY: `new` registered it.
        unsafe { bindings::root_device_unregister(self.0.as_ptr()) };
    }
}

struct Module {
    queues: KVec<*mut virtqueue>,
    device: Device,
    memory: Memory,
    _parent: Parent,
}

// SAFETY: It is only used when the module is loaded and removed.
unsafe impl Send for Module {}

// SAFETY: As above.
unsafe impl Sync for Module {}

impl Module {
    /// Makes buffers available until there is no room for more.
    fn fill(&self, vq: *mut virtqueue) -> Result {
        let mut lists = [(); 3].map(|()| self.memory.list());
        let mut lists = lists.each_mut().map(|list| &raw mut *list);
        loop {
            let token = self.memory.as_ptr();
            let gfp = bindings::GFP_KERNEL;
            // SAFETY: The lists have one entry each, the queue is live.
            let added =
                unsafe { bindings::virtqueue_add_sgs(vq, lists.as_mut_ptr(), 1, 2, token, gfp) };
            match to_result(added) {
                Ok(()) => (),
                Err(ENOSPC) => return Ok(()),
                error => return error,
            }
        }
    }
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let parent = Parent::new(module)?;
        let dma_dev = parent.0.as_ptr();
        let mut this = Self {
            queues: KVec::new(),
            device: Device::new(module_parameters::features.value(), dma_dev)?,
            memory: Memory::new()?,
            _parent: parent,
        };
        for _ in 0..module_parameters::count.value() {
            let vq = this.device.queue(SIZE, virtio_map { dma_dev })?;
            this.queues.push(vq, GFP_KERNEL)?;
            if module_parameters::fill.value() != 0 {
                this.fill(vq)?;
            }
        }
        Ok(this)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        for &vq in &self.queues {
            // SAFETY: The queue is live; there is no device that would use the buffers.
            while !unsafe { bindings::virtqueue_detach_unused_buf(vq) }.is_null() {}
            // SAFETY: As above, and it is not used any more.
            unsafe { bindings::vring_del_virtqueue(vq) };
        }
    }
}
