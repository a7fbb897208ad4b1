// SPDX-License-Identifier: GPL-2.0

//! What bindgen made of `virtio/bindings.h` with the flags of the running build (see `Kbuild`).
//!
//! Items that the kernel crate binds are re-exported from there, so both name the same type. Only
//! the adapters of this folder and `kernel_ext` may use this module.

#![allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks
)]

use kernel::ffi;
use pin_init::MaybeZeroable;

include!(env!("VIRTIO_BINDINGS"));
