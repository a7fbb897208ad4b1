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
        self,
        Mapper, //
    },
    queue::{
        Notify,
        Queue,
        Ring, //
    },
    sg::Lists,
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
    prelude::*,
    warn_on, //
};

type Callback = Option<unsafe extern "C" fn(*mut virtqueue)>;
type Recycle = Option<unsafe extern "C" fn(*mut virtqueue, *mut c_void)>;

export_symbol_gpl! {
    virtqueue_add_sgs,
    virtqueue_add_outbuf,
    virtqueue_add_outbuf_premapped,
    virtqueue_add_inbuf,
    virtqueue_add_inbuf_cache_clean,
    virtqueue_add_inbuf_ctx,
    virtqueue_add_inbuf_premapped,
    virtqueue_dma_dev,
    virtqueue_kick_prepare,
    virtqueue_notify,
    virtqueue_kick,
    virtqueue_get_buf_ctx,
    virtqueue_get_buf,
    virtqueue_disable_cb,
    virtqueue_enable_cb_prepare,
    virtqueue_poll,
    virtqueue_enable_cb,
    virtqueue_enable_cb_delayed,
    virtqueue_detach_unused_buf,
    vring_interrupt,
    vring_create_virtqueue,
    vring_create_virtqueue_map,
    vring_new_virtqueue,
    vring_del_virtqueue,
    virtqueue_resize,
    virtqueue_reset,
    vring_notification_data,
    vring_transport_features,
    virtqueue_get_vring_size,
    __virtqueue_break,
    __virtqueue_unbreak,
    virtqueue_is_broken,
    virtio_break_device,
    __virtio_unbreak_device,
    virtqueue_get_desc_addr,
    virtqueue_get_avail_addr,
    virtqueue_get_used_addr,
    virtqueue_get_vring,
    virtio_max_dma_size,
    virtqueue_map_alloc_coherent,
    virtqueue_map_free_coherent,
    virtqueue_map_page_attrs,
    virtqueue_unmap_page_attrs,
    virtqueue_map_single_attrs,
    virtqueue_unmap_single_attrs,
    virtqueue_map_mapping_error,
    virtqueue_map_need_sync,
    virtqueue_map_sync_single_range_for_cpu,
    virtqueue_map_sync_single_range_for_device,
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

/// Makes a buffer of one list available.
///
/// # Safety
///
/// As for the C functions that use it.
#[inline(always)]
unsafe fn add_one(
    vq: *mut virtqueue,
    sg: *mut scatterlist,
    (num, inward): (c_uint, bool),
    (data, ctx): (*mut c_void, *mut c_void),
    gfp: gfp_t,
    (premapped, attrs): (bool, u32),
) -> c_int {
    let directions = if inward { (0, 1) } else { (1, 0) };
    // CAST: Widening.
    let attrs = attrs as c_ulong;
    // SAFETY: By the contract of the function the list is well-formed, and outlives the call.
    let lists = unsafe { Lists::new(&sg, directions, num, premapped, attrs) };
    // SAFETY: By the contract of the function.
    status(unsafe { Queue::from_raw(vq) }.add(&lists, data, ctx, gfp))
}

/// Makes a buffer of several lists available: first those that the device reads.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_add_sgs(
    vq: *mut virtqueue,
    sgs: *mut *mut scatterlist,
    out_sgs: c_uint,
    in_sgs: c_uint,
    data: *mut c_void,
    gfp: gfp_t,
) -> c_int {
    // SAFETY: By the contract of the function.
    let lists = unsafe { Lists::count(sgs, (out_sgs, in_sgs)) };
    // SAFETY: By the contract of the function.
    status(unsafe { Queue::from_raw(vq) }.add(&lists, data, null_mut(), gfp))
}

/// Makes a buffer available that the device reads.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_add_outbuf(
    vq: *mut virtqueue,
    sg: *mut scatterlist,
    num: c_uint,
    data: *mut c_void,
    gfp: gfp_t,
) -> c_int {
    // SAFETY: By the contract of the function.
    unsafe { add_one(vq, sg, (num, false), (data, null_mut()), gfp, (false, 0)) }
}

