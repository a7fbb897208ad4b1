// SPDX-License-Identifier: GPL-2.0

//! What the memory management counts.
//!
//! C headers: `include/linux/vmstat.h`, `include/linux/vm_event_item.h`, `include/linux/mm.h`.

use kernel::{
    bindings,
    num::casts::{
        u32_as_usize,
        usize_as_u64, //
    },
    prelude::*, //
};

#[cfg(CONFIG_VM_EVENT_COUNTERS)]
const EVENTS: usize = bindings::vm_event_item_NR_VM_EVENT_ITEMS as usize; // CAST: A small constant.

/// Events since boot (`/proc/vmstat`). Sizes are in kernel pages.
#[cfg(CONFIG_VM_EVENT_COUNTERS)]
pub struct Events([c_ulong; EVENTS]);

#[cfg(CONFIG_VM_EVENT_COUNTERS)]
impl Events {
    /// Reads all counters, which go on counting meanwhile.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn read() -> Self {
        let mut events = [0; EVENTS];
        // SAFETY: The array has one element for each event.
        unsafe { bindings::all_vm_events(events.as_mut_ptr()) };
        Self(events)
    }

    /// The counter of one event.
    fn get(&self, item: bindings::vm_event_item) -> u64 {
        let value = usize::try_from(item).ok().and_then(|i| self.0.get(i));

        value.map_or(0, |value| usize_as_u64(*value))
    }

    /// Pages read from swap.
    pub fn swapped_in(&self) -> u64 {
        self.get(bindings::vm_event_item_PSWPIN)
    }

    /// Pages written to swap.
    pub fn swapped_out(&self) -> u64 {
        self.get(bindings::vm_event_item_PSWPOUT)
    }

    /// Page faults that had to wait for a disk.
    pub fn major_faults(&self) -> u64 {
        self.get(bindings::vm_event_item_PGMAJFAULT)
    }

    /// Page faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.get(bindings::vm_event_item_PGFAULT)
    }

    /// Processes that were killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        self.get(bindings::vm_event_item_OOM_KILL)
    }

    /// Allocations that had to reclaim memory themselves, in all zones.
    pub fn alloc_stalls(&self) -> u64 {
        let first = bindings::vm_event_item_ALLOCSTALL_NORMAL - bindings::zone_type_ZONE_NORMAL;
        let zones = 0..bindings::zone_type___MAX_NR_ZONES;

        zones.map(|zone| self.get(first + zone)).sum()
    }

    /// Huge pages that were allocated for the pool.
    #[cfg(CONFIG_HUGETLB_PAGE)]
    pub fn huge_page_allocs(&self) -> u64 {
        self.get(bindings::vm_event_item_HTLB_BUDDY_PGALLOC)
    }

    /// Huge pages that could not be allocated for the pool.
    #[cfg(CONFIG_HUGETLB_PAGE)]
    pub fn huge_page_failures(&self) -> u64 {
        self.get(bindings::vm_event_item_HTLB_BUDDY_PGALLOC_FAIL)
    }
}

/// Something that all memory nodes together have, in kernel pages.
#[derive(Clone, Copy)]
pub enum NodePages {
    /// Scanned for reclaim in the background, since boot.
    ScannedByKswapd,
    /// Scanned for reclaim by allocating tasks, since boot.
    ScannedDirectly,
    /// Reclaimed in the background, since boot.
    ReclaimedByKswapd,
    /// Reclaimed by allocating tasks, since boot.
    ReclaimedDirectly,
    /// The page cache as it is now.
    File,
    /// Memory of processes and of file systems without a disk that was not used for a while.
    InactiveAnonymous,
    /// The same that was used recently.
    ActiveAnonymous,
    /// Read back from swap soon after they were reclaimed, since boot.
    RefaultedAnonymous,
    /// Read again from files soon after they were reclaimed, since boot.
    RefaultedFile,
}

impl NodePages {
    /// The present value.
    ///
    /// # Context
    ///
    /// Any.
    pub fn read(self) -> u64 {
        let item = match self {
            Self::ScannedByKswapd => bindings::node_stat_item_PGSCAN_KSWAPD,
            Self::ScannedDirectly => bindings::node_stat_item_PGSCAN_DIRECT,
            Self::ReclaimedByKswapd => bindings::node_stat_item_PGSTEAL_KSWAPD,
            Self::ReclaimedDirectly => bindings::node_stat_item_PGSTEAL_DIRECT,
            Self::File => bindings::node_stat_item_NR_FILE_PAGES,
            Self::InactiveAnonymous => bindings::node_stat_item_NR_INACTIVE_ANON,
            Self::ActiveAnonymous => bindings::node_stat_item_NR_ACTIVE_ANON,
            Self::RefaultedAnonymous => bindings::node_stat_item_WORKINGSET_REFAULT_ANON,
            Self::RefaultedFile => bindings::node_stat_item_WORKINGSET_REFAULT_FILE,
        };
        let counters = (&raw mut bindings::vm_node_stat).cast::<bindings::atomic64_t>();
        let counter = counters.wrapping_add(u32_as_usize(item));
        // SAFETY: The array has an element for each item, and lives for ever.
        let value = unsafe { bindings::atomic64_read(counter) };

        // The sum of counters of many CPUs can be negative for a moment.
        u64::try_from(value).unwrap_or(0)
    }
}

/// Sizes of all memory, in kernel pages.
pub struct Memory {
    /// Neither used nor reserved.
    pub free: u64,
    /// All that the page allocator manages (`MemTotal`).
    pub total: u64,
}

impl Memory {
    /// Reads the sizes.
    ///
    /// # Context
    ///
    /// Any.
    pub fn read() -> Self {
        let mut info = bindings::sysinfo::default();
        // SAFETY: `info` is valid for writing.
        unsafe { bindings::si_meminfo(&mut info) };
        Self {
            free: usize_as_u64(info.freeram),
            total: usize_as_u64(info.totalram),
        }
    }
}
