// SPDX-License-Identifier: GPL-2.0

//! A QEMU TCG plugin that counts the guest's instructions by the address of their block.
//!
//! `-plugin file=libcounter.so,socket=PATH`: whoever connects to PATH gets what was executed so
//! far, one line `ADDRESS SIZE TIMES` per block of the kernel: its address in hex, its instructions
//! and how often it was entered. All of user space is in lines with the address 0. Counts one
//! virtual CPU.
//!
//! A block is counted as a whole when it is entered: one that a page fault or an access to a
//! device leaves early is counted too high by its rest.

use std::{
    collections::HashMap,
    ffi::{c_char, c_int, c_uint, c_void, CStr},
    io::{self, Write},
    os::unix::net::UnixListener,
    sync::Mutex,
    thread, //
};

/// The plugin interface this is written for (`include/plugins/qemu-plugin.h` of QEMU 11.1).
#[no_mangle]
pub static qemu_plugin_version: c_int = 7;

/// Kernel addresses begin here.
const KERNEL: u64 = 1 << 63;

/// Counters in one scoreboard.
const CHUNK: usize = 4096;

const INLINE_ADD_U64: c_int = 0;

/// A counter: a scoreboard, which has one element for each CPU, and the counter's offset in it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Counter {
    score: *mut c_void,
    offset: usize,
}

extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: u64,
        callback: unsafe extern "C" fn(*mut c_void, *mut c_void),
        userdata: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: *mut c_void,
        operation: c_int,
        counter: Counter,
        value: u64,
    );
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const c_void) -> u64;
    fn qemu_plugin_scoreboard_new(element_size: usize) -> *mut c_void;
    fn qemu_plugin_u64_get(counter: Counter, cpu: c_uint) -> u64;
}

/// The counters of all blocks, by address and number of instructions.
struct Counters {
    blocks: HashMap<(u64, usize), Counter>,
    chunk: *mut c_void,
}

// SAFETY: The pointers are QEMU's handles, which any thread may use.
unsafe impl Send for Counters {}

static COUNTERS: Mutex<Option<Counters>> = Mutex::new(None);

impl Counters {
    fn get(&mut self, address: u64, size: usize) -> Counter {
        let index = self.blocks.len() % CHUNK;
        if let Some(counter) = self.blocks.get(&(address, size)) {
            return *counter;
        }
        if index == 0 {
            // SAFETY: It may be called at any time.
            self.chunk = unsafe { qemu_plugin_scoreboard_new(CHUNK * size_of::<u64>()) };
        }
        let counter = Counter {
            score: self.chunk,
            offset: index * size_of::<u64>(),
        };
        self.blocks.insert((address, size), counter);
        counter
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for ((address, size), counter) in &self.blocks {
            // SAFETY: The counter's scoreboard is never freed; CPU 0 exists, it has run the block.
            let times = unsafe { qemu_plugin_u64_get(*counter, 0) };
            if times > 0 {
                writeln!(out, "{address:x} {size} {times}")?;
            }
        }
        Ok(())
    }
}

/// # Safety
///
/// For QEMU only, which calls it with a block that it translates.
unsafe extern "C" fn translated(block: *mut c_void, _userdata: *mut c_void) {
    // SAFETY: `block` is valid during this call.
    let (address, size) = unsafe { (qemu_plugin_tb_vaddr(block), qemu_plugin_tb_n_insns(block)) };
    let address = if address >= KERNEL { address } else { 0 };
    let mut guard = COUNTERS.lock().unwrap();
    let counters = guard.get_or_insert_with(|| Counters {
        blocks: HashMap::new(),
        chunk: std::ptr::null_mut(),
    });
    let counter = counters.get(address, size);
    drop(guard);
    // SAFETY: As above; the counter's scoreboard is never freed.
    unsafe { qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, INLINE_ADD_U64, counter, 1) };
}

fn serve(listener: UnixListener) {
    for connection in listener.incoming() {
        let mut text = Vec::new();
        if let Some(counters) = COUNTERS.lock().unwrap().as_ref() {
            counters.write(&mut text).expect("memory can be written to");
        }
        // Whoever closes the connection early does not want to know.
        let _ = connection.and_then(|mut stream| stream.write_all(&text));
    }
}

/// Called by QEMU at its start; not 0 ends QEMU.
///
/// # Safety
///
/// `argv` points to `argc` strings.
#[no_mangle]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments = (0..argc as usize).map(|i| {
        // SAFETY: By the requirements above.
        unsafe { CStr::from_ptr(*argv.add(i)) }
            .to_string_lossy()
            .into_owned()
    });
    let Some(path) = arguments
        .filter_map(|text| text.strip_prefix("socket=").map(str::to_owned))
        .next()
    else {
        eprintln!("counter: the argument socket=PATH is missing");
        return 1;
    };
    let _ = std::fs::remove_file(&path); // An earlier QEMU's.
    match UnixListener::bind(&path) {
        Ok(listener) => drop(thread::spawn(move || serve(listener))),
        Err(error) => {
            eprintln!("counter: {path}: {error}");
            return 1;
        }
    }
    // SAFETY: `id` is ours, the callback has the type that QEMU expects.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated, std::ptr::null_mut()) };
    0
}
