// SPDX-License-Identifier: GPL-2.0

//! Notifications from the device: whether the driver wants them, and what it has seen so far.
//!
//! This is the one part of a queue that interrupt handlers use while the driver uses the rest, so
//! all of it is atomic. Nothing is ordered by it: the barriers of the rings do that. Uses only
//! `core`, whose relaxed atomics are the plain loads and stores of READ_ONCE() and WRITE_ONCE().
//!
//! Follows Virtio 1.4, 2.7.7 and 2.8.10.

#![deny(unsafe_code)]

use super::{
    event::Place,
    layout::{
        event_flags,
        split_flags, //
    },
    packed::PackedMemory,
    split::SplitMemory, //
};

use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    Ordering::Relaxed, //
};

/// Whether the driver wants notifications, and up to where it has taken used buffers.
pub(crate) struct Suppression {
    /// Whether `EVENT_IDX` was negotiated.
    event: bool,
    /// The driver does not want to be notified.
    masked: AtomicBool,
    /// A hint: the event that was asked for has come, so there will be no other.
    triggered: AtomicBool,
    /// Where the next used buffer is due: bits 0 to 15 are what `virtqueue_enable_cb_prepare()`
    /// returns, [`Self::OPEN`] says that a batch is not handed out completely.
    position: AtomicU32,
}

impl Suppression {
    const OPEN: u32 = 1 << 16;

    /// Half of the way round for an index of a split ring.
    const FAR: u16 = 1 << 15;

    /// For a new queue; `masked` when the driver has no callback.
    pub(crate) fn new(event: bool, masked: bool) -> Self {
        Self {
            event,
            masked: AtomicBool::new(masked),
            triggered: AtomicBool::new(false),
            position: AtomicU32::new(0),
        }
    }

    /// Begins anew after a reset of the queue, at the position `start`.
    pub(crate) fn reset(&self, masked: bool, start: u16) {
        self.masked.store(masked, Relaxed);
        self.triggered.store(false, Relaxed);
        self.set_position(start, false);
    }

    /// Notes that a notification has come.
    #[inline(always)]
    pub(crate) fn notified(&self) {
        if self.event {
            self.triggered.store(true, Relaxed);
        }
    }

    /// Forgets that a notification has come.
    #[inline(always)]
    pub(crate) fn rearm(&self) {
        if self.triggered.load(Relaxed) {
            self.triggered.store(false, Relaxed);
        }
    }

    /// Where the next used buffer is due.
    #[inline(always)]
    pub(crate) fn position(&self) -> u16 {
        // CAST: The low half is meant.
        self.position.load(Relaxed) as u16
    }

    /// Whether buffers of a batch are still to be handed out.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.position.load(Relaxed) & Self::OPEN != 0
    }

    #[inline(always)]
    fn set_position(&self, bits: u16, open: bool) {
        let open = if open { Self::OPEN } else { 0 };
        self.position.store(u32::from(bits) | open, Relaxed);
    }

    /// Sets the mask; returns whether the device has to be told.
    #[inline(always)]
    fn mask(&self) -> bool {
        if self.masked.load(Relaxed) {
            return false;
        }
        self.masked.store(true, Relaxed);
        !self.triggered.load(Relaxed)
    }

    /// Takes the mask away; returns whether it was set.
    #[inline(always)]
    fn unmask(&self) -> bool {
        let masked = self.masked.load(Relaxed);
        if masked {
            self.masked.store(false, Relaxed);
        }
        masked
    }

    /// Split: used buffers were taken up to `used`; asks for the next event if one is wanted.
    #[inline(always)]
    pub(crate) fn taken_split(&self, mem: &impl SplitMemory, used: u16) {
        self.set_position(used, false);
        if self.event && !self.masked.load(Relaxed) {
            mem.set_used_event(used);
            // Pairs with the device's barrier between its used index and this event.
            mem.full();
        }
    }

    /// Split: asks for no more notifications.
    #[inline(always)]
    pub(crate) fn disable_split(&self, mem: &impl SplitMemory) {
        if self.mask() {
            if self.event {
                // As far away as can be. The device compares it with where it was when it last
                // looked, which may be before what was taken already: an event just gone by is in
                // a batch that it has not signalled yet, and asks for one more notification.
                mem.set_used_event(self.position().wrapping_add(Self::FAR));
            } else {
                mem.set_avail_flags(split_flags::NO_INTERRUPT);
            }
        }
    }

    /// Split: tells the device of a mask that was set from the beginning.
    pub(crate) fn tell_split(&self, mem: &impl SplitMemory) {
        // With events the flags stay 0 (Virtio 1.4, 2.7.7.1).
        if !self.event {
            mem.set_avail_flags(split_flags::NO_INTERRUPT);
        }
    }

    /// Split: asks for a notification after `ahead` more buffers than have been taken.
    #[inline(always)]
    pub(crate) fn enable_split(&self, mem: &impl SplitMemory, ahead: u16) {
        if self.unmask() && !self.event {
            mem.set_avail_flags(0);
        }
        if self.event {
            mem.set_used_event(self.position().wrapping_add(ahead));
        }
    }

    /// Packed: used buffers were taken up to `place`; asks for the next event if one is wanted.
    #[inline(always)]
    pub(crate) fn taken_packed(&self, mem: &impl PackedMemory, place: Place, open: bool) {
        self.set_position(place.bits(), open);
        if self.event && !self.masked.load(Relaxed) {
            mem.set_event(place);
            // Pairs with the device's barrier between its used flags and this event.
            mem.full();
        }
    }

    /// Packed: asks for no more notifications.
    #[inline(always)]
    pub(crate) fn disable_packed(&self, mem: &impl PackedMemory) {
        if self.mask() {
            mem.set_event_flags(event_flags::DISABLE);
        }
    }

    /// Packed: tells the device of a mask that was set from the beginning.
    pub(crate) fn tell_packed(&self, mem: &impl PackedMemory) {
        mem.set_event_flags(event_flags::DISABLE);
    }

    /// Packed: asks for a notification at `place`.
    #[inline(always)]
    pub(crate) fn enable_packed(&self, mem: &impl PackedMemory, place: Place) {
        if self.event {
            mem.set_event(place);
            // The device must not see the flags without the place.
            mem.publish();
        }
        if self.unmask() {
            mem.set_event_flags(if self.event {
                event_flags::DESC
            } else {
                event_flags::ENABLE
            });
        }
    }
}
