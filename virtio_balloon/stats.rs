// SPDX-License-Identifier: GPL-2.0

//! Statistics of the memory, for a device that asks (Virtio 1.4, 5.5.6.3).
//!
//! There is one buffer. The device keeps it until it wants fresh figures, and gets it back filled
//! with them.

use super::{
    layout::{
        Statistic,
        STATISTICS, //
    },
    shared::{
        Reason,
        Shared, //
    }, //
};
use crate::{
    kernel_ext::{
        mem,
        vm_stat::{
            self,
            NodePages, //
        }, //
    },
    virtio::{
        payload::OutBuf,
        queue::Queue,
        ByteOrder,
        Device, //
    },
};

use core::mem::take;
use kernel::{
    device::Bound,
    new_mutex,
    num::casts::usize_as_u64,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::{
        Instant,
        Monotonic,
        Msecs, //
    },
};

/// Shortest time between two buffers, in milliseconds: a device that asks all the time is made to
/// wait.
const PAUSE_MS: Msecs = 100;

/// The buffer.
pub(super) type Buffer = OutBuf<Statistic, STATISTICS, ()>;

/// What the device is told (`VIRTIO_BALLOON_S_*` of `include/uapi/linux/virtio_balloon.h`).
#[derive(Clone, Copy)]
#[repr(u16)]
enum Tag {
    SwapIn = 0,
    SwapOut = 1,
    MajorFaults = 2,
    Faults = 3,
    Free = 4,
    Total = 5,
    Available = 6,
    Caches = 7,
    #[cfg(CONFIG_HUGETLB_PAGE)]
    HugePageAllocs = 8,
    #[cfg(CONFIG_HUGETLB_PAGE)]
    HugePageFailures = 9,
    OomKills = 10,
    AllocStalls = 11,
    AsyncScan = 12,
    DirectScan = 13,
    AsyncReclaim = 14,
    DirectReclaim = 15,
}

/// The statistics of one balloon.
#[pin_data]
pub(super) struct Stats<'a> {
    dev: &'a Device<Bound>,
    shared: Arc<Shared>,
    #[pin]
    state: Mutex<State>,
}

/// Where the buffer is.
struct State {
    /// `None` on a device that does not want statistics, and while it is reset.
    queue: Option<Queue<Buffer>>,
    /// The buffer, unless the device has it.
    buffer: Option<KBox<Buffer>>,
    /// The device was not told of the buffer yet, because it was not live.
    untold: bool,
    /// When the device was last given the buffer.
    given: Option<Instant<Monotonic>>,
    /// The log mentioned that the queue is broken.
    said_broken: bool,
}

impl<'a> Stats<'a> {
    /// Gives the device, which is not live yet, a first buffer if it has a queue for it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what [`Queue::add`] says.
    pub(super) fn new(
        dev: &'a Device<Bound>,
        shared: Arc<Shared>,
        queue: Option<Queue<Buffer>>,
    ) -> impl PinInit<Self, Error> + use<'a> {
        pin_init::pin_init_scope(move || {
            let mut state = State {
                queue: None,
                buffer: None,
                untold: false,
                given: None,
                said_broken: false,
            };

            if let Some(queue) = queue {
                state.buffer = Some(Buffer::new(())?);
                state.connect(queue, dev.byte_order())?;
            }
            Ok(try_pin_init!(Self {
                dev,
                shared,
                state <- new_mutex!(state),
            }? Error))
        })
    }

    /// Gives a device that was reset a first buffer again.
    ///
    /// # Errors
    ///
    /// What [`Queue::add`] says.
    pub(super) fn connect(&self, queue: Option<Queue<Buffer>>) -> Result {
        match queue {
            Some(queue) => self.state.lock().connect(queue, self.dev.byte_order()),
            None => Ok(()),
        }
    }

    /// Resets the device and takes the buffer back.
    pub(super) fn disconnect(&self) {
        let mut st = self.state.lock();

        let Some(queue) = st.queue.take() else {
            return;
        };
        if let Ok(reset) = self.dev.reset() {
            st.buffer = queue
                .take_unused(&reset)
                .ok()
                .flatten()
                .or(st.buffer.take());
        }
    }

    /// Answers the device if it asks; returns after how many milliseconds to look again, if that
    /// is not to wait for a notification.
    ///
    /// # Context
    ///
    /// May sleep. The device is live.
    pub(super) fn step(&self) -> Option<Msecs> {
        let mut guard = self.state.lock();
        let st = &mut *guard;
        let queue = st.queue.as_ref()?;

        if take(&mut st.untold) {
            // If that fails the queue is broken, which shows below.
            let _ = queue.notify();
            st.given = Some(Instant::now());
        }
        if let Some(buffer) = queue.take_used() {
            st.buffer = Some(buffer);
        }
        if queue.is_broken() {
            if !st.said_broken {
                st.said_broken = true;
                dev_err!(self.dev, "the virtqueue for statistics is broken\n");
            }
        } else if st.buffer.is_some() {
            if let Some(left) = st.given.and_then(time_left) {
                return Some(left);
            }
            // It fits: the queue is empty. If it is refused all the same the queue is broken.
            let _ = st.give(self.dev.byte_order());
            if let Some(queue) = &st.queue {
                let _ = queue.notify();
            }
            self.shared.figures.statistics.add(1);
        }
        drop(guard);
        self.shared.wakeup.end(Reason::STATISTICS);
        None
    }
}

