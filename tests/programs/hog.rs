// SPDX-License-Identifier: GPL-2.0

//! Holds memory that the kernel can swap out, and uses it again if it is told to.
//!
//! Usage: `hog MIB once|always`. Fills so much memory with numbers that cannot be compressed,
//! prints `ready`, then sleeps for ever (`once`), or checks and changes a word of each page over
//! and over and exits with 1 when one does not hold what was written to it (`always`).

use std::{
    env,
    hint::black_box,
    process::ExitCode,
    thread::park, //
};

const PAGE_WORDS: usize = 512;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (Some(Ok(mib)), Some(mode)) = (
        arguments.first().map(|mib| mib.parse::<usize>()),
        arguments.get(1),
    ) else {
        eprintln!("usage: hog MIB once|always");
        return ExitCode::from(2);
    };
    let mut random = 88172645463325252_u64;
    let mut words: Vec<u64> = Vec::with_capacity(mib << 17);
    for _ in 0..mib << 17 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        words.push(random);
    }
    for (page, words) in (0..).zip(words.chunks_mut(PAGE_WORDS)) {
        words[0] = page;
    }
    println!("ready");
    if mode == "once" {
        loop {
            park();
        }
    }
    for round in 0.. {
        for (page, words) in (0..).zip(black_box(&mut words).chunks_mut(PAGE_WORDS)) {
            if words[0] != page + round {
                eprintln!("page {page} holds {} in round {round}", words[0]);
                return ExitCode::from(1);
            }
            words[0] += 1;
        }
    }
    ExitCode::SUCCESS
}
