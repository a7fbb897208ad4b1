// SPDX-License-Identifier: GPL-2.0

//! Queues come and go: memory for their rings, resizing, deletion.

use super::{
    area::Area,
    barrier::Order,
    layout::{
        PackedLayout,
        SplitLayout, //
    },
    map::Mapper,
    memory::{
        PackedView,
        SplitView, //
    },
    packed::Packed,
    queue::{
        Features,
        Notify,
        Queue,
        Ring, //
    },
    split::Split,
    state::{
        Mapped,
        Slot,
        Slots, //
    },
};
use crate::{
    config,
    virtio::bindings::{
        self,
        virtio_device,
        virtqueue, //
    },
};

use core::{cell::UnsafeCell, ptr::NonNull};
use kernel::{
    ffi::{
        c_char,
        c_uint,
        c_void, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// What a transport asks for.
pub(crate) struct Request {
    /// Number of the queue.
    pub(crate) index: c_uint,
    /// Number of descriptors.
    pub(crate) size: c_uint,
    /// Split: alignment of the used ring in bytes.
    pub(crate) align: c_uint,
    /// The device runs on CPUs like ours.
    pub(crate) weak_barriers: bool,
    /// Split: a smaller queue will do.
    pub(crate) may_reduce: bool,
    /// The driver gives contexts along with its buffers.
    pub(crate) context: bool,
    /// Notifies the device.
    pub(crate) notify: Option<Notify>,
    /// Called when buffers were used.
    pub(crate) callback: Option<unsafe extern "C" fn(*mut virtqueue)>,
    /// For messages; lives as long as the queue.
    pub(crate) name: *const c_char,
}

impl Request {
    /// Creates the queue, on memory of its own or on `pages`, and puts it on the device's list.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` for a size that no queue can have, without a way to notify the device,
    /// and for a packed ring on the caller's pages: they leave no room for event suppression.
    ///
    /// # Safety
    ///
    /// `vdev` is valid, its features are negotiated, and it outlives the queue; `map` is for it.
    /// `pages`, if any, are zeroed memory for a split queue, aligned to a page, that outlives the
    /// queue and that nobody else uses.
    pub(crate) unsafe fn create(
        &self,
        vdev: *mut virtio_device,
        map: bindings::virtio_map,
        pages: Option<NonNull<c_void>>,
    ) -> Result<NonNull<virtqueue>> {
        // SAFETY: By the safety requirements; both members of the union are plain words.
        let words = unsafe { (*vdev).__bindgen_anon_1.features_array };
        let negotiated = config::Features::from_words(words);
        let features = self.features(negotiated);
        // SAFETY: By the safety requirements.
        let mapper = unsafe { Mapper::new(vdev, map) };
        let ring = match (pages, negotiated.has(bindings::VIRTIO_F_RING_PACKED)) {
            (None, true) => new_packed(mapper, &features, self.size),
            (None, false) => new_split(mapper, &features, self.size),
            // SAFETY: By the safety requirements.
            (Some(pages), false) => unsafe { split_on(pages, &mapper, &features, self.size) },
            (Some(_), true) => Err(EINVAL),
        }?;
        let vq = virtqueue {
            callback: self.callback,
            name: self.name,
            vdev,
            index: self.index,
            ..virtqueue::default()
        };
        let notify = self.notify.ok_or(EINVAL)?;
        let queue = Queue::new(vq, features, notify, mapper, ring);
        let queue = KBox::new(queue, GFP_KERNEL)?;
        queue.show_vring();
        let queue = KBox::into_raw(queue).cast::<virtqueue>();
        // SAFETY: The queue was just made; the device is valid.
        unsafe { enlist(queue) };
        NonNull::new(queue).ok_or(ENOMEM)
    }

    fn features(&self, negotiated: config::Features) -> Features {
        Features {
            indirect: negotiated.has(bindings::VIRTIO_RING_F_INDIRECT_DESC) && !self.context,
            in_order: negotiated.has(bindings::VIRTIO_F_IN_ORDER),
            event: negotiated.has(bindings::VIRTIO_RING_F_EVENT_IDX),
            weak_barriers: self.weak_barriers && !negotiated.has(bindings::VIRTIO_F_ORDER_PLATFORM),
            // CAST: Widening.
            align: self.align as usize,
            may_reduce: self.may_reduce,
        }
    }
}

impl Queue {
    /// Whether the ring's memory is the queue's own.
    pub(crate) fn owns_ring(&self) -> bool {
        !matches!(self.ring(), Ring::Split { area: None, .. })
    }

    /// Lets C code look into a split ring.
    pub(super) fn show_vring(&self) {
        if let Ring::Split { view, .. } = self.ring() {
            let [desc, avail, used] = view.parts().map(|part| part.cast_mut());
            let vring = bindings::vring {
                num: view.size().into(),
                desc: desc.cast(),
                avail: avail.cast(),
                used: used.cast(),
            };
            // SAFETY: Nothing uses it while a ring is made.
            unsafe { *self.vring.get() = vring };
        }
    }
}

/// Deletes a queue and takes it off the device's list.
///
/// # Safety
///
/// `vq` is a queue of this module that nothing uses any more, the device included.
pub(crate) unsafe fn delete(vq: *mut virtqueue) {
    // SAFETY: By the safety requirements.
    unsafe { delist(vq) };
    // SAFETY: `create` made it of a box, of which it is the first member.
    drop(unsafe { KBox::from_raw(vq.cast::<Queue>()) });
}

/// Allocates a split ring of `size` descriptors, or fewer if that is allowed and necessary.
pub(super) fn new_split(mapper: Mapper, features: &Features, size: u32) -> Result<Ring> {
    let mut size = size;
    loop {
        let Some(layout) = SplitLayout::new(size, features.align) else {
            return bad_size(&mapper, size);
        };
        let small = layout.bytes <= PAGE_SIZE;
        let quiet = if small { 0 } else { bindings::__GFP_NOWARN };
        match Area::new(mapper, layout.bytes, bindings::GFP_KERNEL | quiet) {
            Ok(area) => {
                let base = area.ptr();
                // SAFETY: The ring owns the area.
                return unsafe { split_ring(base, &layout, &mapper, features, Some(area)) };
            }
            Err(error) if small || !features.may_reduce => return Err(error),
            Err(_) => size /= 2,
        }
    }
}

/// A split ring on the caller's pages.
///
/// # Safety
///
/// As for [`Request::create`].
unsafe fn split_on(
    pages: NonNull<c_void>,
    mapper: &Mapper,
    features: &Features,
    size: u32,
) -> Result<Ring> {
    let layout = SplitLayout::new(size, features.align).ok_or(EINVAL)?;
    // SAFETY: By the safety requirements.
    unsafe { split_ring(pages.cast(), &layout, mapper, features, None) }
}

/// # Safety
///
/// `base` points to zeroed memory for `layout`, which the ring owns by `area` or which outlives it.
unsafe fn split_ring(
    base: NonNull<u8>,
    layout: &SplitLayout,
    mapper: &Mapper,
    features: &Features,
    area: Option<Area>,
) -> Result<Ring> {
    let slots = new_slots(mapper, features, layout.size)?;
    // SAFETY: By the safety requirements.
    let view = unsafe { SplitView::new(base, layout, order(features)) };
    Ok(Ring::Split {
        view,
        state: UnsafeCell::new(Split::new(slots)),
        area,
    })
}

#[cold]
#[inline(never)]
fn bad_size(mapper: &Mapper, size: u32) -> Result<Ring> {
    dev_warn!(mapper.device(), "Bad virtqueue length {}\n", size);
    Err(EINVAL)
}

/// Allocates a packed ring of `size` descriptors.
pub(super) fn new_packed(mapper: Mapper, features: &Features, size: u32) -> Result<Ring> {
    let Some(layout) = PackedLayout::new(size) else {
        return bad_size(&mapper, size);
    };
    let slots = new_slots(&mapper, features, layout.size)?;
    let quiet = bindings::GFP_KERNEL | bindings::__GFP_NOWARN;
    let area = Area::new(mapper, layout.bytes, quiet)?;
    // SAFETY: The ring owns the area.
    let view = unsafe { PackedView::new(area.ptr(), &layout, order(features)) };
    Ok(Ring::Packed {
        view,
        state: UnsafeCell::new(Packed::new(slots)),
        area,
    })
}

fn order(features: &Features) -> Order {
    Order {
        weak: features.weak_barriers,
    }
}

fn new_slots(
    mapper: &Mapper,
    features: &Features,
    size: u16,
) -> Result<Slots<KVVec<Slot>, KVVec<Mapped>>> {
    let slots = KVVec::from_elem(Slot::FREE, size.into(), GFP_KERNEL)?;
    let maps = if mapper.uses_api() { size } else { 0 };
    let maps = KVVec::from_elem(Mapped::NONE, maps.into(), GFP_KERNEL)?;
    Ok(Slots::new(slots, maps, features.in_order))
}

/// Runs `visit` for every queue of a device, under the lock of its list.
///
/// # Safety
///
/// `vdev` is valid; all its queues are of this module.
pub(crate) unsafe fn each_queue(vdev: *mut virtio_device, visit: impl Fn(&Queue)) {
    // SAFETY: By the safety requirements.
    let (lock, head) = unsafe { (&raw mut (*vdev).vqs_list_lock, &raw mut (*vdev).vqs) };
    // SAFETY: As above.
    unsafe { bindings::spin_lock(lock) };
    // SAFETY: Under the lock the list is stable.
    let mut entry = unsafe { (*head).next };
    while entry != head {
        // SAFETY: Queues are on the list by this member.
        let vq = unsafe { kernel::container_of!(entry, virtqueue, list) };
        // SAFETY: By the safety requirements; queues on the list are not deleted.
        visit(unsafe { Queue::from_raw(vq) });
        // SAFETY: As for the first one.
        entry = unsafe { (*entry).next };
    }
    // SAFETY: It was locked above.
    unsafe { bindings::spin_unlock(lock) };
}

/// Puts a queue at the end of its device's list.
///
/// # Safety
///
/// `vq` is on no list, and its device is valid.
unsafe fn enlist(vq: *mut virtqueue) {
    // SAFETY: By the safety requirements.
    let (vdev, entry) = unsafe { ((*vq).vdev, &raw mut (*vq).list) };
    // SAFETY: By the safety requirements.
    let (lock, head) = unsafe { (&raw mut (*vdev).vqs_list_lock, &raw mut (*vdev).vqs) };
    // SAFETY: As above.
    unsafe { bindings::spin_lock(lock) };
    // SAFETY: Under the lock.
    unsafe { bindings::list_add_tail(entry, head) };
    // SAFETY: It was locked above.
    unsafe { bindings::spin_unlock(lock) };
}

/// Takes a queue off its device's list.
///
/// # Safety
///
/// `vq` is on the list, and its device is valid.
unsafe fn delist(vq: *mut virtqueue) {
    // SAFETY: By the safety requirements.
    let vdev = unsafe { (*vq).vdev };
    // SAFETY: By the safety requirements.
    let lock = unsafe { &raw mut (*vdev).vqs_list_lock };
    // SAFETY: As above.
    unsafe { bindings::spin_lock(lock) };
    // SAFETY: Under the lock; neighbours of an entry are valid.
    let list = unsafe { (*vq).list };
    // SAFETY: As above.
    unsafe { (*list.next).prev = list.prev };
    // SAFETY: As above.
    unsafe { (*list.prev).next = list.next };
    // SAFETY: It was locked above.
    unsafe { bindings::spin_unlock(lock) };
}
