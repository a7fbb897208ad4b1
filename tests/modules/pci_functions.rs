// SPDX-License-Identifier: GPL-2.0

//! Gives a PCI device the capability to have virtual functions, and has their configuration space.
//!
//! A device in another process (`tests/pci`) cannot have virtual functions: QEMU hides that. Here
//! accesses to configuration space are intercepted, so that the kernel finds the capability when it
//! looks for the device again.
//!
//! `insmod pci_functions.ko slot=<n> stride=<n>`: the device is function 0 in that slot of bus 0.
//! There are four virtual functions, behind each other in the same slot, each with BAR 2.

#![allow(
    clippy::missing_safety_doc,
    reason = "the contracts of the callbacks are those of the C headers"
)]

use core::{
    ptr::null_mut,
    sync::atomic::{
        AtomicPtr,
        AtomicU8,
        Ordering::Relaxed, //
    }, //
};
use kernel::{
    bindings::{
        self,
        pci_bus,
        pci_ops, //
    },
    prelude::*, //
};

module! {
    type: Module,
    name: "pci_functions",
    authors: ["The virtio-rust developers"],
    description: "Virtual functions of a PCI device",
    license: "GPL",
    params: {
        slot: u32 {
            default: 0,
            description: "where the device is on bus 0",
        },
        stride: u32 {
            default: 1,
            description: "how far functions are from each other, as the device says",
        },
    },
}

/// How many virtual functions there can be.
const FUNCTIONS: usize = 4;

/// The length of a configuration space as far as it is here, in bytes.
const SPACE: usize = 256;

/// Where the list of capabilities begins.
const LIST: usize = 0x34;

/// A PCI Express capability, which the device does not have: extended capabilities need it.
const EXPRESS_AT: usize = 0xc0;
const EXPRESS: usize = 0x3c;

/// The SR-IOV capability.
const SRIOV_AT: usize = 0x100;
const SRIOV: usize = 0x40;

/// Its BAR 2 of 4 KiB for each function.
const BAR_AT: usize = 0x24 + 8;

/// Which of its bytes can be written: control, number of functions, page size, BAR 2.
fn is_writable(at: usize) -> bool {
    matches!(at, 0x08 | 0x09 | 0x10 | 0x11 | 0x20..=0x23) || (BAR_AT + 1..BAR_AT + 4).contains(&at)
}

static EXPRESS_BYTES: [AtomicU8; EXPRESS] = [const { AtomicU8::new(0) }; EXPRESS];
static SRIOV_BYTES: [AtomicU8; SRIOV] = [const { AtomicU8::new(0) }; SRIOV];
static FUNCTION_BYTES: [AtomicU8; FUNCTIONS * SPACE] =
    [const { AtomicU8::new(0) }; FUNCTIONS * SPACE];

/// What the bus had before.
static ORIGINAL: AtomicPtr<pci_ops> = AtomicPtr::new(null_mut());

static OURS: Table = Table(pci_ops {
    read: Some(read),
    write: Some(write),
    ..pin_init::zeroed()
});

/// A table that is only read.
struct Table(pci_ops);

// SAFETY: Nobody writes to it.
unsafe impl Sync for Table {}

/// Puts bytes where they belong.
fn put(place: &[AtomicU8], at: usize, bytes: &[u8]) {
    for (byte, value) in place.iter().skip(at).zip(bytes) {
        byte.store(*value, Relaxed);
    }
}

/// The device number and function of the physical function.
fn physical() -> u32 {
    module_parameters::slot.value() << 3
}

/// Where a byte is that is ours.
enum Byte {
    /// Here.
    Here(&'static AtomicU8, bool),
    /// Nothing is there: it reads as 0.
    Nothing,
    /// The device has it.
    Device,
}

impl Byte {
    fn find(devfn: u32, at: usize) -> Self {
        let here = |bytes: &'static [AtomicU8], at: usize, writable| {
            bytes
                .get(at)
                .map_or(Self::Nothing, |byte| Self::Here(byte, writable))
        };

        match devfn.checked_sub(physical()) {
            Some(0) if (EXPRESS_AT..EXPRESS_AT + EXPRESS).contains(&at) => {
                here(&EXPRESS_BYTES, at - EXPRESS_AT, false)
            }
            Some(0) if at >= SRIOV_AT => {
                here(&SRIOV_BYTES, at - SRIOV_AT, is_writable(at - SRIOV_AT))
            }
            Some(function @ 1..=4) if at < SPACE => {
                let first = (function as usize - 1) * SPACE;

                here(&FUNCTION_BYTES, first + at, matches!(at, 0x04 | 0x05))
            }
            Some(1..=4) => Self::Nothing,
            _ => Self::Device,
        }
    }
}

