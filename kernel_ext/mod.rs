// SPDX-License-Identifier: GPL-2.0

//! Facilities of the kernel that its crate does not wrap yet, one per file.
//!
//! Each file is written to be sent upstream: it knows nothing of virtio, and the raw bindings stay
//! inside it.

pub mod balloon_page;
pub mod hwrng;
pub mod kthread;
pub mod mem;
pub mod modinfo;
pub mod module_param;
pub mod notifier;
pub mod offline_page;
pub mod page_block;
pub mod page_list;
pub mod page_reporting;
pub mod phys;
pub mod random;
pub mod registration;
pub mod sg;
pub mod shrinker;
pub mod vm_stat;
pub mod wait;
pub mod wakeup;
