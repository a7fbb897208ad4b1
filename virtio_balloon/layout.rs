// SPDX-License-Identifier: GPL-2.0

//! What driver and device agree on (Virtio 1.4, 5.5), and the sizes we chose.

use crate::{
    config::{
        FeatureBit,
        Field, //
    },
    virtio::Le32, //
};

use kernel::page::PAGE_SHIFT;

/// The device must be told before a page that was inflated is used again.
///
/// We always wait for the answer to a deflation, so accepting it costs nothing.
pub(super) const MUST_TELL_HOST: FeatureBit = 0;

/// Number of pages the device wants in the balloon, in balloon pages; written by the device.
///
/// Little-endian on legacy devices, too (Virtio 1.4, 5.5.4).
pub(super) const NUM_PAGES: Field<Le32> = Field::new(0);

/// Number of pages in the balloon, in balloon pages; written by the driver.
pub(super) const ACTUAL: Field<Le32> = Field::new(4);

/// Number of the queue for pages that enter the balloon.
pub(super) const INFLATE: usize = 0;

/// Number of the queue for pages that leave it.
pub(super) const DEFLATE: usize = 1;

/// The queues as `/proc/interrupts` names them, by number.
pub(super) const QUEUE_NAMES: [&kernel::str::CStr; 2] = [c"inflate", c"deflate"];

/// Size of a balloon page, the unit of page numbers and counts on the wire: 4096 bytes.
const BALLOON_PAGE_SHIFT: usize = 12;

/// Balloon pages in a kernel page. Everything in this driver counts kernel pages, except what
/// stands on the wire and in names that say `balloon_pages`.
pub(super) const PER_PAGE: usize = 1 << (PAGE_SHIFT - BALLOON_PAGE_SHIFT);

/// Page numbers in one request: one kernel page full of them on most machines.
pub(super) const REQUEST_LEN: usize = 1024;

/// Kernel pages in one request; its balloon pages always fit.
pub(super) const REQUEST_PAGES: usize = REQUEST_LEN / PER_PAGE;

/// Requests that a balloon has, so that driver and device can work at the same time.
pub(super) const REQUESTS: usize = 8;

/// Requests of which the device is notified together.
pub(super) const BURST: usize = REQUESTS / 2;

/// Order of the largest blocks that inflation takes: 2 MiB, or as many pages as a request has room
/// for.
pub(super) const BLOCK_ORDER: u32 = {
    let order = (2_usize << 20 >> PAGE_SHIFT).ilog2();
    let request = REQUEST_PAGES.ilog2();

    if order < request {
        order
    } else {
        request
    }
};

/// Memory that inflation leaves available, in kernel pages: 32 MiB.
///
/// `MemAvailable` has the reserves of the zones taken off already.
pub(super) const LEAVE_AVAILABLE: usize = (32 << 20) >> PAGE_SHIFT;
