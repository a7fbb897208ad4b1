// SPDX-License-Identifier: GPL-2.0

//! What driver and device agree on (Virtio 1.4, 5.5), and the sizes we chose.

use super::page_size;
use crate::{
    config::{
        FeatureBit,
        Field, //
    },
    virtio::Le32, //
};

use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// The device must be told before a page that was inflated is used again.
///
/// We always wait for the answer to a deflation, so accepting it costs nothing.
pub(super) const MUST_TELL_HOST: FeatureBit = 0;

/// The device asks for statistics of the memory.
pub(super) const STATS_VQ: FeatureBit = 1;

/// Pages may leave the balloon when the system runs out of memory.
pub(super) const DEFLATE_ON_OOM: FeatureBit = 2;

/// The device wants hints at free pages when it commands so.
pub(super) const FREE_PAGE_HINT: FeatureBit = 3;

/// Pages that the kernel frees hold a pattern that the device gets to know.
pub(super) const PAGE_POISON: FeatureBit = 4;

/// The device wants to know of free pages.
pub(super) const PAGE_REPORTING: FeatureBit = 5;

/// Number of pages the device wants in the balloon, in balloon pages; written by the device.
///
/// Little-endian on legacy devices, too (Virtio 1.4, 5.5.4).
pub(super) const NUM_PAGES: Field<Le32> = Field::new(0);

/// Number of pages in the balloon, in balloon pages; written by the driver.
pub(super) const ACTUAL: Field<Le32> = Field::new(4);

/// What the device wants to be done about free page hints; written by the device.
pub(super) const COMMAND_ID: Field<Le32> = Field::gated(8, FREE_PAGE_HINT);

/// What the pages that the kernel frees are filled with; written by the driver, before the device
/// is live.
pub(super) const POISON_VAL: Field<Le32> = Field::gated(12, PAGE_POISON);

/// Place of the queue for pages that enter the balloon.
pub(super) const INFLATE: usize = 0;

/// Place of the queue for pages that leave it.
pub(super) const DEFLATE: usize = 1;

/// Place of the queue for statistics.
pub(super) const STATS: usize = 2;

/// Place of the queue for free page hints.
pub(super) const HINTS: usize = 3;

/// Place of the queue for reports of free pages.
pub(super) const REPORTS: usize = 4;

/// The queues by place: their names in `/proc/interrupts`, and the features without which they do
/// not exist.
///
/// The numbers on the device are those of the queues that do exist, without gaps: that is what
/// deployed devices do, whatever the specification says (Virtio 1.4, 5.5.2). They count the queues
/// of all features that they offer, so a feature with a queue must be accepted unless all queues
/// behind it are done without, too.
pub(super) const QUEUES: [(&CStr, Option<FeatureBit>); 5] = [
    (c"inflate", None),
    (c"deflate", None),
    (c"stats", Some(STATS_VQ)),
    (c"hints", Some(FREE_PAGE_HINT)),
    (c"reports", Some(PAGE_REPORTING)),
];

/// One statistic on the wire: a tag in bytes 0..2 and its value in 2..10, not aligned, in the byte
/// order of the device (Virtio 1.4, 5.5.6.3).
pub(super) type Statistic = [u8; 10];

/// The most statistics in one buffer.
pub(super) const STATISTICS: usize = 16;

/// Balloon pages in a kernel page. Everything in this driver counts kernel pages, except what
/// stands on the wire and in names that say `balloon_pages`.
pub(super) const PER_PAGE: usize = page_size::per_page(PAGE_SHIFT);

/// Page numbers in one request: one kernel page full of them on most machines.
pub(super) const REQUEST_LEN: usize = 1024;

/// Kernel pages in one request; its balloon pages always fit.
pub(super) const REQUEST_PAGES: usize = REQUEST_LEN / PER_PAGE;

/// Requests that a balloon has, so that driver and device can work at the same time.
pub(super) const REQUESTS: usize = 8;

/// Requests of which the device is notified together.
pub(super) const BURST: usize = REQUESTS / 2;

/// Order of the largest blocks that inflation takes.
pub(super) const BLOCK_ORDER: u32 = page_size::block_order(PAGE_SHIFT, REQUEST_PAGES);

/// Memory that is left to the guest unless its administrator says otherwise, in MiB.
///
/// `MemAvailable` has the reserves of the zones taken off already.
pub(super) const LEAVE_MIB: u32 = 32;
