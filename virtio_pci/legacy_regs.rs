// SPDX-License-Identifier: GPL-2.0

//! The registers of the legacy interface (Virtio 1.4, 4.1.4.10), which BAR 0 begins with.
//!
//! As in `regs.rs`, a register is a type. All are little-endian. Those of queues are of the queue
//! selected last. Uses only `core`, so that it can be tested on a host.

#![deny(unsafe_code)]

use super::regs::{
    access,
    presence,
    registers,
    Readable,
    Register,
    Writable, //
};

/// A register of the legacy interface.
pub(crate) trait Legacy: Register {}

/// How long the registers are in all, in bytes. A BAR that has them without those of vectors has
/// room for those: its size is a power of two.
pub(crate) const ALL_REGISTERS: usize = 24;

/// Where the device configuration space begins, in bytes; it moves with MSI-X.
pub(crate) const fn config(msix: bool) -> usize {
    match msix {
        true => ALL_REGISTERS,
        false => ConfigVector::OFFSET,
    }
}

registers! {
    /// The features the device offers, bits 0 to 31.
    DeviceFeatures: u32 @ 0: R, Legacy;
    /// Those that the driver accepts.
    DriverFeatures: u32 @ 4: RW, Legacy;
    /// Where a queue is, in pages of 4096 bytes; not 0 while the device has it.
    QueuePfn: u32 @ 8: RW, Legacy;
    /// How many descriptors it has; 0 if there is no such queue.
    QueueSize: u16 @ 12: R, Legacy;
    /// Selects a queue.
    QueueSelect: u16 @ 14: RW, Legacy;
    /// Where notifications of all queues go: the index of one.
    QueueNotify: u16 @ 16: W, Legacy;
    /// The device status; writing 0 resets the device.
    Status: u8 @ 18: RW, Legacy;
    /// Why the device interrupts; reading acknowledges it.
    InterruptStatus: u8 @ 19: R, Legacy;
    /// The vector of configuration changes; only with MSI-X enabled, as the next one.
    ConfigVector: u16 @ 20: RW, Legacy;
    /// The vector of a queue.
    QueueVector: u16 @ 22: RW, Legacy;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_aligned_and_without_gaps() {
        let mut end = 0;

        for (name, offset, width, _, _) in ALL {
            assert_eq!(*offset, end, "{name}");
            assert_eq!(offset % width, 0, "{name}");
            end = offset + width;
        }
        assert_eq!(end, ALL_REGISTERS);
    }

    #[test]
    fn what_belongs_to_the_device_is_not_written() {
        let of = |access| {
            let found = ALL.iter().filter(|register| register.3 == access);
            found.map(|register| register.1).collect::<Vec<_>>()
        };

        assert_eq!(of("R"), [0, 12, 19]);
        assert_eq!(of("W"), [16]);
    }

    #[test]
    fn configuration_is_behind_what_there_is() {
        assert_eq!(config(false), 20);
        assert_eq!(config(true), 24);
    }
}
