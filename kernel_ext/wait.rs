// SPDX-License-Identifier: GPL-2.0

//! Wait queues whose condition may sleep and whose wake-up may come from an interrupt.
//!
//! `kernel::sync::CondVar` protects its condition by a lock that an interrupt handler cannot take;
//! here the wake-up is remembered instead (`wait_woken()` of `kernel/sched/wait.c`).

use core::pin::Pin;
use kernel::{
    bindings,
    current,
    prelude::*,
    sync::LockClassKey,
    task::{
        might_sleep,
        Task,
        MAX_SCHEDULE_TIMEOUT, //
    },
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic,
        Msecs, //
    },
    types::Opaque, //
};

/// How the PM core treats a waiter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Freeze it where it waits; only for freezable threads that hold nothing others need.
    Freezable,
    /// Let it wait; the wait must be short.
    Brief,
    /// Stop waiting when it is sent a signal, which also freezes it, or when it is a kernel thread
    /// that is asked to stop.
    Interruptible,
}

impl Mode {
    /// The task state of a waiter, which does not count as load.
    fn state(self) -> c_uint {
        match self {
            Self::Freezable => bindings::TASK_IDLE | bindings::TASK_FREEZABLE,
            Self::Brief => bindings::TASK_IDLE,
            Self::Interruptible => bindings::TASK_INTERRUPTIBLE,
        }
    }

    /// Tells whether the current task must not wait any longer.
    fn is_interrupted(self) -> bool {
        self == Self::Interruptible && (current!().signal_pending() || should_stop())
    }
}

/// Tells whether the current task is a kernel thread that was asked to stop.
fn should_stop() -> bool {
    // SAFETY: The current task exists. Only its own flags are looked at.
    let flags = unsafe { (*Task::current_raw()).flags };

    // SAFETY: The current task is a kernel thread if this is called.
    flags & bindings::PF_KTHREAD != 0 && unsafe { bindings::kthread_should_stop() }
}

/// A queue of waiting tasks.
#[pin_data]
pub struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head_t>,
}

// SAFETY: A wait queue head has a lock of its own.
unsafe impl Send for WaitQueue {}

// SAFETY: As above; all functions on it may be called concurrently.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Initialises an empty queue; use [`new_wait_queue!`].
    pub fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|head| {
                // SAFETY: `head` is valid for writing, name and key are static.
                unsafe {
                    bindings::__init_waitqueue_head(head, name.as_char_ptr(), key.as_ptr())
                }
            }),
        })
    }

    /// Wakes all waiters, which then look at their conditions again.
    ///
    /// # Context
    ///
    /// Any, interrupts included.
    pub fn wake_all(&self) {
        // SAFETY: The head was initialised by `new`.
        unsafe {
            bindings::__wake_up(
                self.head.get(),
                bindings::TASK_NORMAL,
                0,
                core::ptr::null_mut(),
            )
        };
    }

    /// Waits until `condition` holds, for at most `timeout` milliseconds if one is given.
    ///
    /// Returns whether the condition holds. It is looked at before the first wait and after each
    /// wake-up; a wake-up between look and wait is not lost. A kernel thread that was asked to stop
    /// does not sleep here, so its condition should cover that, unless `mode` does.
    ///
    /// # Context
    ///
    /// May sleep; `condition` may, too.
    pub fn wait(
        &self,
        mode: Mode,
        timeout: Option<Msecs>,
        mut condition: impl FnMut() -> bool,
    ) -> bool {
        let start = Instant::<Monotonic>::now();
        let entry = Opaque::<bindings::wait_queue_entry>::zeroed();

        // SAFETY: `entry` lives on this stack until it is removed below and is not moved. Its list
        // node is written before anyone reads it; the wake function takes the task from `private`.
        unsafe {
            (*entry.get()).private = bindings::get_current().cast();
            (*entry.get()).func = Some(bindings::woken_wake_function);
            bindings::INIT_LIST_HEAD(&raw mut (*entry.get()).entry);
            bindings::add_wait_queue(self.head.get(), entry.get());
        }
        let held = loop {
            if condition() {
                break true;
            }
            let Some(left) = jiffies_left(start, timeout) else {
                break false;
            };
            if mode.is_interrupted() {
                break false;
            }
            // Wakers that never let a task sleep must not keep the others from running.
            might_sleep();
            // SAFETY: `entry` is on the queue and its task is the current one.
            unsafe { bindings::wait_woken(entry.get(), mode.state(), left) };
        };
        // SAFETY: `entry` was added above and nobody else removes it.
        unsafe { bindings::remove_wait_queue(self.head.get(), entry.get()) };
        held
    }
}

/// How many ticks are left of `timeout` milliseconds since `start`; `None` if none are.
fn jiffies_left(start: Instant<Monotonic>, timeout: Option<Msecs>) -> Option<c_long> {
    let Some(timeout) = timeout else {
        return Some(MAX_SCHEDULE_TIMEOUT);
    };
    let left = Msecs::try_from(i64::from(timeout) - start.elapsed().as_millis()).ok()?;

    c_long::try_from(msecs_to_jiffies(left))
        .ok()
        .filter(|ticks| *ticks > 0)
}

/// Creates a [`WaitQueue`] initialiser with a lock class of its own.
macro_rules! new_wait_queue {
    ($name:literal) => {
        $crate::kernel_ext::wait::WaitQueue::new(
            ::kernel::optional_name!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_wait_queue;
