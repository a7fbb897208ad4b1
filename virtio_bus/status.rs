// SPDX-License-Identifier: GPL-2.0

//! The device status (Virtio 1.4, 2.1): what the two sides say of the state of the device.
//!
//! Uses only `core`.

#![deny(unsafe_code)]

/// A device status as it was read, or as it is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Status(u8);

/// Why a device cannot be used although the driver accepted its features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It is not there any more.
    Gone,
    /// It wants to be reset before anything else.
    NeedsReset,
    /// It took `FEATURES_OK` back.
    Features,
}

impl Status {
    /// What a device reads after a reset.
    pub(crate) const RESET: Self = Self(0);
    /// The driver's side has seen the device.
    pub(crate) const ACKNOWLEDGE: Self = Self(1);
    /// There is a driver for it.
    pub(crate) const DRIVER: Self = Self(2);
    /// The driver is ready; the device is live.
    pub(crate) const DRIVER_OK: Self = Self(4);
    /// Features are negotiated.
    pub(crate) const FEATURES_OK: Self = Self(8);
    /// Something went wrong in the device.
    pub(crate) const NEEDS_RESET: Self = Self(64);
    /// The driver gave the device up.
    pub(crate) const FAILED: Self = Self(128);

    /// All ones, which a bus gives for a device that is not there. No working device has this
    /// status, since not all of its bits exist.
    const GONE: Self = Self(0xff);

    /// Takes what a device or a transport says.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// What a transport writes.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Tells whether all bits of `other` are set.
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The status with the bits of `other`, too. Bits are only ever added (2.1.1).
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Tells whether the device has gone.
    pub(crate) const fn is_gone(self) -> bool {
        self.0 == Self::GONE.0
    }

    /// Tells whether the device is there and asks for a reset (2.1.2).
    pub(crate) const fn needs_reset(self) -> bool {
        self.has(Self::NEEDS_RESET) && !self.is_gone()
    }

    /// Tells whether a reset is complete: the device says so, or there is none.
    pub(crate) const fn is_reset(self) -> bool {
        self.0 == Self::RESET.0 || self.is_gone()
    }

    /// Judges what a device reads after `FEATURES_OK` was written (3.1.1, step 6).
    ///
    /// # Errors
    ///
    /// Why the device cannot be used.
    pub(crate) const fn accepts_features(self) -> Result<(), Refusal> {
        if self.is_gone() {
            Err(Refusal::Gone)
        } else if !self.has(Self::FEATURES_OK) {
            Err(Refusal::Features)
        } else if self.needs_reset() {
            Err(Refusal::NeedsReset)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialisation_only_adds_bits() {
        let steps = [
            Status::ACKNOWLEDGE,
            Status::DRIVER,
            Status::FEATURES_OK,
            Status::DRIVER_OK,
            Status::FAILED,
        ];
        let mut status = Status::RESET;
        let mut seen = [0; 5];

        for (step, seen) in steps.iter().zip(&mut seen) {
            assert!(!status.has(*step));
            let next = status.with(*step);
            assert!(next.has(status) && next.has(*step));
            *seen = next.bits();
            status = next;
        }
        assert_eq!(seen, [1, 3, 11, 15, 143]);
    }

    #[test]
    fn features_are_accepted_only_by_a_sound_device() {
        for bits in 0..=u8::MAX {
            let expected = match bits {
                0xff => Err(Refusal::Gone),
                bits if bits & 8 == 0 => Err(Refusal::Features),
                bits if bits & 64 != 0 => Err(Refusal::NeedsReset),
                _ => Ok(()),
            };
            assert_eq!(
                Status::from_bits(bits).accepts_features(),
                expected,
                "{bits}"
            );
        }
    }

    #[test]
    fn reset_is_complete_at_zero_or_without_a_device() {
        for bits in 0..=u8::MAX {
            let status = Status::from_bits(bits);
            assert_eq!(status.is_reset(), bits == 0 || bits == 0xff, "{bits}");
            assert_eq!(
                status.needs_reset(),
                bits & 64 != 0 && bits != 0xff,
                "{bits}"
            );
        }
    }
}
