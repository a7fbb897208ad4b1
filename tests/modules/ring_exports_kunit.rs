// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of what `virtio_ring.ko` exports, on either's: rings on the caller's memory, the
//! `struct vring` that callers look into, buffers that the caller has mapped, and mapping
//! operations of a transport. The tests are the device, too.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "without KUnit there are no tests, and no test uses everything"
)]

use kernel::prelude::*;

/// The shared sources, as far as they are needed here.
#[path = "../../virtio"]
pub mod virtio {
    pub mod bindings;
}

/// As above.
#[path = "../../kernel_ext"]
pub mod kernel_ext {
    pub mod phys;
}

#[path = "ring_exports"]
mod ring_exports {
    pub(crate) mod books;
    pub(crate) mod device;
}

module! {
    type: Module,
    name: "ring_exports_kunit",
    authors: ["The virtio-rust developers"],
    description: "KUnit tests of the functions of virtio_ring",
    license: "GPL",
}

struct Module;

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

#[kernel::macros::kunit_tests(virtio_ring_exports)]
mod tests {
    use super::{
        kernel_ext::phys::virt_to_phys,
        ring_exports::{
            books::{
                self,
                FAR, //
            },
            device::{
                callback,
                late_interrupt,
                notify,
                recycle,
                Device,
                Memory,
                CALLBACKS,
                DISABLED,
                LATE,
                NOTIFICATIONS, //
            }, //
        },
        virtio::bindings::{
            self,
            dma_data_direction,
            irqreturn_t,
            scatterlist,
            virtqueue, //
        },
    };
    use core::{
        ptr::{
            null_mut,
            without_provenance_mut, //
        },
        sync::atomic::Ordering::Relaxed,
    };
    use kernel::{
        ffi::c_void,
        prelude::*,
        str::CStrExt, //
    };

    const DMA_TO_DEVICE: dma_data_direction = dma_data_direction::DMA_TO_DEVICE;
    const INDIRECT: u64 = 1 << bindings::VIRTIO_RING_F_INDIRECT_DESC;
    const VERSION_1: u64 = 1 << bindings::VIRTIO_F_VERSION_1;
    const MAPPED: u64 = VERSION_1 | 1 << bindings::VIRTIO_F_ACCESS_PLATFORM;
    const PACKED: u64 = 1 << bindings::VIRTIO_F_RING_PACKED;

    /// Memory for a ring of 16 descriptors whose used ring begins on the second page.
    #[repr(C, align(4096))]
    struct Pages([u8; 8192]);

    /// A token, and never a pointer.
    fn token(number: usize) -> *mut c_void {
        without_provenance_mut(number)
    }

    /// The device's side of a split ring, as `struct vring` shows it.
    struct Ring(bindings::vring);

    impl Ring {
        /// # Safety
        ///
        /// `vq` is a split queue.
        unsafe fn of(vq: *mut virtqueue) -> Self {
            // SAFETY: By the safety requirements.
            Self(unsafe { *bindings::virtqueue_get_vring(vq) })
        }

        /// A word of the available ring: flags, index, entries.
        fn avail(&self, word: usize) -> u16 {
            // SAFETY: Callers pass a word of the ring, which lives.
            unsafe { self.0.avail.cast::<u16>().add(word).read_volatile() }
        }

        /// A descriptor: address, length, flags.
        fn desc(&self, index: u16) -> (u64, u32, u16) {
            // SAFETY: Callers pass an index below the size.
            let desc = unsafe { self.0.desc.add(index.into()).read_volatile() };
            (desc.addr, desc.len, desc.flags)
        }

        /// Uses the buffer `head` as the `count`th one.
        fn use_buffer(&self, count: u16, head: u16, len: u32) {
            let used = self.0.used;
            // SAFETY: Callers have no more buffers than the ring has entries: `flags`, `idx`, then
            // entries of two words.
            let entry = unsafe { used.cast::<u32>().add(2 * usize::from(count) - 1) };
            // SAFETY: As above.
            unsafe { entry.write_volatile(head.into()) };
            // SAFETY: As above.
            unsafe { entry.add(1).write_volatile(len) };
            // SAFETY: As above.
            unsafe { used.cast::<u16>().add(1).write_volatile(count) };
        }
    }

