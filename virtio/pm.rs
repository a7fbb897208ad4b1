// SPDX-License-Identifier: GPL-2.0

//! System sleep as the virtio device itself sees it.
//!
//! Two sets of callbacks reach a driver. The transport calls [`Driver::freeze`] and
//! [`Driver::restore`] around the loss of the device: they delete and re-create the virtqueues and
//! cannot tell a thaw from a restore. The PM core calls the `dev_pm_ops` of the virtio device,
//! which can: those arrive as [`Phase`] in [`Driver::sleep`].
//!
//! Order in one hibernation, as seen on Linux 7.3 (`kernel/power/hibernate.c`): `sleep(Freeze)`,
//! `freeze`, `sleep(FreezeNoirq)`, the image is created, `sleep(ThawNoirq)`, `restore`,
//! `sleep(Thaw)`, the image is written, then `sleep(Poweroff)` and `freeze`, or only `shutdown`.
//! The resumed kernel goes on after the creation of the image with `restore` and `sleep(Restore)`.
//! The PM core also calls `Restore` without any image when another device vetoes the freeze.

use super::{
    bindings,
    driver::Adapter,
    Driver, //
};

use kernel::prelude::*;

/// A step of a system sleep transition (`struct dev_pm_ops` of `include/linux/pm.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Suspend to RAM or to idle begins. User space and freezable threads are frozen.
    Suspend,
    /// Suspend is over.
    Resume,
    /// An image will be created, or is about to be loaded over this kernel.
    Freeze,
    /// As [`Phase::Freeze`], with device interrupts off: the last call before the image.
    FreezeNoirq,
    /// The image was created, or could not be; device interrupts are still off.
    ThawNoirq,
    /// As [`Phase::ThawNoirq`], with interrupts on.
    Thaw,
    /// The image is written and the machine will be powered off.
    Poweroff,
    /// This kernel runs out of an image, or the transition was abandoned.
    Restore,
}

/// The `dev_pm_ops` of a driver that implements [`Driver::sleep`].
pub(super) struct PmOps<T: Driver>(core::marker::PhantomData<T>);

macro_rules! callbacks {
    ($($name:ident => $phase:ident,)*) => {
        impl<T: Driver> PmOps<T> {
            /// The table for `driver.pm` of the C driver structure.
            pub(super) const TABLE: bindings::dev_pm_ops = bindings::dev_pm_ops {
                $($name: Some(Self::$name),)*
                ..pin_init::zeroed()
            };

            $(
                /// # Safety
                ///
                /// Called only by the PM core, with a virtio device this driver is bound to.
                unsafe extern "C" fn $name(dev: *mut bindings::device) -> c_int {
                    // SAFETY: By the requirements above.
                    unsafe { Adapter::<T>::sleep_callback(dev, Phase::$phase) }
                }
            )*
        }
    };
}

callbacks! {
    suspend => Suspend,
    resume => Resume,
    freeze => Freeze,
    freeze_noirq => FreezeNoirq,
    thaw_noirq => ThawNoirq,
    thaw => Thaw,
    poweroff => Poweroff,
    restore => Restore,
}