/// Makes a buffer available that the device reads and that the caller has mapped.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_add_outbuf_premapped(
    vq: *mut virtqueue,
    sg: *mut scatterlist,
    num: c_uint,
    data: *mut c_void,
    gfp: gfp_t,
) -> c_int {
    // SAFETY: By the contract of the function.
    unsafe { add_one(vq, sg, (num, false), (data, null_mut()), gfp, (true, 0)) }
}

/// Makes a buffer available that the device writes.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_add_inbuf(
    vq: *mut virtqueue,
    sg: *mut scatterlist,
    num: c_uint,
    data: *mut c_void,
    gfp: gfp_t,
) -> c_int {
    // SAFETY: By the contract of the function.
    unsafe { add_one(vq, sg, (num, true), (data, null_mut()), gfp, (false, 0)) }
}

/// Makes a buffer available that the device writes, and that may share cache lines with what the
/// CPU only reads meanwhile.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_add_inbuf_cache_clean(
    vq: *mut virtqueue,
    sg: *mut scatterlist,
    num: c_uint,
    data: *mut c_void,
    gfp: gfp_t,
) -> c_int {
    let attrs = bindings::DMA_ATTR_DEBUGGING_IGNORE_CACHELINES;
    // SAFETY: By the contract of the function.
    unsafe { add_one(vq, sg, (num, true), (data, null_mut()), gfp, (false, attrs)) }
}

/// Makes a buffer available that the device writes, with a context of the driver's.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_add_inbuf_ctx(
    vq: *mut virtqueue,
    sg: *mut scatterlist,
    num: c_uint,
    data: *mut c_void,
    ctx: *mut c_void,
    gfp: gfp_t,
) -> c_int {
    // SAFETY: By the contract of the function.
    unsafe { add_one(vq, sg, (num, true), (data, ctx), gfp, (false, 0)) }
}

/// Makes a buffer available that the device writes and that the caller has mapped.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_add_inbuf_premapped(
    vq: *mut virtqueue,
    sg: *mut scatterlist,
    num: c_uint,
    data: *mut c_void,
    ctx: *mut c_void,
    gfp: gfp_t,
) -> c_int {
    // SAFETY: By the contract of the function.
    unsafe { add_one(vq, sg, (num, true), (data, ctx), gfp, (true, 0)) }
}

/// Takes a used buffer: its token, or null.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_get_buf(
    vq: *mut virtqueue,
    len: *mut c_uint,
) -> *mut c_void {
    // SAFETY: By the contract of the function `len` points to a number of the caller's.
    let len = unsafe { &mut *len };
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.get(len, None)
}

/// Takes a used buffer and its context: its token, or null.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_get_buf_ctx(
    vq: *mut virtqueue,
    len: *mut c_uint,
    ctx: *mut *mut c_void,
) -> *mut c_void {
    // SAFETY: By the contract of the function `len` points to a number of the caller's.
    let len = unsafe { &mut *len };
    // SAFETY: By the contract of the function `ctx` is null or points to a pointer of the caller's.
    let ctx = unsafe { ctx.as_mut() };
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.get(len, ctx)
}

/// Takes a buffer back that the device has not used; it has been reset.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_detach_unused_buf(vq: *mut virtqueue) -> *mut c_void {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.detach()
}

// Notifications

/// Tells whether the device wants to be notified of the buffers added since the last call.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_kick_prepare(vq: *mut virtqueue) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.kick_prepare()
}

/// Notifies the device; false if the queue is broken.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_notify(vq: *mut virtqueue) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.notify()
}

/// Notifies the device if it wants to be; false if the queue is broken.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_kick(vq: *mut virtqueue) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.kick()
}

/// Asks for no notifications; a hint.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_disable_cb(vq: *mut virtqueue) {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.disable_cb();
}

/// Asks for notifications; returns what [`virtqueue_poll`] wants.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_enable_cb_prepare(vq: *mut virtqueue) -> c_uint {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.enable_cb_prepare()
}

/// Tells whether there are used buffers beyond those known when `last_used_idx` was given.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_poll(vq: *mut virtqueue, last_used_idx: c_uint) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.poll(last_used_idx)
}

