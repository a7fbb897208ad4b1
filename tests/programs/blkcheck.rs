// SPDX-License-Identifier: GPL-2.0

//! Writes a disk and reads it back, past the page cache, and compares.
//!
//! Usage: `blkcheck DEVICE DEPTH REQUESTS SEED`. DEPTH threads have a part of the disk each and
//! make REQUESTS writes in it, each followed by a read: 512 bytes to 192 KiB at a random place,
//! from and to 1 to 48 scattered pieces of memory of 512 bytes to 8 KiB. In the end every thread
//! reads all of its part. Exits with 1 and the place of the first difference when something else
//! is read than was written, and when the disk fails.

#[path = "common/direct.rs"]
mod direct;
#[path = "common/random.rs"]
mod random;

use direct::O_DIRECT;
use random::Random;
use std::{
    env,
    error::Error,
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    process::ExitCode,
    sync::Arc,
    thread, //
};

const SECTOR: usize = 512;
const MAX_PIECE: u64 = 16;
const MAX_PIECES: u64 = 48;
const MAX_SECTORS: u64 = 384;

/// `struct iovec`.
#[repr(C)]
struct IoVec {
    base: *mut u8,
    len: usize,
}

extern "C" {
    fn preadv(fd: i32, pieces: *const IoVec, count: i32, offset: i64) -> isize;
    fn pwritev(fd: i32, pieces: *const IoVec, count: i32, offset: i64) -> isize;
}

/// A buffer that is aligned as direct requests need it: each element starts at a sector's boundary.
#[repr(align(512))]
#[derive(Clone, Copy)]
struct Sector([u8; SECTOR]);

/// One thread's part of the disk, and what should be in it.
struct Part {
    disk: Arc<File>,
    begin: u64,
    contents: Vec<u8>,
    arena: Vec<Sector>,
    random: Random,
}

impl Part {
    /// Splits a request into pieces of memory that lie apart from each other: sectors of the arena.
    fn pieces(&mut self, sectors: u64) -> Vec<std::ops::Range<usize>> {
        let (mut pieces, mut left, mut place) = (Vec::new(), sectors, 0);
        while left > 0 {
            let more = MAX_PIECES - pieces.len() as u64 - 1;
            let least = left.saturating_sub(more * MAX_PIECE).max(1);
            let size = (least + self.random.below(MAX_PIECE))
                .min(MAX_PIECE)
                .min(left)
                .max(least);
            place += 1 + self.random.below(3) as usize;
            pieces.push(place..place + size as usize);
            place += size as usize;
            left -= size;
        }
        pieces
    }

    /// Does one request with the arena's sectors named. `write` chooses the direction.
    fn transfer(
        &mut self,
        pieces: &[std::ops::Range<usize>],
        sector: u64,
        write: bool,
    ) -> io::Result<()> {
        let vectors: Vec<IoVec> = pieces
            .iter()
            .map(|piece| {
                let part = &mut self.arena[piece.clone()];
                IoVec {
                    base: part.as_mut_ptr().cast(),
                    len: part.len() * SECTOR,
                }
            })
            .collect();
        let call = if write { pwritev } else { preadv };
        let offset = (self.begin + sector) as i64 * SECTOR as i64;
        let wanted: usize = vectors.iter().map(|vector| vector.len).sum();
        // SAFETY: The vectors point to different parts of the arena, which lives on.
        let done = unsafe {
            call(
                self.disk.as_raw_fd(),
                vectors.as_ptr(),
                vectors.len() as i32,
                offset,
            )
        };
        match done {
            ..0 => Err(io::Error::last_os_error()),
            done if done as usize == wanted => Ok(()),
            done => Err(io::Error::other(format!("{done} of {wanted} bytes"))),
        }
    }

    fn write(&mut self, sector: u64, sectors: u64) -> io::Result<()> {
        let pieces = self.pieces(sectors);
        let mut place = sector as usize * SECTOR;
        for index in pieces.iter().cloned().flatten() {
            self.random.fill(&mut self.arena[index].0);
            self.contents[place..place + SECTOR].copy_from_slice(&self.arena[index].0);
            place += SECTOR;
        }
        self.transfer(&pieces, sector, true)
    }

    fn read(&mut self, sector: u64, sectors: u64) -> io::Result<()> {
        let pieces = self.pieces(sectors);
        for index in pieces.iter().cloned().flatten() {
            self.arena[index].0.fill(0xa5);
        }
        self.transfer(&pieces, sector, false)?;
        for (index, sector) in pieces.iter().cloned().flatten().zip(sector as usize..) {
            let wanted = &self.contents[sector * SECTOR..(sector + 1) * SECTOR];
            if self.arena[index].0 != wanted {
                let place = self.begin + sector as u64;
                return Err(io::Error::other(format!(
                    "sector {place} holds something else than was written"
                )));
            }
        }
        Ok(())
    }

    fn check(&mut self, requests: u64) -> io::Result<()> {
        let size = (self.contents.len() / SECTOR) as u64;
        for sector in (0..size).step_by(MAX_SECTORS as usize) {
            self.write(sector, MAX_SECTORS.min(size - sector))?;
        }
        for _ in 0..requests {
            for write in [true, false] {
                let sectors = 1 + self.random.below(MAX_SECTORS.min(size));
                let sector = self.random.below(size - sectors + 1);
                if write {
                    self.write(sector, sectors)?;
                } else {
                    self.read(sector, sectors)?;
                }
            }
        }
        for sector in (0..size).step_by(MAX_SECTORS as usize) {
            self.read(sector, MAX_SECTORS.min(size - sector))?;
        }
        Ok(())
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, depth, requests, seed] = arguments.as_slice() else {
        return Err("usage: blkcheck DEVICE DEPTH REQUESTS SEED".into());
    };
    let (depth, requests, seed): (u64, u64, u64) =
        (depth.parse()?, requests.parse()?, seed.parse()?);
    let mut disk = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_DIRECT)
        .open(path)?;
    let part = disk.seek(SeekFrom::End(0))? / SECTOR as u64 / depth;
    let disk = Arc::new(disk);
    let threads: Vec<_> = (0..depth)
        .map(|number| {
            let mut part = Part {
                disk: disk.clone(),
                begin: number * part,
                contents: vec![0; part as usize * SECTOR],
                arena: vec![Sector([0; SECTOR]); (MAX_SECTORS + 4 * MAX_PIECES) as usize],
                random: Random::new(seed * 1000 + number),
            };
            thread::spawn(move || part.check(requests))
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread failed")??;
    }
    println!("{path}: {} requests", depth * requests * 2);
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blkcheck: {error}");
            ExitCode::FAILURE
        }
    }
}
