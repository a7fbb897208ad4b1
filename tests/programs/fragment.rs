// SPDX-License-Identifier: GPL-2.0

//! Fragments the memory: fills a file of a tmpfs page after page, then punches holes into it.
//!
//! Usage: `fragment FILE MIB KEEP SEED`. Runs of 1 to 16 pages of 4 KiB stay or go, at random, so
//! that KEEP percent of the pages stay on average; the same seed makes the same holes.

use std::{
    env,
    error::Error,
    fs::File,
    io::Write,
    os::fd::AsRawFd, //
};

const PAGE: i64 = 4096;

const FALLOC_FL_KEEP_SIZE: i32 = 1;
const FALLOC_FL_PUNCH_HOLE: i32 = 2;

extern "C" {
    fn fallocate(fd: i32, mode: i32, offset: i64, length: i64) -> i32;
}

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, mib, keep, seed] = arguments.as_slice() else {
        return Err("usage: fragment FILE MIB KEEP SEED".into());
    };
    let (mib, keep, seed): (usize, u64, u64) = (mib.parse()?, keep.parse()?, seed.parse()?);
    let mut file = File::create(path)?;
    let chunk = vec![0x5a; 1 << 20];
    for _ in 0..mib {
        file.write_all(&chunk)?;
    }
    let (mut random, mut page, end) = (Random(seed + 1), 0, (mib as i64) << 8);
    while page < end {
        let run = (1 + random.below(16) as i64).min(end - page);
        if random.below(100) >= keep {
            let mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
            // SAFETY: The call takes no pointers.
            if unsafe { fallocate(file.as_raw_fd(), mode, page * PAGE, run * PAGE) } != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
        }
        page += run;
    }
    Ok(())
}
