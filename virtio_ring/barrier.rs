// SPDX-License-Identifier: GPL-2.0

//! How accesses to the ring are ordered: the instructions behind `Barriers` of `split.rs`.
//!
//! The kernel crate has functions for these barriers, which would be calls on the way of every
//! buffer. Those here are the instructions of `arch/*/include/asm/barrier.h`, a set for each
//! architecture. They are real ones even on a kernel for one CPU, since the device may be another.

/// How strong the barriers have to be.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    /// The device is software that runs on CPUs like ours, not `ORDER_PLATFORM` hardware.
    pub(crate) weak: bool,
}

/// One instruction, or none. As it might access memory, the compiler moves no access over it.
macro_rules! barrier {
    ($instruction:literal) => {
        // SAFETY: It orders accesses, and changes neither memory nor registers.
        unsafe { core::arch::asm!($instruction, options(nostack, preserves_flags)) }
    };
}

/// x86-64 reorders neither writes with writes nor reads with reads; the compiler might.
#[cfg(CONFIG_X86_64)]
impl Order {
    /// Writes before it are seen before writes after it (`virt_wmb()`, `dma_wmb()`).
    #[inline(always)]
    pub(crate) fn writes(self) {
        barrier!("");
    }

    /// Reads before it are done before reads after it (`virt_rmb()`, `dma_rmb()`).
    #[inline(always)]
    pub(crate) fn reads(self) {
        barrier!("");
    }

    /// All before it is done before all after it (`virt_mb()`, `mb()`).
    #[inline(always)]
    pub(crate) fn all(self) {
        if self.weak {
            // SAFETY: Adds nothing to a word below the stack.
            unsafe { core::arch::asm!("lock addl $0, -4(%rsp)", options(att_syntax, nostack)) };
        } else {
            barrier!("mfence");
        }
    }
}

/// arm64 reorders whatever does not depend on each other. Software that is a device runs on CPUs
/// of the inner shareable domain, hardware is in the outer one.
#[cfg(CONFIG_ARM64)]
impl Order {
    /// Writes before it are seen before writes after it (`virt_wmb()`, `dma_wmb()`).
    #[inline(always)]
    pub(crate) fn writes(self) {
        if self.weak {
            barrier!("dmb ishst");
        } else {
            barrier!("dmb oshst");
        }
    }

    /// Reads before it are done before reads and writes after it (`virt_rmb()`, `dma_rmb()`).
    #[inline(always)]
    pub(crate) fn reads(self) {
        if self.weak {
            barrier!("dmb ishld");
        } else {
            barrier!("dmb oshld");
        }
    }

    /// All before it is done before all after it (`virt_mb()`, `mb()`).
    #[inline(always)]
    pub(crate) fn all(self) {
        if self.weak {
            barrier!("dmb ish");
        } else {
            barrier!("dsb sy");
        }
    }
}
