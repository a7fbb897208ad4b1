// SPDX-License-Identifier: GPL-2.0

//! The C functions of this module, and nothing else.
//!
//! Their contracts are those of `include/linux/virtio.h` and `include/linux/virtio_ring.h`, which
//! say when a call must be serialised with others. In every one of them a queue is one of this
//! module that is not deleted meanwhile.

#![allow(
    clippy::missing_safety_doc,
    reason = "the contracts are those of the C headers"
)]

use super::{
    create::{
        self,
        Request, //
    },
    map::{
        Mapper,
        Side, //
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
    sg::Lists,
    take::Wanted, //
};
use crate::{
    config::Features,
    virtio::{
        bindings::{
            self,
            device,
            dma_addr_t,
            dma_data_direction,
            gfp_t,
            irqreturn_t,
            page,
            scatterlist,
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
        c_ulong,
        c_void, //
    },
    prelude::*, //
};

/// Defines and exports C functions, as `EXPORT_SYMBOL_GPL()` does.
macro_rules! exported {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$doc])*
        #[no_mangle]
        pub(crate) unsafe extern "C" fn $name($($arg: $type),*) $(-> $ret)? $body
        export_symbol_gpl!($name);
    )*};
}

/// Defines and exports C functions whose first argument is a queue, which is `$queue` in the body.
macro_rules! exported_for_queues {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($queue:ident: *$kind:ident $(, $arg:ident: $type:ty)* $(,)?) $(-> $ret:ty)?
            $body:block
    )*) => {
        exported! {$(
            $(#[$doc])*
            fn $name(vq: *$kind virtqueue $(, $arg: $type)*) $(-> $ret)? {
                // SAFETY: By the contract of the function.
                let $queue = unsafe { Queue::from_raw(vq) };
                $body
            }
        )*}
    };
}

/// Defines and exports C functions that make a buffer of one list available: one that the device
/// reads (`(1, 0)`) or writes, that the caller has mapped or not, with attributes of the mapping.
macro_rules! exported_for_lists {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($ctx:ident)?) = $directions:expr, $premapped:literal, $attrs:expr;
    )*) => {
        exported_for_queues! {$(
            $(#[$doc])*
            fn $name(
                queue: *mut,
                sg: *mut scatterlist,
                num: c_uint,
                data: *mut c_void,
                $($ctx: *mut c_void,)?
                gfp: gfp_t
            ) -> c_int {
                let ctx = [$($ctx,)? null_mut()];
                // SAFETY: By the contract of the function the list is well-formed, and outlives
                // the call.
                let lists = unsafe { Lists::new(&sg, $directions, num, $premapped, $attrs) };
                status(queue.add(&lists, data, ctx[0], gfp))
            }
        )*}
    };
}

// Buffers

