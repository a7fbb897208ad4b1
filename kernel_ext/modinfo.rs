// SPDX-License-Identifier: GPL-2.0

//! What `modinfo` shows of a module and `module!` of the kernel crate does not take.
//!
//! C header: `include/linux/module.h`.

/// Puts `tag=text` into a loadable module's information, as `MODULE_INFO()` does.
macro_rules! modinfo {
    ($tag:literal, $($text:literal),+) => {
        #[cfg(MODULE)]
        ::core::arch::global_asm!(
            ".section .modinfo,\"a\"",
            concat!(".asciz \"", $tag, "=", $($text,)+ "\""),
            ".previous",
        );
    };
}
pub(crate) use modinfo;