/// Asks for notifications; false if there are used buffers already.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_enable_cb(vq: *mut virtqueue) -> bool {
    // SAFETY: By the contract of the function.
    let queue = unsafe { Queue::from_raw(vq) };
    !queue.poll(queue.enable_cb_prepare())
}

/// Asks for a notification when most buffers were used; false if they are already.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_enable_cb_delayed(vq: *mut virtqueue) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.enable_cb_delayed()
}

/// Handles the interrupt of a queue.
#[no_mangle]
pub(crate) unsafe extern "C" fn vring_interrupt(_irq: c_int, vq: *mut c_void) -> irqreturn_t {
    // SAFETY: By the contract of the function.
    if unsafe { Queue::from_raw(vq.cast()) }.interrupt() {
        irqreturn_t::IRQ_HANDLED
    } else {
        irqreturn_t::IRQ_NONE
    }
}

/// What a notification of this queue carries if it carries data.
#[no_mangle]
pub(crate) unsafe extern "C" fn vring_notification_data(vq: *mut virtqueue) -> u32 {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.notification_data()
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

/// Creates a queue with a ring of its own.
#[no_mangle]
pub(crate) unsafe extern "C" fn vring_create_virtqueue(
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
#[no_mangle]
pub(crate) unsafe extern "C" fn vring_create_virtqueue_map(
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
#[no_mangle]
pub(crate) unsafe extern "C" fn vring_new_virtqueue(
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
#[no_mangle]
pub(crate) unsafe extern "C" fn vring_del_virtqueue(vq: *mut virtqueue) {
    // SAFETY: By the contract of the function.
    unsafe { create::delete(vq) };
}

/// Stops a queue and gives all its buffers to `recycle`.
///
/// # Safety
///
/// As for [`virtqueue_reset`].
unsafe fn stop(vq: *mut virtqueue, recycle: Recycle, done: Callback) -> Result {
    // SAFETY: By the safety requirements.
    let queue = unsafe { Queue::from_raw(vq) };
    if !queue.owns_ring() {
        return Err(EPERM);
    }
    // SAFETY: By the safety requirements; the device and its operations are valid.
    let config = unsafe { &*(*(*vq).vdev).config };
    let (Some(disable), Some(_)) = (config.disable_vq_and_reset, config.enable_vq_after_reset)
    else {
        return Err(ENOENT);
    };
    // SAFETY: By the safety requirements.
    match unsafe { disable(vq) } {
        0 => (),
        errno => return Err(Error::from_errno(errno)),
    }
    loop {
        let token = queue.detach();
        if token.is_null() {
            break;
        }
        if let Some(recycle) = recycle {
            // SAFETY: By the safety requirements.
            unsafe { recycle(vq, token) };
        }
    }
    if let Some(done) = done {
        // SAFETY: By the safety requirements.
        unsafe { done(vq) };
    }
    Ok(())
}

/// Lets a stopped queue run again.
///
/// # Safety
///
/// As for [`virtqueue_reset`]; [`stop`] has succeeded.
unsafe fn restart(vq: *mut virtqueue) -> Result {
    // SAFETY: By the safety requirements; the device and its operations are valid.
    let config = unsafe { &*(*(*vq).vdev).config };
    let enable = config.enable_vq_after_reset.ok_or(ENOENT)?;
    // SAFETY: By the safety requirements.
    match unsafe { enable(vq) } {
        0 => Ok(()),
        _ => Err(EBUSY),
    }
}

/// Gives a queue another size; all buffers go to `recycle`.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_resize(
    vq: *mut virtqueue,
    num: u32,
    recycle: Recycle,
    recycle_done: Callback,
) -> c_int {
    // SAFETY: By the contract of the function; the transport has set the field.
    if num > unsafe { (*vq).num_max } {
        return E2BIG.to_errno();
    }
    if num == 0 {
        return EINVAL.to_errno();
    }
    // SAFETY: By the contract of the function.
    let queue = unsafe { Queue::from_raw(vq) };
    if u32::from(queue.size()) == num {
        return 0;
    }
    // SAFETY: By the contract of the function.
    if let Err(error) = unsafe { stop(vq, recycle, recycle_done) } {
        return error.to_errno();
    }
    // SAFETY: `stop` has stopped the device, and the transport waits for interrupt handlers.
    let resized = unsafe { queue.resize(num) };
    // SAFETY: By the contract of the function.
    status(unsafe { restart(vq) }.and(resized))
}

/// Resets a queue; all buffers go to `recycle`.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_reset(
    vq: *mut virtqueue,
    recycle: Recycle,
    recycle_done: Callback,
) -> c_int {
    // SAFETY: By the contract of the function.
    if let Err(error) = unsafe { stop(vq, recycle, recycle_done) } {
        return error.to_errno();
    }
    // SAFETY: `stop` has stopped the device, and the transport waits for interrupt handlers.
    unsafe { Queue::from_raw(vq).reset() };
    // SAFETY: By the contract of the function.
    status(unsafe { restart(vq) })
}

/// Clears the transport feature bits that this module does not know.
#[no_mangle]
pub(crate) unsafe extern "C" fn vring_transport_features(vdev: *mut virtio_device) {
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

/// The number of descriptors of a queue.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_get_vring_size(vq: *const virtqueue) -> c_uint {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.size().into()
}

/// Breaks a queue.
#[no_mangle]
pub(crate) unsafe extern "C" fn __virtqueue_break(vq: *mut virtqueue) {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.set_broken(true);
}

/// Makes a broken queue whole.
#[no_mangle]
pub(crate) unsafe extern "C" fn __virtqueue_unbreak(vq: *mut virtqueue) {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.set_broken(false);
}

/// Whether a queue is broken.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_is_broken(vq: *const virtqueue) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.is_broken()
}

/// Breaks all queues of a device.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_break_device(vdev: *mut virtio_device) {
    // SAFETY: By the contract of the function.
    unsafe { create::each_queue(vdev, |queue| queue.set_broken(true)) };
}