/// What the device itself has.
unsafe fn original(bus: *mut pci_bus, devfn: u32, at: i32, size: i32) -> (c_int, u32) {
    let mut value = u32::MAX;
    // SAFETY: The table was that of the bus and is never freed.
    let read = unsafe { (*ORIGINAL.load(Relaxed)).read };
    // SAFETY: As the PCI core would call it.
    let result = read.map_or(0, |read| unsafe { read(bus, devfn, at, size, &mut value) });

    (result, value)
}

unsafe extern "C" fn read(
    bus: *mut pci_bus,
    devfn: u32,
    at: c_int,
    size: c_int,
    value: *mut u32,
) -> c_int {
    let mut bytes = [0; 4];
    let first = at as usize;

    for (byte, at) in bytes.iter_mut().zip(first..first + size as usize) {
        *byte = match Byte::find(devfn, at) {
            Byte::Here(byte, _) => byte.load(Relaxed),
            Byte::Nothing => 0,
            Byte::Device if devfn == physical() && at == LIST => EXPRESS_AT as u8,
            // SAFETY: As the PCI core would call it.
            Byte::Device => unsafe { original(bus, devfn, at as c_int, 1) }.1 as u8,
        };
    }
    // SAFETY: The PCI core gives room for the value.
    unsafe { value.write(u32::from_le_bytes(bytes)) };
    0
}

unsafe extern "C" fn write(
    bus: *mut pci_bus,
    devfn: u32,
    at: c_int,
    size: c_int,
    value: u32,
) -> c_int {
    let first = at as usize;

    if let Byte::Device = Byte::find(devfn, first) {
        // SAFETY: The table was that of the bus and is never freed.
        let write = unsafe { (*ORIGINAL.load(Relaxed)).write };

        // SAFETY: As the PCI core would call it.
        return write.map_or(0, |write| unsafe { write(bus, devfn, at, size, value) });
    }
    for (value, at) in value.to_le_bytes().iter().zip(first..first + size as usize) {
        if let Byte::Here(byte, true) = Byte::find(devfn, at) {
            // A BAR of 4 KiB has no bits below.
            let mask = if at == SRIOV_AT + BAR_AT + 1 {
                0xf0
            } else {
                0xff
            };

            byte.store(value & mask, Relaxed);
        }
    }
    0
}

struct Module;

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: There is a bus 0.
        let bus = unsafe { bindings::pci_find_bus(0, 0) };

        if bus.is_null() {
            return Err(ENODEV);
        }
        // SAFETY: The bus is valid and its table is never freed.
        let read = unsafe { (*(*bus).ops).read };
        let mut head = 0;

        // SAFETY: As the PCI core would call it.
        read.map(|read| unsafe { read(bus, physical(), LIST as c_int, 1, &mut head) });
        // The next capability; version 2 of an endpoint that is integrated into the root complex.
        put(&EXPRESS_BYTES, 0, &[0x10, head as u8, 0x92, 0x00]);
        put(&SRIOV_BYTES, 0, &[0x10, 0x00, 0x01, 0x00]);
        let functions = FUNCTIONS as u8;
        let stride = module_parameters::stride.value() as u8;

        put(&SRIOV_BYTES, 0x0c, &[functions, 0, functions, 0]);
        put(&SRIOV_BYTES, 0x14, &[1, 0, stride, 0, 0, 0, 0x41, 0x10, 1]);
        for function in 0..FUNCTIONS {
            let first = function * SPACE;

            put(&FUNCTION_BYTES, first, &[0xff; 4]);
            put(&FUNCTION_BYTES, first + 0x08, &[1, 0, 0, 2]);
            put(&FUNCTION_BYTES, first + 0x2c, &[0xf4, 0x1a, 0x00, 0x11]);
        }
        // SAFETY: The bus is valid; the table is static.
        let before = unsafe { bindings::pci_bus_set_ops(bus, (&raw const OURS.0).cast_mut()) };

        ORIGINAL.store(before, Relaxed);
        Ok(Self)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: There is a bus 0, and its table is the one that it had.
        unsafe { bindings::pci_bus_set_ops(bindings::pci_find_bus(0, 0), ORIGINAL.load(Relaxed)) };
    }
}
