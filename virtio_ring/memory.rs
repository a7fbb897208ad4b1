// SPDX-License-Identifier: GPL-2.0

//! The memory that driver and device share: single accesses to it, and their order by
//! `barrier.rs`.
//!
//! No reference into shared memory is ever made. What the device may have written is read by one
//! volatile access, as READ_ONCE() does.

use super::{
    barrier::Order,
    event::Place,
    layout::{
        Desc,
        PackedDesc,
        PackedLayout,
        SplitLayout, //
    },
    packed::PackedMemory,
    split::{
        Barriers,
        SplitMemory, //
    },
};
use crate::virtio::endian::{
    Le16,
    Le32,
    Le64, //
};

use core::ptr::{
    addr_of,
    addr_of_mut,
    NonNull, //
};

macro_rules! impl_barriers {
    ($view:ty) => {
        impl Barriers for $view {
            #[inline(always)]
            fn publish(&self) {
                self.order.writes();
            }

            #[inline(always)]
            fn observe(&self) {
                self.order.reads();
            }

            #[inline(always)]
            fn full(&self) {
                self.order.all();
            }
        }
    };
}

/// The memory of a split virtqueue.
///
/// # Invariants
///
/// The pointers are those of a queue of `mask + 1` descriptors, a power of two, laid out as
/// [`SplitLayout`] says, that lives as long as this; nothing else in the driver accesses it.
pub(crate) struct SplitView {
    desc: NonNull<Desc>,
    /// `flags`, `idx`, the entries, `used_event`.
    avail: NonNull<Le16>,
    /// `flags`, `idx`, the entries (`id`, `len`), `avail_event`.
    used: NonNull<Le16>,
    mask: u16,
    order: Order,
}

impl_barriers!(SplitView);

impl SplitView {
    /// # Safety
    ///
    /// `base` points to `layout.bytes` bytes, aligned to 16, that outlive the view and that no one
    /// else in the driver accesses.
    pub(crate) unsafe fn new(base: NonNull<u8>, layout: &SplitLayout, order: Order) -> Self {
        // INVARIANT: By the safety requirements; the offsets of a layout lie within its bytes.
        Self {
            desc: base.cast(),
            // SAFETY: The offset is within the memory.
            avail: unsafe { base.add(layout.avail) }.cast(),
            // SAFETY: The offset is within the memory.
            used: unsafe { base.add(layout.used) }.cast(),
            mask: layout.size.wrapping_sub(1),
            order,
        }
    }

    /// Where descriptor table, available ring and used ring begin.
    pub(crate) fn parts(&self) -> [*const u8; 3] {
        [
            self.desc.as_ptr().cast_const().cast(),
            self.avail.as_ptr().cast_const().cast(),
            self.used.as_ptr().cast_const().cast(),
        ]
    }

    /// The number of descriptors.
    pub(crate) fn size(&self) -> u16 {
        self.mask.wrapping_add(1)
    }

    /// Where entry `index` of a ring begins, counted in words behind `flags` and `idx`.
    #[inline(always)]
    fn entry(&self, index: u16) -> usize {
        usize::from(index & self.mask)
    }

    #[inline(always)]
    fn write_avail(&self, word: usize, value: u16) {
        // SAFETY: By the type invariant: callers pass a word of the available ring.
        let word = unsafe { self.avail.add(word) };
        // SAFETY: As above; the device only reads it.
        unsafe { word.write_volatile(Le16::from_cpu(value)) };
    }

    #[inline(always)]
    fn read_used(&self, word: usize) -> u16 {
        // SAFETY: By the type invariant: callers pass a word of the used ring.
        let word = unsafe { self.used.add(word) };
        // SAFETY: As above; the device may write it meanwhile, which a volatile read allows for.
        unsafe { word.read_volatile() }.to_cpu()
    }

    #[inline(always)]
    fn read_used_long(&self, word: usize) -> u32 {
        // SAFETY: By the type invariant: callers pass a long word of the used ring.
        let long = unsafe { self.used.add(word) }.cast::<Le32>();
        // SAFETY: As above; the ring is aligned to 4 bytes, and so are its entries. The device may
        // write it meanwhile, which a volatile read allows for.
        unsafe { long.read_volatile() }.to_cpu()
    }
}

impl SplitMemory for SplitView {
    #[inline(always)]
    fn set_desc(&self, index: u16, desc: Desc) {
        // SAFETY: By the type invariant; the index is below the size.
        let place = unsafe { self.desc.add(self.entry(index)) };
        // SAFETY: As above; the device reads it only after it was published.
        unsafe { place.write(desc) };
    }

    #[inline(always)]
    fn set_desc_flags(&self, index: u16, flags: u16) {
        // SAFETY: By the type invariant; the index is below the size.
        let place = unsafe { self.desc.add(self.entry(index)) }.as_ptr();
        // SAFETY: As above; the device reads it only after it was published.
        unsafe { addr_of_mut!((*place).flags).write(Le16::from_cpu(flags)) };
    }

    #[inline(always)]
    fn set_avail(&self, index: u16, head: u16) {
        self.write_avail(self.entry(index).wrapping_add(2), head);
    }

    #[inline(always)]
    fn set_avail_index(&self, index: u16) {
        self.write_avail(1, index);
    }

    #[inline(always)]
    fn set_avail_flags(&self, flags: u16) {
        self.write_avail(0, flags);
    }

    #[inline(always)]
    fn set_used_event(&self, event: u16) {
        self.write_avail(usize::from(self.mask).wrapping_add(3), event);
    }

