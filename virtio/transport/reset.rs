// SPDX-License-Identifier: GPL-2.0

//! The reset of a device, for all transports: asks, waits, and sees to it that the device uses no
//! memory when it is over, whatever the device says.
//!
//! Drivers free the buffers that they gave the device when `virtio_reset_device()` returns, and C
//! drivers do so whatever came of it. A device that does not reset is therefore kept from memory
//! before that. Where a transport cannot do this, the rings are lost, see [`Ring::leak`].
//!
//! [`Ring::leak`]: super::ring::Ring::leak

use super::{
    Device,
    Transport, //
};
use crate::virtio::reset::{
    state::{
        Answer,
        Reset,
        State, //
    },
    wait, //
};

use kernel::{
    dev_err,
    dev_info,
    device,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// Resets the device.
///
/// # Context
///
/// May sleep; serialised by the core.
pub(super) fn run<T: Transport>(reset: &Reset, transport: &T, device: &Device) {
    if settle(reset, transport, device) {
        // It has done what it was told before, and nobody has touched it since.
        return;
    }
    let asked = ask(reset, transport);
    let answer = wait(asked, transport.patience(), || look(transport));

    finish(reset, transport, device, answer);
}

/// Tells the device to reset; returns when.
pub(super) fn ask<T: Transport>(reset: &Reset, transport: &T) -> Instant<Monotonic> {
    reset.ask();
    transport.begin_reset();
    Instant::now()
}

/// Waits for at most `patience`.
pub(super) fn first<T: Transport>(transport: &T, asked: Instant<Monotonic>) -> Answer {
    /// How long others are held up by a device that is slow to reset when it is found.
    const PATIENCE: Delta = Delta::from_millis(1000);

    wait(asked, PATIENCE, || look(transport))
}

/// What the device says now.
pub(super) fn look<T: Transport>(transport: &T) -> Answer {
    match Answer::of(transport.status()) {
        Answer::Gone if transport.is_present() => Answer::Busy,
        // The bit may be there from before.
        Answer::Refused if !transport.may_refuse() => Answer::Busy,
        answer => answer,
    }
}

/// Draws the consequences of the last answer.
fn finish<T: Transport>(reset: &Reset, transport: &T, device: &Device, answer: Answer) {
    let device: &device::Device = device.as_ref();

    match reset.answered(answer) {
        State::Done => (),
        State::Gone => dev_err!(device, "the device is gone\n"),
        _ if transport.fence() => {
            reset.fenced();
            dev_err!(
                device,
                "the device does not reset: it cannot reach memory until it has\n"
            );
        }
        _ => dev_err!(
            device,
            "the device does not reset: what it has of memory is lost\n"
        ),
    }
    // SAFETY: The state says so, and the core makes no queue before this returns.
    unsafe { transport.reset_is_over(reset.state().is_quiet()) };
}

/// Looks whether a device that was told to reset has done so since somebody looked last. Returns
/// whether that is so.
///
/// # Context
///
/// May sleep; serialised by the core.
pub(super) fn settle<T: Transport>(reset: &Reset, transport: &T, device: &Device) -> bool {
    let state = reset.state();
    let settled = state.is_unfinished() && look(transport) == Answer::Done;

    if settled {
        reset.answered(Answer::Done);
        if state == State::Fenced {
            transport.lift_fence();
        }
        if state != State::Asked {
            dev_info!(
                AsRef::<device::Device>::as_ref(device),
                "the device has reset after all\n"
            );
        }
    }
    settled
}
