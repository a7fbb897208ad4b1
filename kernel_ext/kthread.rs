// SPDX-License-Identifier: GPL-2.0

//! Freezable kernel threads.
//!
//! C header: `include/linux/kthread.h`, `include/linux/freezer.h`.

use core::{
    marker::PhantomData,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*, //
};

/// A kernel thread that its owner starts and stops.
///
/// Dropping it asks the thread to stop and waits until it has. A frozen thread does not answer, so
/// never drop it from a callback of the PM core.
///
/// # Invariants
///
/// `0` points to the task of the thread, on which this owns a reference.
pub struct Thread(NonNull<bindings::task_struct>);

impl Thread {
    /// Creates a thread named `name/instance`, which does not run before [`Self::start`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EINTR` if the caller is being killed.
    ///
    /// # Context
    ///
    /// May sleep.
    ///
    /// # Safety
    ///
    /// `main` may be called with `arg`, once, at any time until the returned value was dropped, and
    /// the caller must see to it that it is dropped.
    pub unsafe fn new(
        main: unsafe extern "C" fn(*mut c_void) -> c_int,
        arg: *mut c_void,
        name: &CStr,
        instance: &CStr,
    ) -> Result<Self> {
        // SAFETY: The format takes two strings, both NUL-terminated. The rest is required above.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(main),
                arg,
                bindings::NUMA_NO_NODE,
                c"%s/%s".as_char_ptr(),
                name.as_char_ptr(),
                instance.as_char_ptr(),
            )
        })?;
        let task = NonNull::new(task).ok_or(ENOMEM)?;

        // SAFETY: A new thread waits to be woken, so its task exists. The reference keeps it so.
        unsafe { bindings::get_task_struct(task.as_ptr()) };
        // INVARIANT: The reference was taken above.
        Ok(Self(task))
    }

    /// Lets the thread run.
    pub fn start(&self) {
        // SAFETY: The task exists by the type invariant.
        unsafe { bindings::wake_up_process(self.0.as_ptr()) };
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: The task exists by the type invariant, and the reference is dropped after use.
        unsafe {
            bindings::kthread_stop(self.0.as_ptr());
            bindings::put_task_struct(self.0.as_ptr());
        }
    }
}

// SAFETY: A task may be started and stopped from any thread.
unsafe impl Send for Thread {}

// SAFETY: `start` may be called from any thread, and concurrently.
unsafe impl Sync for Thread {}

/// The running thread itself; proof of being inside of one.
pub struct Current(PhantomData<*mut ()>);

impl Current {
    /// Runs the body of a thread, freezable from here on.
    ///
    /// # Safety
    ///
    /// To be called from the function that [`Thread::new`] was given, whose value it returns.
    pub unsafe fn enter(body: impl FnOnce(&Self)) -> c_int {
        // A kernel without a freezer freezes no thread.
        #[cfg(CONFIG_FREEZER)]
        // SAFETY: Affects and may freeze the calling thread, which has nothing locked yet.
        unsafe {
            bindings::set_freezable()
        };
        body(&Self(PhantomData));
        0
    }

    /// Freezes the thread if the PM core asks for that; tells whether the owner wants it to end.
    ///
    /// A thread that always has something to do must call this between two pieces of work: a wait
    /// that need not wait does not freeze it.
    ///
    /// # Context
    ///
    /// May sleep for as long as the system does; holds no lock.
    pub fn should_stop_or_freeze(&self) -> bool {
        // SAFETY: The caller is a kernel thread, which `enter` has made freezable. The argument may
        // be NULL.
        unsafe { bindings::kthread_freezable_should_stop(null_mut()) }
    }

    /// Tells whether the owner wants the thread to end.
    pub fn should_stop(&self) -> bool {
        // SAFETY: The caller is a kernel thread.
        unsafe { bindings::kthread_should_stop() }
    }
}
