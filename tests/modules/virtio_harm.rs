// SPDX-License-Identifier: GPL-2.0

//! A driver for entropy devices that tries to do harm, in safe code: it forgets its queue, keeps
//! and swaps handles between devices, calls everything from everywhere and at once, and its
//! payloads lie. Nothing may come of it but errors. It says which, where they are certain.
//!
//! `insmod virtio_harm.ko harm=<n>`: 0 is all but the others. 1 forgets the queue, 2 stops the
//! device before there are queues, 3 resets it before it is live.

#![allow(
    unused_imports,
    unused_macros,
    reason = "the module has something to clean up, so it registers its driver by hand"
)]

#[path = "../../config.rs"]
pub mod config;

/// What the API uses.
#[path = "../../kernel_ext"]
pub mod kernel_ext {
    pub mod kthread;
    pub mod registration;
    pub mod sg;
    pub mod wait;
}

#[path = "../../virtio/mod.rs"]
pub mod virtio;

use kernel::{
    prelude::*,
    sync::global_lock, //
};

module! {
    type: Module,
    name: "virtio_harm",
    authors: ["The virtio-rust developers"],
    description: "A virtio driver that tries to do harm",
    license: "GPL",
    params: {
        harm: u32 {
            default: 0,
            description: "what to try",
        },
    },
}

/// Says what happens.
macro_rules! say {
    ($($arguments:tt)*) => {
        ::kernel::pr_info!("> {}\n", ::kernel::prelude::fmt!($($arguments)*))
    };
}

global_lock! {
    // SAFETY: `Module::init` initialises it before the driver is registered.
    unsafe(uninit) static HANDLES: Mutex<driver::Handles> = driver::Handles::NONE;
}

/// The driver.
mod driver {
    #![deny(unsafe_code)]

