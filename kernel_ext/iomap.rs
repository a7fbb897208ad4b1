// SPDX-License-Identifier: GPL-2.0

//! Registers that are in memory or behind I/O ports, as `pci_iomap()` maps them.
//!
//! Where the two are told apart at run time (`CONFIG_GENERIC_IOMAP`: x86-64) the kernel has
//! functions for it. Where ports are mapped into memory (arm64) these are inline functions of a
//! header, around those for memory. C headers: `include/asm-generic/iomap.h`,
//! `include/asm-generic/io.h`.

use kernel::{
    bindings,
    prelude::*, //
};

macro_rules! accessors {
    ($type:ty: $read:ident or $read_memory:ident, $write:ident or $write_memory:ident) => {
        /// Reads a little-endian register of this width.
        ///
        /// # Safety
        ///
        /// `address` must be one that `pci_iomap()` mapped for such a register.
        #[inline(always)]
        pub unsafe fn $read(address: *const c_void) -> $type {
            #[cfg(CONFIG_GENERIC_IOMAP)]
            // CAST: It reads as many bits.
            // SAFETY: By the requirements above.
            let value = unsafe { bindings::$read(address) } as $type;
            #[cfg(not(CONFIG_GENERIC_IOMAP))]
            // SAFETY: By the requirements above; all that can be mapped is memory.
            let value = unsafe { bindings::$read_memory(address) };

            value
        }

        /// Writes a little-endian register of this width.
        ///
        /// # Safety
        ///
        /// `address` must be one that `pci_iomap()` mapped for such a register.
        #[inline(always)]
        pub unsafe fn $write(value: $type, address: *mut c_void) {
            #[cfg(CONFIG_GENERIC_IOMAP)]
            // SAFETY: By the requirements above.
            unsafe {
                bindings::$write(value, address)
            };
            #[cfg(not(CONFIG_GENERIC_IOMAP))]
            // SAFETY: By the requirements above; all that can be mapped is memory.
            unsafe {
                bindings::$write_memory(value, address)
            };
        }
    };
}

accessors!(u8: ioread8 or readb, iowrite8 or writeb);
accessors!(u16: ioread16 or readw, iowrite16 or writew);
accessors!(u32: ioread32 or readl, iowrite32 or writel);