/// 0 or a negative errno.
#[inline(always)]
fn status(result: Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

exported_for_queues! {
    /// Makes a buffer of several lists available: first those that the device reads.
    fn virtqueue_add_sgs(
        queue: *mut,
        sgs: *mut *mut scatterlist,
        out_sgs: c_uint,
        in_sgs: c_uint,
        data: *mut c_void,
        gfp: gfp_t,
    ) -> c_int {
        // SAFETY: By the contract of the function.
        let lists = unsafe { Lists::new(sgs, (out_sgs, in_sgs), Lists::UNKNOWN, false, 0) };
        status(queue.add(&lists, data, null_mut(), gfp))
    }

    /// Takes a used buffer: its token, or null.
    fn virtqueue_get_buf(queue: *mut, len: *mut c_uint) -> *mut c_void {
        // SAFETY: By the contract of the function `len` points to a number of the caller's.
        let len = unsafe { &mut *len };
        queue.get(Wanted { len, ctx: None })
    }

    /// Takes a used buffer and its context: its token, or null.
    fn virtqueue_get_buf_ctx(
        queue: *mut,
        len: *mut c_uint,
        ctx: *mut *mut c_void,
    ) -> *mut c_void {
        // SAFETY: By the contract of the function `len` points to a number of the caller's.
        let len = unsafe { &mut *len };
        // SAFETY: By the contract of the function it is null or points to a pointer of theirs.
        let ctx = unsafe { ctx.as_mut() };
        queue.get(Wanted { len, ctx })
    }

    /// Takes a buffer back that the device has not used; it has been reset.
    fn virtqueue_detach_unused_buf(queue: *mut) -> *mut c_void {
        queue.detach()
    }
}

const OUT: (u32, u32) = (1, 0);
const IN: (u32, u32) = (0, 1);

exported_for_lists! {
    /// Makes a buffer available that the device reads.
    fn virtqueue_add_outbuf() = OUT, false, 0;

    /// Makes a buffer available that the device reads and that the caller has mapped.
    fn virtqueue_add_outbuf_premapped() = OUT, true, 0;

    /// Makes a buffer available that the device writes.
    fn virtqueue_add_inbuf() = IN, false, 0;

    /// Makes a buffer available that the device writes, and that may share cache lines with what
    /// the CPU only reads meanwhile.
    // CAST: Widening.
    fn virtqueue_add_inbuf_cache_clean() =
        IN, false, bindings::DMA_ATTR_DEBUGGING_IGNORE_CACHELINES as c_ulong;

    /// Makes a buffer available that the device writes, with a context of the driver's.
    fn virtqueue_add_inbuf_ctx(ctx) = IN, false, 0;

    /// Makes a buffer available that the device writes and that the caller has mapped.
    fn virtqueue_add_inbuf_premapped(ctx) = IN, true, 0;
}

// Notifications

exported_for_queues! {
    /// Tells whether the device wants to be notified of the buffers added since the last call.
    fn virtqueue_kick_prepare(queue: *mut) -> bool {
        queue.kick_prepare()
    }

    /// Notifies the device; false if the queue is broken.
    fn virtqueue_notify(queue: *mut) -> bool {
        queue.notify()
    }

    /// Notifies the device if it wants to be; false if the queue is broken.
    fn virtqueue_kick(queue: *mut) -> bool {
        queue.kick()
    }

    /// Asks for no notifications; a hint.
    fn virtqueue_disable_cb(queue: *mut) {
        queue.disable_cb();
    }

    /// Asks for notifications; returns what [`virtqueue_poll`] wants.
    fn virtqueue_enable_cb_prepare(queue: *mut) -> c_uint {
        queue.enable_cb_prepare()
    }

    /// Tells whether there are used buffers beyond those known when `last_used_idx` was given.
    fn virtqueue_poll(queue: *mut, last_used_idx: c_uint) -> bool {
        queue.poll(last_used_idx)
    }

    /// Asks for notifications; false if there are used buffers already.
    fn virtqueue_enable_cb(queue: *mut) -> bool {
        queue.enable_cb()
    }

    /// Asks for a notification when most buffers were used; false if they are already.
    fn virtqueue_enable_cb_delayed(queue: *mut) -> bool {
        queue.enable_cb_delayed()
    }

    /// What a notification of this queue carries if it carries data.
    fn vring_notification_data(queue: *mut) -> u32 {
        queue.notification_data()
    }
}

exported! {
    /// Handles the interrupt of a queue.
    fn vring_interrupt(_irq: c_int, vq: *mut c_void) -> irqreturn_t {
        // SAFETY: By the contract of the function.
        if unsafe { Queue::from_raw(vq.cast()) }.interrupt() {
            irqreturn_t::IRQ_HANDLED
        } else {
            irqreturn_t::IRQ_NONE
        }
    }
}

// Queues

/// Mapping by the DMA API, for the parent of `vdev`.
///
/// # Safety
///
/// `vdev` is valid.
unsafe fn parent_map(vdev: *mut virtio_device) -> virtio_map {
    virtio_map {
        // SAFETY: By the safety requirements.
        dma_dev: unsafe { (*vdev).dev.parent },
    }
}

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

/// The mapping of a device as a whole: its transport's, if it brings its own.
///
/// # Safety
///
/// `vdev` is valid.
unsafe fn device_map(vdev: *mut virtio_device) -> virtio_map {
    // SAFETY: By the safety requirements.
    if unsafe { (*vdev).map }.is_null() {
        // SAFETY: By the safety requirements.
        unsafe { parent_map(vdev) }
    } else {
        // SAFETY: By the safety requirements.
        unsafe { (*vdev).vmap }
    }
}

// Mapping

exported_for_queues! {
    /// The device of the DMA API, or null if the queue does not use it.
    fn virtqueue_dma_dev(queue: *mut) -> *mut device {
        queue.mapper.dma_dev()
    }

    /// Maps a part of a page for the device of a queue.
    fn virtqueue_map_page_attrs(
        queue: *const,
        page: *mut page,
        offset: c_ulong,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) -> dma_addr_t {
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.map_page(page, offset, size, dir, attrs) }
    }

    /// Undoes [`virtqueue_map_page_attrs`].
    fn virtqueue_unmap_page_attrs(
        queue: *const,
        map_handle: dma_addr_t,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) {
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.unmap_page(map_handle, size, dir, attrs) };
    }

    /// Maps memory for the device of a queue, if it is to be mapped.
    fn virtqueue_map_single_attrs(
        queue: *const,
        ptr: *mut c_void,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) -> dma_addr_t {
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.map_single(ptr, size, dir, attrs) }
    }

    /// Undoes [`virtqueue_map_single_attrs`].
    fn virtqueue_unmap_single_attrs(
        queue: *const,
        addr: dma_addr_t,
        size: usize,
        dir: dma_data_direction,
        attrs: c_ulong,
    ) {
        if queue.mapper.uses_api() {
            // SAFETY: By the contract of the function.
            unsafe { queue.mapper.unmap_page(addr, size, dir, attrs) };
        }
    }

    /// 0, or the error of a mapping.
    fn virtqueue_map_mapping_error(queue: *const, addr: dma_addr_t) -> c_int {
        queue.mapper.error(addr)
    }

    /// Whether a mapping has to be synchronised between CPU and device.
    fn virtqueue_map_need_sync(queue: *const, addr: dma_addr_t) -> bool {
        queue.mapper.needs_sync(addr)
    }

    /// Gives a part of a mapping to the CPU.
    fn virtqueue_map_sync_single_range_for_cpu(
        queue: *const,
        addr: dma_addr_t,
        offset: c_ulong,
        size: usize,
        dir: dma_data_direction,
    ) {
        // CAST: Both have 64 bits.
        let addr = addr.wrapping_add(offset as dma_addr_t);
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.sync(Side::Cpu, addr, size, dir) };
    }

    /// Gives a part of a mapping to the device.
    fn virtqueue_map_sync_single_range_for_device(
        queue: *const,
        addr: dma_addr_t,
        offset: c_ulong,
        size: usize,
        dir: dma_data_direction,
    ) {
        // CAST: Both have 64 bits.
        let addr = addr.wrapping_add(offset as dma_addr_t);
        // SAFETY: By the contract of the function.
        unsafe { queue.mapper.sync(Side::Device, addr, size, dir) };
    }
}