impl State {
    /// Takes over the queue and makes the first buffer available.
    fn connect(&mut self, queue: Queue<Buffer>, order: ByteOrder) -> Result {
        self.queue = Some(queue);
        self.untold = true;
        self.said_broken = false;
        self.give(order)
    }

    /// Makes the buffer available, with fresh figures.
    fn give(&mut self, order: ByteOrder) -> Result {
        let (Some(queue), Some(mut buffer)) = (self.queue.as_mut(), self.buffer.take()) else {
            return Ok(());
        };

        fill(&mut buffer, order);
        self.given = Some(Instant::now());
        queue.add(buffer).map_err(|(e, buffer)| {
            self.buffer = Some(buffer);
            e
        })
    }
}

/// Milliseconds until the device may have the buffer again, if it had it at `given`.
fn time_left(given: Instant<Monotonic>) -> Option<Msecs> {
    let left = i64::from(PAUSE_MS) - given.elapsed().as_millis();

    Msecs::try_from(left).ok().filter(|left| *left > 0)
}

/// Fills a buffer with the present figures, the same ones each time.
fn fill(buffer: &mut Buffer, order: ByteOrder) {
    buffer.clear();

    let bytes = |pages: u64| pages << PAGE_SHIFT;
    let mut put = |tag: Tag, value: u64| {
        // CAST: The tags are 16 bits.
        let [t0, t1] = order.bytes_of_u16(tag as u16);
        let [v0, v1, v2, v3, v4, v5, v6, v7] = order.bytes_of_u64(value);

        // There is room for one of each tag.
        let _ = buffer.push([t0, t1, v0, v1, v2, v3, v4, v5, v6, v7]);
    };
    let memory = vm_stat::Memory::read();

    #[cfg(CONFIG_VM_EVENT_COUNTERS)]
    {
        let events = vm_stat::Events::read();

        put(Tag::SwapIn, bytes(events.swapped_in()));
        put(Tag::SwapOut, bytes(events.swapped_out()));
        put(Tag::MajorFaults, events.major_faults());
        put(Tag::Faults, events.faults());
        put(Tag::OomKills, events.oom_kills());
        put(Tag::AllocStalls, events.alloc_stalls());
        put(Tag::AsyncScan, bytes(NodePages::ScannedByKswapd.read()));
        put(Tag::DirectScan, bytes(NodePages::ScannedDirectly.read()));
        put(
            Tag::AsyncReclaim,
            bytes(NodePages::ReclaimedByKswapd.read()),
        );
        put(
            Tag::DirectReclaim,
            bytes(NodePages::ReclaimedDirectly.read()),
        );
        #[cfg(CONFIG_HUGETLB_PAGE)]
        put(Tag::HugePageAllocs, events.huge_page_allocs());
        #[cfg(CONFIG_HUGETLB_PAGE)]
        put(Tag::HugePageFailures, events.huge_page_failures());
    }
    put(Tag::Free, bytes(memory.free));
    put(Tag::Total, bytes(memory.total));
    put(Tag::Available, bytes(usize_as_u64(mem::available_pages())));
    put(Tag::Caches, bytes(NodePages::File.read()));
}
