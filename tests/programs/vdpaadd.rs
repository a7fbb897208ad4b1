// SPDX-License-Identifier: GPL-2.0

//! Makes a vDPA device, as iproute2's `vdpa dev add name NAME mgmtdev DEVICE` does.
//!
//! Usage: `vdpaadd NAME DEVICE`.

use std::{
    env,
    error::Error,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd}, //
};

const AF_NETLINK: i32 = 16;
const SOCK_RAW: i32 = 3;
const NETLINK_GENERIC: i32 = 16;
const NLMSG_ERROR: u16 = 2;
const REQUEST_ACK: u16 = 5;

/// The family that knows the others by their names.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `include/uapi/linux/vdpa.h`
const DEV_NEW: u8 = 3;
const MGMTDEV_DEV_NAME: u16 = 2;
const DEV_NAME: u16 = 4;

extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn send(fd: i32, data: *const u8, size: usize, flags: i32) -> isize;
    fn recv(fd: i32, data: *mut u8, size: usize, flags: i32) -> isize;
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// Sends a command with strings for attributes; returns the answer without its headers.
fn call(fd: &OwnedFd, family: u16, command: u8, strings: &[(u16, &str)]) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 16];
    message.extend([command, 1, 0, 0]);
    for (kind, string) in strings {
        let size = 4 + string.len() + 1;
        message.extend((size as u16).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(string.as_bytes());
        message.resize((message.len() + 1).next_multiple_of(4), 0);
    }
    let size = message.len() as u32;
    message[..4].copy_from_slice(&size.to_ne_bytes());
    message[4..6].copy_from_slice(&family.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    // SAFETY: The message is valid for the call.
    check(unsafe { send(fd.as_raw_fd(), message.as_ptr(), message.len(), 0) })?;
    let mut answer = vec![0; 8192];
    // SAFETY: The buffer is valid for the call.
    let size = check(unsafe { recv(fd.as_raw_fd(), answer.as_mut_ptr(), answer.len(), 0) })?;
    answer.truncate(size);
    if word(&answer, 4) == NLMSG_ERROR {
        let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(-errno));
        }
    }
    Ok(answer.split_off(20))
}

fn family(fd: &OwnedFd, name: &str) -> Result<u16, Box<dyn Error>> {
    let answer = call(fd, CONTROL, GET_FAMILY, &[(FAMILY_NAME, name)])?;
    let mut rest = &answer[..];
    while rest.len() >= 6 {
        let size = usize::from(word(rest, 0));
        if word(rest, 2) == FAMILY_ID {
            return Ok(word(rest, 4));
        }
        rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(format!("no family {name}").into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, device] = &arguments[..] else {
        return Err("usage: vdpaadd NAME DEVICE".into());
    };
    // SAFETY: It has no preconditions.
    let fd = check(unsafe { socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC) } as isize)?;
    // SAFETY: The socket was made above and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let vdpa = family(&fd, "vdpa")?;
    // The rest of the first answer, its acknowledgment, would be taken for the second one.
    let mut rest = [0; 64];
    // SAFETY: The buffer is valid for the call.
    check(unsafe { recv(fd.as_raw_fd(), rest.as_mut_ptr(), rest.len(), 0) })?;
    call(
        &fd,
        vdpa,
        DEV_NEW,
        &[(MGMTDEV_DEV_NAME, device), (DEV_NAME, name)],
    )?;
    Ok(())
}
