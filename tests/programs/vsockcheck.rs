// SPDX-License-Identifier: GPL-2.0

//! Sends random bytes to a listener on the host's side of a socket device, and compares what comes
//! back with them.
//!
//! Usage: `vsockcheck BYTES SEED`. The listener gives every 2048 bytes back in reversed order, and
//! so the rest when there are no more. Exits with 1 when something else comes back.

#[path = "common/random.rs"]
mod random;

use random::Random;
use std::{
    env,
    error::Error,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd},
    process::ExitCode,
    thread, //
};

const AF_VSOCK: i32 = 40;
const SOCK_STREAM: i32 = 1;
const SHUT_WR: i32 = 1;
const HOST: u32 = 2;
const PORT: u32 = 1024;
const PIECE: usize = 2048;
const MAX_WRITE: u64 = 70000;

/// `struct sockaddr_vm`.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    rest: [u8; 4],
}

extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn connect(fd: i32, address: *const Address, size: u32) -> i32;
    fn shutdown(fd: i32, how: i32) -> i32;
}

fn checked(result: i32, what: &str) -> io::Result<i32> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::other(format!(
            "{what}: {}",
            io::Error::last_os_error()
        ))),
    }
}

fn open() -> io::Result<File> {
    // SAFETY: The call takes no pointers.
    let fd = checked(unsafe { socket(AF_VSOCK, SOCK_STREAM, 0) }, "socket")?;
    // SAFETY: The descriptor is new.
    let file = unsafe { File::from_raw_fd(fd) };
    let address = Address {
        family: AF_VSOCK as u16,
        reserved: 0,
        port: PORT,
        cid: HOST,
        rest: [0; 4],
    };
    // SAFETY: The address is as large as is said.
    let connected = unsafe { connect(fd, &address, size_of::<Address>() as u32) };
    checked(connected, "connect")?;
    Ok(file)
}

fn send(mut stream: File, mut bytes: &[u8], mut random: Random) -> io::Result<()> {
    while !bytes.is_empty() {
        let size = bytes.len().min(1 + random.below(MAX_WRITE) as usize);
        let (now, later) = bytes.split_at(size);
        stream.write_all(now)?;
        bytes = later;
    }
    // SAFETY: The call takes no pointers.
    checked(unsafe { shutdown(stream.as_raw_fd(), SHUT_WR) }, "shutdown")?;
    Ok(())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [bytes, seed] = arguments.as_slice() else {
        return Err("usage: vsockcheck BYTES SEED".into());
    };
    let mut random = Random::new(seed.parse()?);
    let mut sent = vec![0; bytes.parse()?];
    random.fill(&mut sent);
    let mut stream = open()?;
    let mut back = vec![0; sent.len()];
    thread::scope(|scope| {
        let (writer, sent) = (stream.try_clone()?, &sent);
        let sender = scope.spawn(move || send(writer, sent, random));
        stream.read_exact(&mut back)?;
        sender.join().expect("the sender does not panic")
    })?;
    for (number, (piece, there)) in back.chunks_mut(PIECE).zip(sent.chunks(PIECE)).enumerate() {
        piece.reverse();
        if piece != there {
            return Err(format!("piece {number} is not what was sent").into());
        }
    }
    println!("{} bytes there and back", sent.len());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vsockcheck: {error}");
            ExitCode::FAILURE
        }
    }
}
