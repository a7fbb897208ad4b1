// SPDX-License-Identifier: GPL-2.0

//! Sends Ethernet frames between two interfaces that are connected outside the guest, and compares.
//!
//! Usage: `netcheck FROM TO FRAMES SEED`. Frames of 60 to 1514 random bytes go in bursts of up to
//! 32 in one direction or the other. Exits with 1 when one is lost, changed or out of order.

#[path = "common/random.rs"]
mod random;

use random::Random;
use std::{
    env,
    error::Error,
    ffi::CString,
    io,
    process::ExitCode, //
};

const AF_PACKET: i32 = 17;
const SOCK_RAW: i32 = 3;
const SOL_SOCKET: i32 = 1;
const SO_RCVTIMEO: i32 = 20;
const SO_RCVBUFFORCE: i32 = 33;
/// An EtherType for experiments, as it is on the wire.
const ETHER_TYPE: u16 = 0x88b5u16.to_be();
const HEADER: usize = 14;
const BURST: u64 = 32;

/// `struct sockaddr_ll`.
#[repr(C)]
#[derive(Default)]
struct Address {
    family: u16,
    protocol: u16,
    index: i32,
    hatype: u16,
    pkttype: u8,
    halen: u8,
    addr: [u8; 8],
}

extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn bind(fd: i32, address: *const Address, size: u32) -> i32;
    fn send(fd: i32, data: *const u8, size: usize, flags: i32) -> isize;
    fn recv(fd: i32, data: *mut u8, size: usize, flags: i32) -> isize;
    fn setsockopt(fd: i32, level: i32, name: i32, value: *const u8, size: u32) -> i32;
    fn if_nametoindex(name: *const std::ffi::c_char) -> u32;
}

fn checked(result: isize, what: &str) -> io::Result<usize> {
    usize::try_from(result)
        .map_err(|_| io::Error::other(format!("{what}: {}", io::Error::last_os_error())))
}

/// A raw socket on one interface. It stays open until the program ends.
struct Interface(i32);

impl Interface {
    fn open(name: &str) -> Result<Self, Box<dyn Error>> {
        let c_name = CString::new(name)?;
        // SAFETY: The name ends with a NUL.
        let index = unsafe { if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(format!("no interface {name}").into());
        }
        // SAFETY: The call takes no pointers.
        let fd = unsafe { socket(AF_PACKET, SOCK_RAW, i32::from(ETHER_TYPE)) };
        checked(fd as isize, "socket")?;
        let address = Address {
            family: AF_PACKET as u16,
            protocol: ETHER_TYPE,
            index: index as i32,
            ..Default::default()
        };
        // SAFETY: The address is as large as is said.
        checked(
            unsafe { bind(fd, &address, size_of::<Address>() as u32) } as isize,
            "bind",
        )?;
        let this = Self(fd);
        this.set(
            SO_RCVTIMEO,
            &[10i64.to_le_bytes(), 0i64.to_le_bytes()].concat(),
        )?;
        this.set(SO_RCVBUFFORCE, &(4i32 << 20).to_le_bytes())?;
        Ok(this)
    }

    fn set(&self, option: i32, value: &[u8]) -> io::Result<usize> {
        // SAFETY: The value is as large as is said.
        let done = unsafe {
            setsockopt(
                self.0,
                SOL_SOCKET,
                option,
                value.as_ptr(),
                value.len() as u32,
            )
        };
        checked(done as isize, "setsockopt")
    }

    fn send(&self, frame: &[u8]) -> io::Result<usize> {
        // SAFETY: The frame is as large as is said.
        checked(
            unsafe { send(self.0, frame.as_ptr(), frame.len(), 0) },
            "send",
        )
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: The buffer is as large as is said.
        checked(
            unsafe { recv(self.0, buffer.as_mut_ptr(), buffer.len(), 0) },
            "a frame is missing",
        )
    }
}

fn frame(random: &mut Random) -> Vec<u8> {
    let mut frame = vec![0; 60 + random.below(1514 - 60 + 1) as usize];
    random.fill(&mut frame[HEADER..]);
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..HEADER].copy_from_slice(&ETHER_TYPE.to_ne_bytes());
    frame
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [from, to, frames, seed] = arguments.as_slice() else {
        return Err("usage: netcheck FROM TO FRAMES SEED".into());
    };
    let (frames, mut random): (u64, _) = (frames.parse()?, Random::new(seed.parse()?));
    let ends = [Interface::open(from)?, Interface::open(to)?];
    let (mut number, mut bytes, mut buffer) = (0, 0, [0; 2048]);
    while number < frames {
        let burst = 1 + random.below(BURST);
        let sender = random.below(2) as usize;
        let sent: Vec<_> = (0..burst).map(|_| frame(&mut random)).collect();
        for frame in &sent {
            ends[sender].send(frame)?;
        }
        for (place, frame) in sent.iter().enumerate() {
            let size = ends[1 - sender].receive(&mut buffer)?;
            if &buffer[..size] != frame.as_slice() {
                return Err(format!(
                    "frame {} of {frames} is not what was sent",
                    number + place as u64
                )
                .into());
            }
            bytes += size;
        }
        number += burst;
    }
    println!("{from}, {to}: {number} frames, {bytes} bytes");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netcheck: {error}");
            ExitCode::FAILURE
        }
    }
}