/// Makes all queues of a device whole.
#[no_mangle]
pub(crate) unsafe extern "C" fn __virtio_unbreak_device(vdev: *mut virtio_device) {
    // SAFETY: By the contract of the function.
    unsafe { create::each_queue(vdev, |queue| queue.set_broken(false)) };
}

/// Addresses of a ring's three parts for the device; those of a caller's ring only it knows.
#[inline]
fn addresses(queue: &Queue) -> [dma_addr_t; 3] {
    match queue.ring() {
        Ring::Packed { areas, .. } => areas.each_ref().map(|area| area.addr()),
        Ring::Split {
            view,
            area: Some(area),
            ..
        } => {
            let (desc, avail, used) = view.parts();
            let at = |part: usize| {
                // CAST: Both have 64 bits.
                let offset = part.wrapping_sub(desc.as_ptr().addr()) as dma_addr_t;
                area.addr().wrapping_add(offset)
            };
            [
                area.addr(),
                at(avail.as_ptr().addr()),
                at(used.as_ptr().addr()),
            ]
        }
        Ring::Split { area: None, .. } => {
            warn_on!(true);
            [map::ERROR; 3]
        }
    }
}

/// The address of the descriptor table, or of the packed ring, for the device.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_get_desc_addr(vq: *const virtqueue) -> dma_addr_t {
    // SAFETY: By the contract of the function.
    let [desc, _, _] = addresses(unsafe { Queue::from_raw(vq) });
    desc
}

/// The address of the available ring, or of the driver's event suppression, for the device.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_get_avail_addr(vq: *const virtqueue) -> dma_addr_t {
    // SAFETY: By the contract of the function.
    let [_, avail, _] = addresses(unsafe { Queue::from_raw(vq) });
    avail
}

/// The address of the used ring, or of the device's event suppression, for the device.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_get_used_addr(vq: *const virtqueue) -> dma_addr_t {
    // SAFETY: By the contract of the function.
    let [_, _, used] = addresses(unsafe { Queue::from_raw(vq) });
    used
}

/// The parts of a split ring; all zero for a packed one.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_get_vring(
    vq: *const virtqueue,
) -> *const bindings::vring {
    // SAFETY: By the contract of the function.
    unsafe { Queue::from_raw(vq) }.vring.get()
}

