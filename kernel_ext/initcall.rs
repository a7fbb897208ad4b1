// SPDX-License-Identifier: GPL-2.0

//! The initialisation of what is built into the kernel, earlier than that of drivers.
//!
//! `module!` of the kernel crate always takes the level of drivers (6). C header:
//! `include/linux/init.h`.

/// Has a function called at the level of core services (1), as `core_initcall()` does: its symbol,
/// which must be unique in the kernel, and a function without arguments that gives a `Result`. For
/// crates that are built in only.
macro_rules! core_initcall {
    ($symbol:ident, $function:path) => {
        /// Called once, by the kernel when it starts.
        #[no_mangle]
        extern "C" fn $symbol() -> ::kernel::ffi::c_int {
            ::kernel::error::from_result(|| $function().map(|()| 0))
        }

        #[cfg(CONFIG_HAVE_ARCH_PREL32_RELOCATIONS)]
        ::core::arch::global_asm!(
            ".section .initcall1.init,\"a\"",
            concat!("__initcall_", stringify!($symbol), ":"),
            concat!(".long ", stringify!($symbol), " - ."),
            ".previous",
        );

        #[cfg(not(CONFIG_HAVE_ARCH_PREL32_RELOCATIONS))]
        #[link_section = ".initcall1.init"]
        #[used(compiler)]
        static INITCALL: extern "C" fn() -> ::kernel::ffi::c_int = $symbol;
    };
}
pub(crate) use core_initcall;
