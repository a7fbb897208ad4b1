// SPDX-License-Identifier: GPL-2.0

//! Work items in static memory, which need no allocation when they are queued.
//!
//! `kernel::workqueue` has items in allocated memory only, and cannot wait for one; a module that
//! is removed must.

use kernel::{
    bindings,
    container_of,
    ffi::c_int,
    prelude::*,
    sync::LockClassKey,
    types::Opaque,
    workqueue, //
};

/// A work item that lives as long as its module.
#[repr(C)]
pub struct StaticWork {
    work: Opaque<bindings::work_struct>,
    run: fn(),
}

// SAFETY: A work item may be queued from any thread, and `run` is a plain function.
unsafe impl Sync for StaticWork {}

impl StaticWork {
    /// Makes an item that calls `run`; [`Self::activate`] must come before it can be queued.
    pub const fn new(run: fn()) -> Self {
        Self {
            work: Opaque::uninit(),
            run,
        }
    }

    /// Makes the item ready for use, until the value returned is dropped.
    ///
    /// # Safety
    ///
    /// Nobody may queue the item before this, or once the value is being dropped; nobody may call
    /// this twice.
    pub unsafe fn activate(
        &'static self,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> Active {
        // SAFETY: By the safety requirements nobody uses the item yet; it is static, and so are
        // name and key.
        unsafe {
            bindings::init_work_with_key(
                self.work.get(),
                Some(Self::callback),
                false,
                name.as_char_ptr(),
                key.as_ptr(),
            )
        };
        Active(self)
    }

    /// Queues the item, unless it waits to be run already, in the queue that system sleep freezes.
    ///
    /// # Context
    ///
    /// Any, interrupts included. The item is active.
    pub fn queue_freezable(&'static self) {
        // CAST: The constant is the number of CPUs, at most.
        let any = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;
        let queue = core::ptr::from_ref(workqueue::system_freezable()).cast_mut();

        // SAFETY: `Queue` is a transparent wrapper of the C queue, which lives for ever; the item
        // is static and was initialised.
        unsafe { bindings::queue_work_on(any, queue.cast(), self.work.get()) };
    }

    /// # Safety
    ///
    /// Called only by a work queue, with the item of a `StaticWork`.
    unsafe extern "C" fn callback(work: *mut bindings::work_struct) {
        // SAFETY: By the requirements above; `Opaque` is transparent.
        let this = unsafe { container_of!(Opaque::cast_from(work), Self, work) };

        // SAFETY: As above; the item is static.
        (unsafe { (*this).run })();
    }
}

/// An active [`StaticWork`]. Dropping it takes the item out of its queue, or waits for its end.
pub struct Active(&'static StaticWork);

impl Drop for Active {
    fn drop(&mut self) {
        // SAFETY: `activate` initialised the item.
        unsafe { bindings::cancel_work_sync(self.0.work.get()) };
    }
}