    /// Adds a buffer of one entry that the device reads.
    fn add(vq: *mut virtqueue, list: &mut scatterlist, token: *mut c_void) -> i32 {
        // SAFETY: The list has one entry, the queue is live.
        unsafe { bindings::virtqueue_add_outbuf(vq, list, 1, token, bindings::GFP_KERNEL) }
    }

    /// Adds a buffer of two entries: one that the device reads, one that it writes.
    fn add_two(vq: *mut virtqueue, lists: &mut [scatterlist; 2], token: *mut c_void) -> i32 {
        let [out, inward] = lists;
        let mut lists = [&raw mut *out, &raw mut *inward];
        let gfp = bindings::GFP_KERNEL;
        // SAFETY: As above.
        unsafe { bindings::virtqueue_add_sgs(vq, lists.as_mut_ptr(), 1, 1, token, gfp) }
    }

    /// Takes a used buffer: token and length.
    fn get(vq: *mut virtqueue) -> (*mut c_void, u32) {
        let mut len = 0;
        // SAFETY: The queue is live.
        let token = unsafe { bindings::virtqueue_get_buf(vq, &raw mut len) };
        (token, len)
    }

    fn delete(vq: *mut virtqueue) {
        // SAFETY: The tests delete their queues once.
        unsafe { bindings::vring_del_virtqueue(vq) };
    }

    /// What a device with our own mapping operations maps.
    fn mapped_device(features: u64) -> Result<Device> {
        books::begin();
        let device = Device::new(MAPPED | features, null_mut())?;
        device.set_map(&raw const books::OPS.0, books::map());
        Ok(device)
    }

    /// All that was mapped was unmapped.
    fn books_agree() -> bool {
        books::MAPPINGS.load(Relaxed) == 0
            && books::DIFFERENCE.load(Relaxed) == 0
            && books::RINGS.load(Relaxed) == 0
    }

    #[test]
    fn on_the_callers_memory() -> Result {
        let device = Device::new(VERSION_1, null_mut())?;
        let pages = KBox::new(Pages([0; 8192]), GFP_KERNEL)?;
        let base = (&raw const *pages).cast_mut().cast::<c_void>();
        // SAFETY: The memory is zeroed, aligned, and outlives the queue.
        let vq = unsafe {
            bindings::vring_new_virtqueue(
                3,
                16,
                4096,
                device.as_ptr(),
                true,
                false,
                base,
                Some(notify),
                Some(callback),
                c"theirs".as_char_ptr(),
            )
        };
        assert!(!vq.is_null());
        // SAFETY: The queue is a split one.
        let ring = unsafe { Ring::of(vq) };
        assert_eq!(ring.0.num, 16);
        assert_eq!(ring.0.desc.addr(), base.addr());
        assert_eq!(ring.0.avail.addr(), base.addr() + 256);
        assert_eq!(ring.0.used.addr(), base.addr() + 4096);

        let memory = Memory::new()?;
        let notified = NOTIFICATIONS.load(Relaxed);
        let called = CALLBACKS.load(Relaxed);
        for round in 1..=16u16 {
            assert_eq!(add(vq, &mut memory.list(), token(round.into())), 0);
            // SAFETY: The queue is live.
            assert!(unsafe { bindings::virtqueue_kick(vq) });
            assert_eq!(ring.avail(1), round);
            let head = ring.avail(1 + usize::from(round));
            let found = ring.desc(head);
            assert_eq!(found, (virt_to_phys(memory.as_ptr()), Memory::SIZE, 0));
            assert!(get(vq).0.is_null());
            ring.use_buffer(round, head, 0);
            // SAFETY: The queue is live.
            let handled = unsafe { bindings::vring_interrupt(0, vq.cast()) };
            assert!(handled == irqreturn_t::IRQ_HANDLED);
            assert_eq!(get(vq), (token(round.into()), 0));
        }
        assert_eq!(NOTIFICATIONS.load(Relaxed), notified + 16);
        assert_eq!(CALLBACKS.load(Relaxed), called + 16);
        // SAFETY: The queue is live, and idle.
        let reset = unsafe { bindings::virtqueue_reset(vq, None, None) };
        assert_eq!(reset, EPERM.to_errno());
        delete(vq);
        Ok(())
    }

