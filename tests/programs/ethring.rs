// SPDX-License-Identifier: GPL-2.0

//! Changes the sizes of a network interface's queues, as `ethtool -G` does.
//!
//! Usage: `ethring INTERFACE RECEIVE TRANSMIT`. Prints the sizes that the driver reports then.

use std::{
    env,
    error::Error,
    io,
    net::UdpSocket,
    os::fd::AsRawFd, //
};

const SIOCETHTOOL: u64 = 0x8946;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_SRINGPARAM: u32 = 0x11;

/// `struct ethtool_ringparam`.
#[repr(C)]
#[derive(Default)]
struct RingParam {
    cmd: u32,
    rx_max_pending: u32,
    rx_mini_max_pending: u32,
    rx_jumbo_max_pending: u32,
    tx_max_pending: u32,
    rx_pending: u32,
    rx_mini_pending: u32,
    rx_jumbo_pending: u32,
    tx_pending: u32,
}

/// `struct ifreq` with a pointer in it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    data: *mut RingParam,
    rest: [u64; 2],
}

extern "C" {
    fn ioctl(fd: i32, request: u64, argument: *mut Request) -> i32;
}

fn call(socket: &UdpSocket, interface: &str, param: &mut RingParam) -> io::Result<()> {
    let mut request = Request {
        name: [0; 16],
        data: param,
        rest: [0; 2],
    };
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    // SAFETY: The request and what it points to are valid for the call.
    match unsafe { ioctl(socket.as_raw_fd(), SIOCETHTOOL, &mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [interface, receive, transmit] = arguments.as_slice() else {
        return Err("usage: ethring INTERFACE RECEIVE TRANSMIT".into());
    };
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut param = RingParam {
        cmd: ETHTOOL_SRINGPARAM,
        rx_pending: receive.parse()?,
        tx_pending: transmit.parse()?,
        ..Default::default()
    };
    call(&socket, interface, &mut param)?;
    param.cmd = ETHTOOL_GRINGPARAM;
    call(&socket, interface, &mut param)?;
    println!("{} {}", param.rx_pending, param.tx_pending);
    Ok(())
}
