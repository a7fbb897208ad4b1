// SPDX-License-Identifier: GPL-2.0

//! `readnow FILE`: reads 64 bytes without waiting for them; prints how many there were, or the
//! number of the error.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::OpenOptionsExt, //
};

const O_NONBLOCK: i32 = 0o4000;

fn main() {
    let path = std::env::args().nth(1).expect("a file");
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .expect("it can be opened");

    match file.read(&mut [0; 64]) {
        Ok(count) => println!("{count} bytes"),
        Err(error) => println!("error {}", error.raw_os_error().unwrap_or(0)),
    }
}
