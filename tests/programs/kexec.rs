// SPDX-License-Identifier: GPL-2.0

//! Boots another kernel from the one that runs, past the firmware, as `kexec` of the kexec-tools
//! does: devices are shut down, and nothing else resets them.
//!
//! Usage: `kexec KERNEL INITRD OPTIONS`. It comes back only if that fails.

use std::{
    env,
    error::Error,
    ffi::CString,
    fs::File,
    io,
    os::fd::AsRawFd, //
};

#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: i64 = 320;
#[cfg(target_arch = "aarch64")]
const KEXEC_FILE_LOAD: i64 = 294;

/// `LINUX_REBOOT_CMD_KEXEC` of `include/uapi/linux/reboot.h`.
const REBOOT_KEXEC: i32 = 0x4558_4543;

extern "C" {
    fn syscall(number: i64, ...) -> i64;
    fn reboot(command: i32) -> i32;
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [kernel, initrd, options] = arguments.as_slice() else {
        return Err("usage: kexec KERNEL INITRD OPTIONS".into());
    };
    let (kernel, initrd) = (File::open(kernel)?, File::open(initrd)?);
    let options = CString::new(options.as_str())?;
    let size = options.as_bytes_with_nul().len();
    // SAFETY: The options are as long as is said; the call only reads them and the two files.
    let loaded = unsafe {
        syscall(
            KEXEC_FILE_LOAD,
            kernel.as_raw_fd() as i64,
            initrd.as_raw_fd() as i64,
            size,
            options.as_ptr(),
            0i64,
        )
    };
    if loaded != 0 {
        return Err(format!("loading: {}", io::Error::last_os_error()).into());
    }
    // SAFETY: The call takes no pointers.
    unsafe { reboot(REBOOT_KEXEC) };
    Err(format!("reboot: {}", io::Error::last_os_error()).into())
}