exported! {
    /// The largest single mapping for a device in bytes.
    fn virtio_max_dma_size(vdev: *const virtio_device) -> usize {
        let vdev = vdev.cast_mut();
        // SAFETY: By the contract of the function.
        let map = unsafe { device_map(vdev) };
        // SAFETY: By the contract of the function.
        unsafe { Mapper::new(vdev, map) }.max_size()
    }

    /// Allocates memory that driver and device see.
    fn virtqueue_map_alloc_coherent(
        vdev: *mut virtio_device,
        map: virtio_map,
        size: usize,
        map_handle: *mut dma_addr_t,
        gfp: gfp_t,
    ) -> *mut c_void {
        // SAFETY: By the contract of the function.
        let handle = unsafe { &mut *map_handle };
        // SAFETY: By the contract of the function.
        unsafe { Mapper::new(vdev, map) }.alloc_coherent(size, handle, gfp)
    }

    /// Frees what [`virtqueue_map_alloc_coherent`] gave.
    fn virtqueue_map_free_coherent(
        vdev: *mut virtio_device,
        map: virtio_map,
        size: usize,
        vaddr: *mut c_void,
        map_handle: dma_addr_t,
    ) {
        // SAFETY: By the contract of the function.
        let mapper = unsafe { Mapper::new(vdev, map) };
        // SAFETY: By the contract of the function.
        unsafe { mapper.free_coherent(size, vaddr, map_handle) };
    }
}
