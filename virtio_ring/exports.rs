// SPDX-License-Identifier: GPL-2.0

//! The C functions of this module, and nothing else: those for buffers and notifications, in
//! `exports/queues.rs` those for queues as such, in `exports/mapping.rs` those that map.
//!
//! Their contracts are those of `include/linux/virtio.h` and `include/linux/virtio_ring.h`, which
//! say when a call must be serialised with others. In every one of them a queue is one of this
//! module that is not deleted meanwhile.

#![allow(
    clippy::missing_safety_doc,
    reason = "the contracts are those of the C headers"
)]

use super::{
    queue::Queue,
    sg::Lists,
    take::Wanted, //
};
use crate::virtio::{
    bindings::{
        self,
        gfp_t,
        irqreturn_t,
        scatterlist,
        virtqueue, //
    },
    export::export_symbol_gpl, //
};

use core::ptr::null_mut;
use kernel::{
    ffi::{
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

mod mapping;
mod queues;

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
        let lists = unsafe { Lists::uncounted(sgs, (out_sgs, in_sgs)) };
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
