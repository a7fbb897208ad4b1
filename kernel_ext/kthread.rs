// SPDX-License-Identifier: GPL-2.0

//! Freezable kernel threads.
//!
//! C header: `include/linux/kthread.h`, `include/linux/freezer.h`.

use core::{
    marker::PhantomData,
    pin::Pin,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    error::from_err_ptr,
    impl_has_hr_timer,
    prelude::*,
    time::{
        hrtimer::{
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerRestart,
            RelativeMode,
            ScopedHrTimerPointer, //
        },
        Delta,
        Monotonic, //
    },
    types::Opaque, //
};

/// How often a thread that is to stop is thawed.
const THAW: Delta = Delta::from_millis(10);

/// A kernel thread that its owner starts and stops.
///
/// Dropping it asks the thread to stop and waits until it has. A thread that is frozen is thawed
/// for that: devices are unplugged while tasks are frozen, too.
///
/// # Invariants
///
/// This owns a reference on the task of the thread.
pub struct Thread(Pin<KBox<Task>>);

/// The task of a thread, and the timer that thaws it.
#[pin_data]
struct Task {
    task: NonNull<bindings::task_struct>,
    #[pin]
    timer: HrTimer<Self>,
}

impl Task {
    /// Wakes the task if it is frozen, whether others are to stay so or not.
    ///
    /// `thaw_process()` is not there for modules. A task that is not asked to stop would go on as
    /// if the system did not sleep.
    fn thaw(&self) {
        let entry = Opaque::<bindings::wait_queue_entry>::zeroed();

        // SAFETY: Nobody else has the entry.
        unsafe { (*entry.get()).private = self.task.as_ptr().cast() };
        // SAFETY: The function takes the task from the entry, and nothing else. `Thread` keeps it.
        unsafe {
            bindings::default_wake_function(entry.get(), bindings::TASK_FROZEN, 0, null_mut())
        };
    }
}

impl HrTimerCallback for Task {
    type Pointer<'a> = Pin<&'a Self>;

    fn run(this: Pin<&Self>, mut context: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        this.thaw();
        context.forward_now(THAW);
        HrTimerRestart::Restart
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Task {
        mode: RelativeMode<Monotonic>, field: self.timer
    }
}

// SAFETY: A task may be woken from any thread.
unsafe impl Send for Task {}

// SAFETY: A task may be woken by several threads at once.
unsafe impl Sync for Task {}

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
        let boxed = KBox::pin_init(
            pin_init!(Task {
                task,
                timer <- HrTimer::new(),
            }),
            GFP_KERNEL,
        );

        match boxed {
            // INVARIANT: The reference was taken above.
            Ok(boxed) => Ok(Self(boxed)),
            Err(error) => {
                // SAFETY: The reference was taken above. A thread that never ran ends at once.
                unsafe {
                    bindings::kthread_stop(task.as_ptr());
                    bindings::put_task_struct(task.as_ptr());
                }
                Err(error)
            }
        }
    }

    /// Lets the thread run.
    pub fn start(&self) {
        // SAFETY: The task exists by the type invariant.
        unsafe { bindings::wake_up_process(self.0.task.as_ptr()) };
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let task = self.0.task;

        // It may be frozen now, or only when it was asked to stop.
        self.0.as_ref().start_scoped(THAW, || {
            // SAFETY: Nobody else stops the thread. It exists until its reference is put below.
            unsafe { bindings::kthread_stop(task.as_ptr()) }
        });
        // SAFETY: By the type invariant; the timer does not use the task any more.
        unsafe { bindings::put_task_struct(task.as_ptr()) };
    }
}

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
