// SPDX-License-Identifier: GPL-2.0

//! Makes a device work, one request after the other.
//!
//! Usage: `ringload read DEVICE PIECES COUNT` reads PIECES scattered pages of 4 KiB from the
//! beginning of a disk, past the page cache; `ringload send ADDRESS [BYTES] COUNT` sends datagrams
//! of so many bytes of Ethernet frame, or 64, to an address and port.

#[path = "common/direct.rs"]
mod direct;

use direct::O_DIRECT;
use std::{
    env,
    error::Error,
    fs::OpenOptions,
    io,
    net::UdpSocket,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt}, //
};

/// The headers of Ethernet, IP and UDP in bytes.
const HEADERS: usize = 14 + 20 + 8;

/// Two pages of which the first is used, so that no two pieces are adjacent.
#[repr(align(4096))]
#[derive(Clone)]
struct Piece([u8; 8192]);

/// `struct iovec`.
#[repr(C)]
struct IoVec {
    base: *mut u8,
    len: usize,
}

extern "C" {
    fn preadv(fd: i32, pieces: *const IoVec, count: i32, offset: i64) -> isize;
}

fn read(path: &str, count: usize, times: usize) -> Result<(), Box<dyn Error>> {
    let disk = OpenOptions::new()
        .read(true)
        .custom_flags(O_DIRECT)
        .open(path)?;
    let mut buffer = vec![Piece([1; 8192]); count];
    let pieces: Vec<IoVec> = buffer
        .iter_mut()
        .map(|piece| IoVec {
            base: piece.0.as_mut_ptr(),
            len: 4096,
        })
        .collect();
    for _ in 0..times {
        // SAFETY: The pieces point into the buffer, which lives on.
        let done = unsafe { preadv(disk.as_raw_fd(), pieces.as_ptr(), count as i32, 0) };
        if done != (count * 4096) as isize {
            return Err(format!("{done}: {}", io::Error::last_os_error()).into());
        }
    }
    Ok(())
}

fn send(address: &str, bytes: usize, times: usize) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    let payload = vec![0x5a; bytes.checked_sub(HEADERS).ok_or("too few bytes")?];
    for _ in 0..times {
        socket.send(&payload)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["read", path, count, times] => read(path, count.parse()?, times.parse()?),
        ["send", address, times] => send(address, 64, times.parse()?),
        ["send", address, bytes, times] => send(address, bytes.parse()?, times.parse()?),
        _ => Err("usage: ringload read DEVICE PIECES COUNT | send ADDRESS [BYTES] COUNT".into()),
    }
}