    #[test]
    fn mapped_by_the_transport() -> Result {
        let memory = Memory::new()?;
        let phys = virt_to_phys(memory.as_ptr());
        for features in [0, INDIRECT] {
            let device = mapped_device(features)?;
            let vq = device.queue(16, books::map())?;
            // SAFETY: The queue is a split one.
            let ring = unsafe { Ring::of(vq) };
            // SAFETY: The queue is live.
            let desc = unsafe { bindings::virtqueue_get_desc_addr(vq) };
            assert_eq!(desc, FAR | virt_to_phys(ring.0.desc.cast()));
            // SAFETY: As above.
            assert!(unsafe { bindings::virtqueue_dma_dev(vq) }.is_null());

            let before = books::MADE.load(Relaxed);
            let mut lists = [memory.list(), memory.list()];
            assert_eq!(add_two(vq, &mut lists, token(1)), 0);
            let tables = i32::from(features == INDIRECT);
            assert_eq!(books::MADE.load(Relaxed) - before, 2 + tables);
            let head = ring.avail(2);
            if features != INDIRECT {
                let (addr, len, flags) = ring.desc(head);
                assert_eq!((addr, len, flags), (FAR | phys, Memory::SIZE, 1));
            }
            ring.use_buffer(1, head, 10);
            assert_eq!(get(vq), (token(1), 10));
            assert!(books::MAPPINGS.load(Relaxed) <= tables);

            // The second entry cannot be mapped: nothing stays mapped, nothing is available.
            books::SUCCEED.store(1, Relaxed);
            let failed = add_two(vq, &mut lists, token(2));
            books::SUCCEED.store(-1, Relaxed);
            assert_eq!(failed, ENOMEM.to_errno());
            assert!(books::MAPPINGS.load(Relaxed) <= tables);
            assert_eq!(ring.avail(1), 1);

            // What is left in the queue is unmapped when it is taken back.
            assert_eq!(add_two(vq, &mut lists, token(3)), 0);
            // SAFETY: The device does nothing by itself.
            let left = unsafe { bindings::virtqueue_detach_unused_buf(vq) };
            assert_eq!(left, token(3));
            delete(vq);
            assert!(books_agree());
        }
        Ok(())
    }

    /// A table for one entry would be one access more for the device.
    #[test]
    fn one_entry_takes_no_table() -> Result {
        let device = Device::new(VERSION_1 | INDIRECT, null_mut())?;
        let vq = device.queue(16, books::map())?;
        // SAFETY: The queue is a split one.
        let ring = unsafe { Ring::of(vq) };
        let memory = Memory::new()?;
        for (number, (out, inward, flags)) in (1u16..).zip([(1, 0, 0), (0, 1, 2)]) {
            // A queue that has had a table has one to offer.
            let first = 2 * number - 1;
            let mut two = [memory.list(), memory.list()];
            assert_eq!(add_two(vq, &mut two, token(1)), 0);
            let head = ring.avail(1 + usize::from(first));
            assert_eq!(ring.desc(head).2, 4);
            ring.use_buffer(first, head, 0);
            assert_eq!(get(vq).0, token(1));

            let mut list = memory.list();
            let mut lists = [&raw mut list];
            // SAFETY: The list has one entry, the queue is live.
            let added = unsafe {
                bindings::virtqueue_add_sgs(
                    vq,
                    lists.as_mut_ptr(),
                    out,
                    inward,
                    token(2),
                    bindings::GFP_KERNEL,
                )
            };
            assert_eq!(added, 0);
            let head = ring.avail(2 + usize::from(first));
            let found = ring.desc(head);
            assert_eq!(found, (virt_to_phys(memory.as_ptr()), Memory::SIZE, flags));
            ring.use_buffer(first + 1, head, 0);
            assert_eq!(get(vq).0, token(2));
        }
        delete(vq);
        Ok(())
    }