    use super::{
        module_parameters,
        HANDLES, //
    };
    use crate::{
        kernel_ext::kthread,
        virtio::prelude::*, //
    };
    use core::mem::{
        forget,
        swap, //
    };
    use kernel::{
        new_mutex,
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Arc,
            Mutex, //
        },
        task::might_sleep,
        time::{
            delay::fsleep,
            Delta, //
        },
    };

    const FORGET: u32 = 1;
    const STOP: u32 = 2;
    const RESET: u32 = 3;

    virtio_device_table!(TABLE, [DeviceId::any_vendor(DeviceId::RNG)]);

    /// Handles of all devices, there or gone, with whom everybody may work.
    pub(super) struct Handles([Option<Arc<Queue<Liar>>>; 6], usize);

    impl Handles {
        pub(super) const NONE: Self = Self([const { None }; 6], 0);

        /// Keeps a handle in place of the oldest one.
        fn keep(&mut self, queue: Arc<Queue<Liar>>) {
            let place = self.1 % self.0.len();

            self.1 += 1;
            if let Some(handle) = self.0.get_mut(place) {
                *handle = Some(queue);
            }
        }
    }

    /// A payload that shows something else each time, and uses queues while it is asked, told and
    /// dropped.
    pub(super) struct Liar {
        memory: [KBox<InBuf<64>>; 5],
        text: KBox<OutBuf<Le32, 4, ()>>,
        queue: Option<Arc<Queue<Self>>>,
        turn: usize,
    }

    impl Liar {
        fn new(queue: Option<Arc<Queue<Self>>>, turn: usize) -> Result<KBox<Self>> {
            let mut text = OutBuf::new(())?;
            let memory = [
                InBuf::new()?,
                InBuf::new()?,
                InBuf::new()?,
                InBuf::new()?,
                InBuf::new()?,
            ];

            text.push(Le32::from_cpu(7))?;
            Ok(KBox::new(
                Self {
                    memory,
                    text,
                    queue,
                    turn,
                },
                GFP_KERNEL,
            )?)
        }

        /// Does what the handle allows in any context.
        fn use_queue(&self) {
            if let Some(queue) = &self.queue {
                let _ = queue.disable_callback();
                let _ = queue.enable_callback();
                let _ = queue.notify();
                let _ = queue.size() + usize::from(queue.is_broken());
            }
        }
    }

    impl Payload for Liar {
        fn parts(&mut self) -> Parts<'_> {
            self.use_queue();
            self.turn += 1;
            let [a, b, c, d, e] = &mut self.memory;

            match self.turn % 6 {
                // An entropy device has nothing to read, so these do not go.
                0 => Parts::new(),
                1 => Parts::new()
                    .writable(&mut **a)
                    .writable(&mut **b)
                    .writable(&mut **c)
                    .writable(&mut **d)
                    .writable(&mut **e),
                2 => Parts::new().writable(&mut **a),
                3 => Parts::new().writable(&mut **b).writable(&mut **c),
                4 => Parts::new()
                    .writable(&mut **d)
                    .writable(&mut **c)
                    .writable(&mut **b)
                    .writable(&mut **a),
                _ => Parts::new()
                    .writable(&mut **e)
                    .writable(Writable::NOTHING)
                    .readable(Readable::NOTHING),
            }
        }

        fn used(&mut self, len: usize) {
            // Whatever the device wrote is not where this looks for it.
            for buf in &mut self.memory {
                buf.used(len.saturating_mul(1000));
                let _ = buf.take(usize::MAX);
            }
            self.text.clear();
            self.use_queue();
        }
    }

    impl Drop for Liar {
        fn drop(&mut self) {
            self.use_queue();
        }
    }

    /// The driver.
    pub(super) struct Harm;

    /// What it keeps for its device.
    #[pin_data]
    pub(super) struct Data<'a> {
        dev: &'a Device<Bound>,
        /// The handle of this device, or of another one.
        queue: Option<Arc<Queue<Liar>>>,
        /// One that goes from device to device.
        #[pin]
        swapped: Mutex<Option<Arc<Queue<Liar>>>>,
        interrupts: Atomic<u32>,
    }

    /// What a call came to, for the log.
    fn code<T>(result: Result<T>) -> c_int {
        result.map_or_else(Error::to_errno, |_| 0)
    }

    /// Adds a payload of one piece; returns what that came to.
    fn add(queue: &Queue<Liar>) -> c_int {
        let Ok(payload) = Liar::new(None, 1) else {
            return 0;
        };

        code(queue.add(payload).map_err(|(error, _)| error))
    }

    /// The same, with a notification.
    fn send(queue: &Queue<Liar>) -> c_int {
        let Ok(payload) = Liar::new(None, 1) else {
            return 0;
        };

        code(queue.send(payload).map_err(|(error, _)| error))
    }

    /// Says what comes of a handle.
    fn probe_handle(what: &str, queue: &Queue<Liar>) {
        say!(
            "{what}: add {}, send {}, notify {}, poll {}, mask {}, used {}, size {}, broken {}",
            add(queue),
            send(queue),
            code(queue.notify()),
            code(queue.enable_callback_prepare()),
            code(queue.disable_callback()),
            u32::from(queue.take_used().is_some()),
            queue.size(),
            queue.is_broken()
        );
    }

    impl Data<'_> {
        /// Does one thing or another with a queue, from a thread.
        fn harm(&self, queue: &Arc<Queue<Liar>>, turn: usize) {
            match turn % 8 {
                0 | 1 => {
                    if let Ok(payload) = Liar::new(Some(queue.clone()), turn / 8) {
                        let _ = queue.send(payload);
                    }
                }
                2 | 3 => drop(queue.take_used()),
                4 => {
                    if let Ok(Some(notification)) = queue.prepare_notification() {
                        fsleep(Delta::from_micros(50));
                        let _ = notification.send();
                    }
                }
                5 => {
                    if let Ok(seen) = queue.enable_callback_prepare() {
                        let _ = queue.poll(seen);
                    }
                }
                6 => {
                    let _ = queue.enable_callback_delayed();
                }
                _ => swap(&mut *self.swapped.lock(), &mut Some(queue.clone())),
            }
        }
    }

    #[vtable]
    impl Driver for Harm {
        type Data<'bound> = Data<'bound>;
        type Registration<'bound> = ();

        const ID_TABLE: IdTable = &TABLE;
        const THREADS: &'static [&'static CStr] = &[c"harm", c"more"];

        fn probe<'bound>(
            dev: &'bound Device<Core<'_>>,
            queues: NewQueues<'_, Self>,
        ) -> impl PinInit<Data<'bound>, Error> {
            pin_init::pin_init_scope(move || {
                let harm = module_parameters::harm.value();

                say!("reset without queues: {}", code(dev.reset()));
                if harm == STOP {
                    dev.shut_down();
                    let queues = queues.single::<Liar>(c"harm");
                    say!(
                        "queues of a device that was stopped: {}",
                        code(queues.map(drop))
                    );
                    return Err(ENODEV);
                }
                let queue = queues.single::<Liar>(c"harm")?;

                say!(
                    "before it is live: add {}, send {}, notify {}",
                    add(&queue),
                    send(&queue),
                    code(queue.notify())
                );
                let queue = match harm {
                    FORGET => {
                        forget(queue);
                        None
                    }
                    _ => Some(Arc::new(queue, GFP_KERNEL)?),
                };
                if let (RESET, Some(queue)) = (harm, &queue) {
                    let reset = dev.reset()?;

                    say!("some are left: {}", queue.take_unused(&reset)?.is_some());
                    probe_handle("after a reset", queue);
                }
                Ok(try_pin_init!(Data {
                    dev,
                    queue,
                    swapped <- new_mutex!(None),
                    interrupts: Atomic::new(0),
                }? Error))
            })
        }

        fn live(_dev: &Device<Core<'_>>, data: Pin<&Data<'_>>) -> Result {
            let Some(queue) = &data.queue else {
                return Ok(());
            };

            // After a reset by the bus the handle is one of before.
            let _ = queue.notify();
            HANDLES.lock().keep(queue.clone());
            Ok(())
        }

        fn notified(_dev: &Device<Bound>, data: Pin<&Data<'_>>, _place: usize) {
            data.interrupts
                .store(data.interrupts.load(Relaxed) + 1, Relaxed);
            if let Some(queue) = &data.queue {
                let _ = queue.disable_callback();
                // What comes back goes in again, from the interrupt.
                if let Some(payload) = queue.take_used() {
                    let _ = queue.send(payload);
                }
                let _ = queue.enable_callback();
            }
        }

        fn thread(
            _dev: &Device<Bound>,
            data: Pin<&Data<'_>>,
            current: &kthread::Current,
            which: usize,
        ) {
            let mut turn = which * 3;

            while !current.should_stop() {
                let queue = {
                    let handles = HANDLES.lock();

                    handles.0.get(turn % 6).cloned().flatten()
                };

                if let Some(queue) = queue {
                    data.harm(&queue, turn / 6);
                }
                turn += 1;
                might_sleep();
                fsleep(Delta::from_micros(100));
            }
        }

        fn unbind(dev: &Device<Core<'_>>, data: Pin<&Data<'_>>) {
            let Some(queue) = &data.queue else {
                return;
            };
            let others: [_; 6] = HANDLES.lock().0.clone();

            // Twice is as good as once.
            let first = dev.reset();
            let second = data.dev.reset();
            say!("reset: {}, {}", code(first), code(second));
            if let Ok(reset) = dev.reset() {
                say!("left: {}", code(queue.take_unused(&reset)));
                for other in others.iter().flatten() {
                    if !Arc::ptr_eq(other, queue) {
                        let code = code(other.take_unused(&reset));

                        if code != EBUSY.to_errno() && code != ENODEV.to_errno() && code != 0 {
                            say!("of another device: {code}");
                        }
                    }
                }
            }
            probe_handle("after a reset", queue);
        }

        fn freeze(_dev: &Device<Core<'_>>, _data: Pin<&Data<'_>>) -> Result {
            Ok(())
        }

        fn prepare_reset(_dev: &Device<Core<'_>>, _data: Pin<&Data<'_>>) -> Result {
            Ok(())
        }

        fn restore(
            _dev: &Device<Core<'_>>,
            _data: Pin<&Data<'_>>,
            queues: NewQueues<'_, Self>,
        ) -> Result {
            // The handle of before is of no use; this one has no owner but the list.
            let queue = Arc::new(queues.single::<Liar>(c"harm")?, GFP_KERNEL)?;

            HANDLES.lock().keep(queue);
            Ok(())
        }
    }

    /// Says what comes of handles whose queues are gone, and drops them.
    pub(super) fn finish() {
        let mut handles = HANDLES.lock();

        for queue in handles.0.iter().flatten() {
            probe_handle("at the end", queue);
        }
        *handles = Handles::NONE;
    }
}

/// The driver, registered; dropped before the handles.
#[pin_data]
struct Module {
    #[pin]
    driver: kernel::driver::Registration<virtio::driver::Adapter<driver::Harm>>,
    handles: Cleared,
}

/// Clears the handles when the driver is gone.
struct Cleared;

impl Drop for Cleared {
    fn drop(&mut self) {
        driver::finish();
    }
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Called once, before anybody uses it.
        unsafe { HANDLES.init() };
        try_pin_init!(Self {
            handles: Cleared,
            driver <- kernel::driver::Registration::new(c"virtio_harm", module),
        })
    }
}
