// SPDX-License-Identifier: GPL-2.0

//! The C functions for queues as such.

use super::{
    super::{
        create::{
            self,
            Request, //
        },
        queue::{
            Notify,
            Queue, //
        },
        reset::{
            self,
            Callback,
            Recycle, //
        },
    },
    mapping::parent_map,
    status, //
};
use crate::{
    config::Features,
    virtio::{
        bindings::{
            self,
            dma_addr_t,
            virtio_device,
            virtio_map,
            virtqueue, //
        },
        export::export_symbol_gpl, //
    },
};

use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::{
    ffi::{
        c_char,
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*, //
};

fn queue_or_null(created: Result<NonNull<virtqueue>>) -> *mut virtqueue {
    created.map_or(null_mut(), NonNull::as_ptr)
}

exported! {
    /// Creates a queue with a ring of its own.
    fn vring_create_virtqueue(
        index: c_uint,
        num: c_uint,
        vring_align: c_uint,
        vdev: *mut virtio_device,
        weak_barriers: bool,
        may_reduce_num: bool,
        context: bool,
        notify: Option<Notify>,
        callback: Callback,
        name: *const c_char,
    ) -> *mut virtqueue {
        // SAFETY: By the contract of the function.
        let map = unsafe { parent_map(vdev) };
        // SAFETY: By the contract of the function.
        unsafe {
            vring_create_virtqueue_map(
                index,
                num,
                vring_align,
                vdev,
                weak_barriers,
                may_reduce_num,
                context,
                notify,
                callback,
                name,
                map,
            )
        }
    }

    /// Creates a queue with a ring of its own, mapped as `map` says.
    fn vring_create_virtqueue_map(
        index: c_uint,
        num: c_uint,
        vring_align: c_uint,
        vdev: *mut virtio_device,
        weak_barriers: bool,
        may_reduce_num: bool,
        context: bool,
        notify: Option<Notify>,
        callback: Callback,
        name: *const c_char,
        map: virtio_map,
    ) -> *mut virtqueue {
        let request = Request {
            index,
            size: num,
            align: vring_align,
            weak_barriers,
            may_reduce: may_reduce_num,
            context,
            notify,
            callback,
            name,
        };
        // SAFETY: By the contract of the function.
        queue_or_null(unsafe { request.create(vdev, map, None) })
    }

    /// Creates a split queue on a ring of the caller's.
    fn vring_new_virtqueue(
        index: c_uint,
        num: c_uint,
        vring_align: c_uint,
        vdev: *mut virtio_device,
        weak_barriers: bool,
        context: bool,
        pages: *mut c_void,
        notify: Option<Notify>,
        callback: Callback,
        name: *const c_char,
    ) -> *mut virtqueue {
        let request = Request {
            index,
            size: num,
            align: vring_align,
            weak_barriers,
            may_reduce: false,
            context,
            notify,
            callback,
            name,
        };
        let Some(pages) = NonNull::new(pages) else {
            return null_mut();
        };
        // SAFETY: By the contract of the function.
        let map = unsafe { parent_map(vdev) };
        // SAFETY: By the contract of the function.
        queue_or_null(unsafe { request.create(vdev, map, Some(pages)) })
    }

    /// Deletes a queue.
    fn vring_del_virtqueue(vq: *mut virtqueue) {
        // SAFETY: By the contract of the function.
        unsafe { create::delete(vq) };
    }
}

exported! {
    /// Gives a queue another size; all buffers go to `recycle`.
    fn virtqueue_resize(
        vq: *mut virtqueue,
        num: u32,
        recycle: Recycle,
        recycle_done: Callback,
    ) -> c_int {
        // SAFETY: By the contract of the function.
        status(unsafe { reset::resize(vq, num, recycle, recycle_done) })
    }

    /// Resets a queue; all buffers go to `recycle`.
    fn virtqueue_reset(
        vq: *mut virtqueue,
        recycle: Recycle,
        recycle_done: Callback,
    ) -> c_int {
        // SAFETY: By the contract of the function.
        status(unsafe { reset::reset(vq, recycle, recycle_done) })
    }

    /// Clears the transport feature bits that this module does not know.
    fn vring_transport_features(vdev: *mut virtio_device) {
        const KNOWN: [u32; 8] = [
            bindings::VIRTIO_RING_F_INDIRECT_DESC,
            bindings::VIRTIO_RING_F_EVENT_IDX,
            bindings::VIRTIO_F_VERSION_1,
            bindings::VIRTIO_F_ACCESS_PLATFORM,
            bindings::VIRTIO_F_RING_PACKED,
            bindings::VIRTIO_F_ORDER_PLATFORM,
            bindings::VIRTIO_F_NOTIFICATION_DATA,
            bindings::VIRTIO_F_IN_ORDER,
        ];
        // SAFETY: By the contract of the function; both members of the union are plain words.
        let words = unsafe { &mut (*vdev).__bindgen_anon_1.features_array };
        let mut features = Features::from_words(*words);
        for bit in bindings::VIRTIO_TRANSPORT_F_START..bindings::VIRTIO_TRANSPORT_F_END {
            if !KNOWN.contains(&bit) {
                features = features.without(bit);
            }
        }
        *words = features.words();
    }

    /// Breaks all queues of a device.
    fn virtio_break_device(vdev: *mut virtio_device) {
        // SAFETY: By the contract of the function.
        unsafe { create::each_queue(vdev, |queue| queue.set_broken(true)) };
    }

    /// Makes all queues of a device whole.
    fn __virtio_unbreak_device(vdev: *mut virtio_device) {
        // SAFETY: By the contract of the function.
        unsafe { create::each_queue(vdev, |queue| queue.set_broken(false)) };
    }
}

exported_for_queues! {
    /// The number of descriptors of a queue.
    fn virtqueue_get_vring_size(queue: *const) -> c_uint {
        queue.size().into()
    }

    /// Breaks a queue.
    fn __virtqueue_break(queue: *mut) {
        queue.set_broken(true);
    }

    /// Makes a broken queue whole.
    fn __virtqueue_unbreak(queue: *mut) {
        queue.set_broken(false);
    }

    /// Whether a queue is broken.
    fn virtqueue_is_broken(queue: *const) -> bool {
        queue.is_broken()
    }

    /// The address of the descriptor table, or of the packed ring, for the device.
    fn virtqueue_get_desc_addr(queue: *const) -> dma_addr_t {
        queue.addresses()[0]
    }

    /// The address of the available ring, or of the driver's event suppression, for the device.
    fn virtqueue_get_avail_addr(queue: *const) -> dma_addr_t {
        queue.addresses()[1]
    }

    /// The address of the used ring, or of the device's event suppression, for the device.
    fn virtqueue_get_used_addr(queue: *const) -> dma_addr_t {
        queue.addresses()[2]
    }

    /// The parts of a split ring; all zero for a packed one.
    fn virtqueue_get_vring(queue: *const) -> *const bindings::vring {
        queue.vring.get()
    }
}