    #[test]
    fn packed_mapped_by_the_transport() -> Result {
        let memory = Memory::new()?;
        for features in [PACKED, PACKED | INDIRECT] {
            let device = mapped_device(features)?;
            let vq = device.queue(16, books::map())?;
            let mut lists = [memory.list(), memory.list()];
            for number in 1..=3 {
                assert_eq!(add_two(vq, &mut lists, token(number)), 0);
            }
            for number in 1..=3 {
                // SAFETY: The device does nothing by itself.
                let left = unsafe { bindings::virtqueue_detach_unused_buf(vq) };
                assert_eq!(left, token(number));
            }
            delete(vq);
            assert!(books_agree());
        }
        Ok(())
    }

    /// A shortage is none of the device: the driver may try again.
    #[test]
    fn packed_without_room_to_map() -> Result {
        let memory = Memory::new()?;
        for features in [PACKED, PACKED | INDIRECT] {
            let device = mapped_device(features)?;
            let vq = device.queue(16, books::map())?;
            let mut lists = [memory.list(), memory.list()];
            // Both entries, and the table if there is one.
            let needed = if features == PACKED { 2 } else { 3 };
            for succeed in 0..needed {
                books::SUCCEED.store(succeed, Relaxed);
                let failed = add_two(vq, &mut lists, token(1));
                books::SUCCEED.store(-1, Relaxed);
                assert_eq!(failed, ENOMEM.to_errno());
            }
            assert_eq!(add_two(vq, &mut lists, token(2)), 0);
            // SAFETY: The device does nothing by itself.
            while !unsafe { bindings::virtqueue_detach_unused_buf(vq) }.is_null() {}
            delete(vq);
            assert!(books_agree());
        }
        Ok(())
    }

    /// What a driver leaves in its queue is unmapped without a copy, since the memory may have
    /// another owner.
    #[test]
    fn left_in_the_queue() -> Result {
        let memory = Memory::new()?;
        for features in [0, INDIRECT, PACKED, PACKED | INDIRECT] {
            let device = mapped_device(features)?;
            let vq = device.queue(16, books::map())?;
            let mut lists = [memory.list(), memory.list()];
            for number in 1..=3 {
                assert_eq!(add_two(vq, &mut lists, token(number)), 0);
            }
            assert_eq!(add(vq, &mut memory.list(), token(4)), 0);
            let copies = books::COPIES.load(Relaxed);
            delete(vq);
            assert_eq!(books::COPIES.load(Relaxed), copies);
            assert!(books_agree());
        }
        Ok(())
    }

    /// An interrupt of a queue that is stopped is not its own, and looks at no ring: that may have
    /// been freed.
    #[test]
    fn stopped_queue() -> Result {
        let device = Device::new(VERSION_1, null_mut())?;
        device.let_reset();
        let vq = device.queue(16, books::map())?;
        // SAFETY: The queue is live, and has no transport that would do it.
        unsafe { (*vq).num_max = 16 };
        let memory = Memory::new()?;
        for size in [16, 8, 16] {
            // SAFETY: The queue is a split one.
            let ring = unsafe { Ring::of(vq) };
            assert_eq!(add(vq, &mut memory.list(), token(1)), 0);
            ring.use_buffer(1, ring.avail(2), 0);
            let (called, late) = (CALLBACKS.load(Relaxed), LATE.load(Relaxed));

            // The transport cannot stop the queue: the driver hears of the interrupt after all.
            DISABLED.store(EBUSY.to_errno(), Relaxed);
            // SAFETY: Nothing else uses the queue.
            let failed =
                unsafe { bindings::virtqueue_reset(vq, Some(recycle), Some(late_interrupt)) };
            DISABLED.store(0, Relaxed);
            assert_eq!(failed, EBUSY.to_errno());
            assert_eq!(LATE.load(Relaxed), late);
            assert_eq!(CALLBACKS.load(Relaxed), called + 1);

            // SAFETY: Nothing else uses the queue.
            let failed = unsafe {
                bindings::virtqueue_resize(vq, size, Some(recycle), Some(late_interrupt))
            };
            assert_eq!(failed, 0);
            // SAFETY: Nothing else uses the queue.
            let failed =
                unsafe { bindings::virtqueue_reset(vq, Some(recycle), Some(late_interrupt)) };
            assert_eq!(failed, 0);
            // SAFETY: The queue is live.
            assert_eq!(unsafe { bindings::virtqueue_get_vring_size(vq) }, size);
            assert_eq!(LATE.load(Relaxed), late);
            assert_eq!(CALLBACKS.load(Relaxed), called + 1);

            // SAFETY: The queue is a split one.
            let ring = unsafe { Ring::of(vq) };
            assert_eq!(add(vq, &mut memory.list(), token(2)), 0);
            ring.use_buffer(1, ring.avail(2), 0);
            // SAFETY: The queue is live.
            let handled = unsafe { bindings::vring_interrupt(0, vq.cast()) };
            assert!(handled == irqreturn_t::IRQ_HANDLED);
            assert_eq!(get(vq), (token(2), 0));
            // SAFETY: Nothing else uses the queue.
            let failed = unsafe { bindings::virtqueue_reset(vq, Some(recycle), None) };
            assert_eq!(failed, 0);
        }
        delete(vq);
        Ok(())
    }

