// SPDX-License-Identifier: GPL-2.0

//! Puts C functions written in Rust into the kernel's export table.

/// Does for each function named what `EXPORT_SYMBOL_GPL()` does in C (`include/linux/export.h`):
/// modpost finds the entries in the section and makes the table of them.
macro_rules! export_symbol_gpl {
    ($($name:ident),* $(,)?) => {$(
        ::core::arch::global_asm!(
            ".section .export_symbol,\"a\"",
            concat!("__export_symbol_", stringify!($name), ":"),
            ".asciz \"GPL\"",
            ".ascii \"\\0\"",
            ".balign 8",
            concat!(".quad ", stringify!($name)),
            ".previous",
        );
    )*};
}
pub(crate) use export_symbol_gpl;