// Mapping

/// The mapping of a queue.
///
/// # Safety
///
/// `vq` is a queue of this module that is not deleted meanwhile.
#[inline(always)]
unsafe fn mapper<'a>(vq: *const virtqueue) -> &'a Mapper {
    // SAFETY: By the safety requirements.
    &unsafe { Queue::from_raw(vq) }.mapper
}

/// The device of the DMA API, or null if the queue does not use it.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_dma_dev(vq: *mut virtqueue) -> *mut device {
    // SAFETY: By the contract of the function.
    unsafe { mapper(vq) }.dma_dev()
}

/// The largest single mapping for a device in bytes.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_max_dma_size(vdev: *const virtio_device) -> usize {
    let vdev = vdev.cast_mut();
    // SAFETY: By the contract of the function.
    let map = unsafe { device_map(vdev) };
    // SAFETY: By the contract of the function.
    unsafe { Mapper::new(vdev, map) }.max_size()
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

/// Allocates memory that driver and device see.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_map_alloc_coherent(
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
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_map_free_coherent(
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

/// Maps a part of a page for the device of a queue.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_map_page_attrs(
    vq: *const virtqueue,
    page: *mut page,
    offset: c_ulong,
    size: usize,
    dir: dma_data_direction,
    attrs: c_ulong,
) -> dma_addr_t {
    // SAFETY: By the contract of the function.
    unsafe { mapper(vq).map_page(page, offset, size, dir, attrs) }
}

/// Undoes [`virtqueue_map_page_attrs`].
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_unmap_page_attrs(
    vq: *const virtqueue,
    map_handle: dma_addr_t,
    size: usize,
    dir: dma_data_direction,
    attrs: c_ulong,
) {
    // SAFETY: By the contract of the function.
    unsafe { mapper(vq).unmap_page(map_handle, size, dir, attrs) };
}

/// Maps memory for the device of a queue, if it is to be mapped.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_map_single_attrs(
    vq: *const virtqueue,
    ptr: *mut c_void,
    size: usize,
    dir: dma_data_direction,
    attrs: c_ulong,
) -> dma_addr_t {
    // SAFETY: By the contract of the function.
    unsafe { mapper(vq).map_single(ptr, size, dir, attrs) }
}

/// Undoes [`virtqueue_map_single_attrs`].
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_unmap_single_attrs(
    vq: *const virtqueue,
    addr: dma_addr_t,
    size: usize,
    dir: dma_data_direction,
    attrs: c_ulong,
) {
    // SAFETY: By the contract of the function.
    let mapper = unsafe { mapper(vq) };
    if mapper.uses_api() {
        // SAFETY: By the contract of the function.
        unsafe { mapper.unmap_page(addr, size, dir, attrs) };
    }
}

/// 0, or the error of a mapping.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_map_mapping_error(
    vq: *const virtqueue,
    addr: dma_addr_t,
) -> c_int {
    // SAFETY: By the contract of the function.
    unsafe { mapper(vq) }.error(addr)
}

/// Whether a mapping has to be synchronised between CPU and device.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_map_need_sync(
    vq: *const virtqueue,
    addr: dma_addr_t,
) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { mapper(vq) }.needs_sync(addr)
}

/// Gives a part of a mapping to the CPU.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_map_sync_single_range_for_cpu(
    vq: *const virtqueue,
    addr: dma_addr_t,
    offset: c_ulong,
    size: usize,
    dir: dma_data_direction,
) {
    // SAFETY: By the contract of the function.
    unsafe { mapper(vq).sync_for_cpu(addr.wrapping_add(offset as u64), size, dir) };
}

/// Gives a part of a mapping to the device.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtqueue_map_sync_single_range_for_device(
    vq: *const virtqueue,
    addr: dma_addr_t,
    offset: c_ulong,
    size: usize,
    dir: dma_data_direction,
) {
    // SAFETY: By the contract of the function.
    unsafe { mapper(vq).sync_for_device(addr.wrapping_add(offset as u64), size, dir) };
}
