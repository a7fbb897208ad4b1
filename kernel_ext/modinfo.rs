// SPDX-License-Identifier: GPL-2.0

//! What `modinfo` shows of a module and `module!` of the kernel crate does not take.
//!
//! C header: `include/linux/module.h`.

/// Puts `tag=text` into a loadable module's information, as `MODULE_INFO()` does.
macro_rules! modinfo {
    ($tag:literal, $($text:literal),+) => {
        #[allow(unsafe_code, reason = "text in a section of its own, which nothing executes")]
        #[cfg(MODULE)]
        const _: () = {
            mod text {
                ::core::arch::global_asm!(
                    ".section .modinfo,\"a\"",
                    concat!(".asciz \"", $tag, "=", $($text,)+ "\""),
                    ".previous",
                );
            }
        };
    };
}
pub(crate) use modinfo;
