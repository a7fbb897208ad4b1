// SPDX-License-Identifier: GPL-2.0

//! Random numbers.
//!
//! C header: `include/linux/random.h`.

use kernel::bindings;

/// A random number, never 0.
///
/// # Context
///
/// Any.
pub fn nonzero_u64() -> u64 {
    loop {
        // SAFETY: No requirements.
        let number = unsafe { bindings::get_random_u64() };
        if number != 0 {
            return number;
        }
    }
}
