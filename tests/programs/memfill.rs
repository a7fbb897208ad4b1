// SPDX-License-Identifier: GPL-2.0

//! Fills memory with a pattern, reads it back and compares.
//!
//! Usage: `memfill KIB`. Prints how much was filled and checked; exits with 1 and the place of the
//! first difference when a word does not hold what was written to it, with 2 when it was called
//! wrongly. The kernel kills it when there is not so much memory.

use std::{
    env,
    process::ExitCode, //
};

/// The word at index `i`: no two words of the memory are the same.
fn pattern(i: u64) -> u64 {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555_5555_5555_5555
}

fn main() -> ExitCode {
    let Some(kib) = env::args().nth(1).and_then(|kib| kib.parse::<u64>().ok()) else {
        eprintln!("usage: memfill KIB");
        return ExitCode::from(2);
    };
    let words: Vec<u64> = (0..kib << 7).map(pattern).collect();
    for (i, word) in (0..).zip(&words) {
        if *word != pattern(i) {
            eprintln!("word {i} holds {word:#x} instead of {:#x}", pattern(i));
            return ExitCode::from(1);
        }
    }
    println!("filled and checked {kib} KiB");
    ExitCode::SUCCESS
}
