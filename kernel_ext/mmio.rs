// SPDX-License-Identifier: GPL-2.0

//! Registers in memory, accessed without a call.
//!
//! [`kernel::io::Mmio`] calls a C function for each access, unless the kernel was built with
//! `CONFIG_RUST_INLINE_HELPERS`, which takes clang. C header: `arch/x86/include/asm/io.h`.

use kernel::io::{
    Mmio,
    Region, //
};

/// A register of 32 bits in a region of `SIZE` bytes.
pub trait Register<const SIZE: usize> {
    /// Where it is, in bytes from the start.
    const OFFSET: usize;

    /// That it is aligned, and in the region; does not compile otherwise.
    const VALID: () = assert!(Self::OFFSET % 4 == 0 && Self::OFFSET + 4 <= SIZE);
}

/// Reads a register, ordered as `readl()` is.
#[inline(always)]
pub fn read<R: Register<SIZE>, const SIZE: usize>(memory: Mmio<'_, Region<SIZE>>) -> u32 {
    let () = R::VALID;

    imp::read::<R, SIZE>(memory)
}

/// Writes a register, ordered as `writel()` is.
#[inline(always)]
pub fn write<R: Register<SIZE>, const SIZE: usize>(memory: Mmio<'_, Region<SIZE>>, value: u32) {
    let () = R::VALID;

    imp::write::<R, SIZE>(memory, value);
}

/// x86-64 orders these with accesses to memory by itself. As they might access memory, the
/// compiler moves no access over them.
#[cfg(CONFIG_X86_64)]
mod imp {
    use super::*;

    use core::arch::asm;
    use kernel::io::{
        IoBackend,
        MmioBackend, //
    };

    #[inline(always)]
    pub(super) fn read<R: Register<SIZE>, const SIZE: usize>(
        memory: Mmio<'_, Region<SIZE>>,
    ) -> u32 {
        let base = MmioBackend::as_ptr(memory).cast::<u8>();
        let value;

        // SAFETY: By the type invariant of `Mmio` its `SIZE` bytes are mapped; the register is
        // among them.
        unsafe {
            asm!(
                "movl {offset}({base}), {value:e}",
                offset = const R::OFFSET,
                base = in(reg) base,
                value = lateout(reg) value,
                options(att_syntax, nostack, preserves_flags)
            )
        };
        value
    }

    #[inline(always)]
    pub(super) fn write<R: Register<SIZE>, const SIZE: usize>(
        memory: Mmio<'_, Region<SIZE>>,
        value: u32,
    ) {
        let base = MmioBackend::as_ptr(memory).cast::<u8>();

        // SAFETY: As above.
        unsafe {
            asm!(
                "movl {value:e}, {offset}({base})",
                offset = const R::OFFSET,
                base = in(reg) base,
                value = in(reg) value,
                options(att_syntax, nostack, preserves_flags)
            )
        };
    }
}

#[cfg(not(CONFIG_X86_64))]
mod imp {
    use super::*;

    use kernel::io::Io;

    #[inline(always)]
    pub(super) fn read<R: Register<SIZE>, const SIZE: usize>(
        memory: Mmio<'_, Region<SIZE>>,
    ) -> u32 {
        memory.read32(R::OFFSET)
    }

    #[inline(always)]
    pub(super) fn write<R: Register<SIZE>, const SIZE: usize>(
        memory: Mmio<'_, Region<SIZE>>,
        value: u32,
    ) {
        memory.write32(value, R::OFFSET);
    }
}