    #[test]
    fn mapped_by_the_caller() -> Result {
        let device = mapped_device(0)?;
        let vq = device.queue(16, books::map())?;
        // SAFETY: The queue is a split one.
        let ring = unsafe { Ring::of(vq) };
        let memory = Memory::new()?;
        let size = Memory::SIZE as usize;
        // SAFETY: The memory outlives the mapping.
        let addr = unsafe {
            bindings::virtqueue_map_single_attrs(vq, memory.as_ptr(), size, DMA_TO_DEVICE, 0)
        };
        assert_eq!(addr, FAR | virt_to_phys(memory.as_ptr()));
        // SAFETY: The queue is live.
        let error = unsafe { bindings::virtqueue_map_mapping_error(vq, addr) };
        assert_eq!(error, 0);
        // SAFETY: As above.
        assert!(!unsafe { bindings::virtqueue_map_need_sync(vq, addr) });

        let mut list = memory.list();
        list.dma_address = addr + 16;
        #[cfg(CONFIG_NEED_SG_DMA_LENGTH)]
        {
            list.dma_length = 32;
        }
        #[cfg(not(CONFIG_NEED_SG_DMA_LENGTH))]
        {
            list.length = 32;
        }
        let gfp = bindings::GFP_KERNEL;
        let before = books::MADE.load(Relaxed);
        // SAFETY: The list has one entry, which is mapped.
        let added = unsafe {
            bindings::virtqueue_add_outbuf_premapped(vq, &raw mut list, 1, token(1), gfp)
        };
        assert_eq!(added, 0);
        let head = ring.avail(2);
        assert_eq!(ring.desc(head), (addr + 16, 32, 0));
        ring.use_buffer(1, head, 0);
        assert_eq!(get(vq), (token(1), 0));
        assert_eq!(books::MADE.load(Relaxed), before);
        assert_eq!(books::MAPPINGS.load(Relaxed), 1);

        let syncs = books::SYNCS.load(Relaxed);
        // SAFETY: It is mapped so.
        unsafe {
            bindings::virtqueue_map_sync_single_range_for_cpu(vq, addr, 0, size, DMA_TO_DEVICE)
        };
        // SAFETY: As above.
        unsafe {
            bindings::virtqueue_map_sync_single_range_for_device(vq, addr, 0, size, DMA_TO_DEVICE)
        };
        assert_eq!(books::SYNCS.load(Relaxed), syncs + 2);
        // SAFETY: It was mapped so above.
        unsafe { bindings::virtqueue_unmap_single_attrs(vq, addr, size, DMA_TO_DEVICE, 0) };
        delete(vq);
        assert!(books_agree());
        // SAFETY: The device is valid.
        let most = unsafe { bindings::virtio_max_dma_size(device.as_ptr()) };
        assert_eq!(most, 1 << 20);
        Ok(())
    }
}