    #[inline(always)]
    fn used_index(&self) -> u16 {
        self.read_used(1)
    }

    #[inline(always)]
    fn used_elem(&self, index: u16) -> (u32, u32) {
        let word = self.entry(index).wrapping_mul(4).wrapping_add(2);
        (
            self.read_used_long(word),
            self.read_used_long(word.wrapping_add(2)),
        )
    }

    #[inline(always)]
    fn used_flags(&self) -> u16 {
        self.read_used(0)
    }

    #[inline(always)]
    fn avail_event(&self) -> u16 {
        let size = usize::from(self.mask).wrapping_add(1);
        self.read_used(size.wrapping_mul(4).wrapping_add(2))
    }
}

/// The memory of a packed virtqueue.
///
/// # Invariants
///
/// `desc` points to `size` descriptors, `driver` and `device` each to an event suppression
/// structure (`off_wrap`, `flags`) aligned to 4 bytes. All live as long as this, and nothing else
/// in the driver accesses them.
pub(crate) struct PackedView {
    desc: NonNull<PackedDesc>,
    driver: NonNull<Le16>,
    device: NonNull<Le32>,
    size: u16,
    order: Order,
}

impl_barriers!(PackedView);

impl PackedView {
    /// # Safety
    ///
    /// `base` points to `layout.bytes` bytes, aligned to 16, that outlive the view and that no one
    /// else in the driver accesses.
    pub(crate) unsafe fn new(base: NonNull<u8>, layout: &PackedLayout, order: Order) -> Self {
        // INVARIANT: By the safety requirements; the offsets of a layout lie within its bytes.
        Self {
            desc: base.cast(),
            // SAFETY: The offset is within the memory.
            driver: unsafe { base.add(layout.driver) }.cast(),
            // SAFETY: The offset is within the memory.
            device: unsafe { base.add(layout.device) }.cast(),
            size: layout.size,
            order,
        }
    }

    /// Where the descriptor ring, the driver's and the device's event suppression begin.
    pub(crate) fn parts(&self) -> [*const u8; 3] {
        [
            self.desc.as_ptr().cast_const().cast(),
            self.driver.as_ptr().cast_const().cast(),
            self.device.as_ptr().cast_const().cast(),
        ]
    }

    /// The number of descriptors.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// The descriptor `index`, if there is one.
    #[inline(always)]
    fn desc(&self, index: u16) -> Option<*mut PackedDesc> {
        (index < self.size).then(|| {
            // SAFETY: By the type invariant; the index is below the size.
            unsafe { self.desc.as_ptr().add(usize::from(index)) }
        })
    }
}

/// What stands beyond the end of a packed ring.
// A call, so that the compiler keeps it out of the way.
#[cold]
#[inline(never)]
fn nothing() -> (u16, u32) {
    (0, 0)
}

impl PackedMemory for PackedView {
    #[inline(always)]
    fn set_body(&self, index: u16, addr: u64, len: u32, id: u16) {
        if let Some(desc) = self.desc(index) {
            // SAFETY: By the type invariant; the device reads it only after it was published.
            unsafe { addr_of_mut!((*desc).addr).write(Le64::from_cpu(addr)) };
            // SAFETY: As above.
            unsafe { addr_of_mut!((*desc).len).write(Le32::from_cpu(len)) };
            // SAFETY: As above.
            unsafe { addr_of_mut!((*desc).id).write(Le16::from_cpu(id)) };
        }
    }

    #[inline(always)]
    fn set_flags(&self, index: u16, flags: u16) {
        if let Some(desc) = self.desc(index) {
            // SAFETY: By the type invariant.
            unsafe { addr_of_mut!((*desc).flags).write_volatile(Le16::from_cpu(flags)) };
        }
    }

    #[inline(always)]
    fn flags(&self, index: u16) -> u16 {
        let Some(desc) = self.desc(index) else {
            return nothing().0;
        };
        // SAFETY: By the type invariant; the device may write it meanwhile, which a volatile read
        // allows for.
        unsafe { addr_of!((*desc).flags).read_volatile() }.to_cpu()
    }

    #[inline(always)]
    fn used_elem(&self, index: u16) -> (u16, u32) {
        let Some(desc) = self.desc(index) else {
            return nothing();
        };
        // SAFETY: By the type invariant; the device may write it meanwhile, which a volatile read
        // allows for.
        let id = unsafe { addr_of!((*desc).id).read_volatile() };
        // SAFETY: As above.
        let len = unsafe { addr_of!((*desc).len).read_volatile() };
        (id.to_cpu(), len.to_cpu())
    }

    #[inline(always)]
    fn set_event(&self, place: Place) {
        // SAFETY: By the type invariant; the device only reads it.
        unsafe { self.driver.write_volatile(Le16::from_cpu(place.bits())) };
    }

    #[inline(always)]
    fn set_event_flags(&self, flags: u16) {
        // SAFETY: By the type invariant: `flags` is the second word.
        let word = unsafe { self.driver.add(1) };
        // SAFETY: As above; the device only reads it.
        unsafe { word.write_volatile(Le16::from_cpu(flags)) };
    }

    #[inline(always)]
    fn device_event(&self) -> (Place, u16) {
        // SAFETY: By the type invariant; the device may write it meanwhile, which a volatile read
        // allows for.
        let both = unsafe { self.device.read_volatile() }.to_cpu();
        // CAST: The halves are meant.
        (Place::from_bits(both as u16), (both >> 16) as u16)
    }
}
