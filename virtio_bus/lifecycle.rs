// SPDX-License-Identifier: GPL-2.0

//! What happens to a device with a driver, and in which order: negotiation, probe, removal, sleep,
//! resets that the transport makes, shutdown (Virtio 1.4, 3.1 to 3.3).

#![deny(unsafe_code)]

use super::{
    debug,
    device::VirtioDevice,
    driver::VirtioDriver,
    gate,
    status::{
        Refusal,
        Status, //
    },
    watch, //
};
use crate::config::{
    Features,
    VERSION_1, //
};

use kernel::{
    dev_err,
    dev_warn,
    prelude::*, //
};

// Negotiation

/// Takes the device back to `ACKNOWLEDGE` if it is beyond that: after an attempt that failed it
/// must be reset before the next one (2.1.1).
///
/// # Errors
///
/// `ENODEV` if the device has gone, `EIO` if it does not finish a reset.
fn begin(device: &VirtioDevice) -> Result {
    let status = device.status();

    if status.is_gone() {
        dev_err!(device.as_ref(), "the device has gone\n");
        return Err(ENODEV);
    }
    device.set_was_failed(false);
    if status != Status::ACKNOWLEDGE {
        device.reset()?;
        device.add_status(Status::ACKNOWLEDGE);
    }
    Ok(())
}

/// Finds the features that both sides know. What the device offers is asked for once.
fn choose(device: &VirtioDevice, driver: &VirtioDriver) {
    let offered = device.offered();
    let known = driver.features();
    let chosen = Features::negotiate(offered, known, driver.legacy_features());

    device.set_features(chosen);
    // Who debugs may take some away, but none of the transport's.
    debug::filter_features(device);
    let transport = offered.intersection(Features::TRANSPORT);
    device.set_features(device.features().union(transport));
}

/// Lets the driver decline features, and tells the device if it does.
fn validate(device: &VirtioDevice, driver: &VirtioDriver) -> Result {
    let before = device.features();

    driver.validate(device)?;
    match device.features() == before {
        true => Ok(()),
        false => device.finalize_features(),
    }
}

/// Ends the negotiation, and finds out whether the device agrees.
///
/// # Errors
///
/// `ENODEV` if it does not or has gone, or if the platform demands a feature that it lacks; `EIO`
/// if it asks for a reset instead.
fn features_ok(device: &VirtioDevice) -> Result {
    #[cfg(CONFIG_VIRTIO_ANCHOR)]
    restricted_memory(device)?;
    if !device.features().has(VERSION_1) {
        return Ok(());
    }
    device.add_status(Status::FEATURES_OK);
    let status = device.status();

    status.accepts_features().map_err(|refusal| {
        let bits = status.bits();

        match refusal {
            Refusal::Gone => {
                dev_err!(device.as_ref(), "the device has gone\n");
                ENODEV
            }
            Refusal::Features => {
                dev_err!(
                    device.as_ref(),
                    "virtio: device refuses features: {bits:x}\n"
                );
                ENODEV
            }
            Refusal::NeedsReset => {
                dev_err!(
                    device.as_ref(),
                    "the device asks for a reset: status {bits:#x}\n"
                );
                EIO
            }
        }
    })
}

/// Demands what a device needs to be kept from memory that it must not touch.
///
/// # Errors
///
/// `ENODEV` if it lacks that.
#[cfg(CONFIG_VIRTIO_ANCHOR)]
fn restricted_memory(device: &VirtioDevice) -> Result {
    use crate::config::ACCESS_PLATFORM;

    if !device.needs_restricted_memory() {
        return Ok(());
    }
    for (bit, name) in [
        (VERSION_1, "VIRTIO_F_VERSION_1"),
        (ACCESS_PLATFORM, "VIRTIO_F_ACCESS_PLATFORM"),
    ] {
        if !device.features().has(bit) {
            dev_warn!(device.as_ref(), "device must provide {name}\n");
            return Err(ENODEV);
        }
    }
    Ok(())
}

/// Makes the device live if the driver did not, and lets the driver hear of it.
fn go_live(device: &VirtioDevice, then: impl FnOnce()) {
    let status = device.status();

    if !status.has(Status::DRIVER_OK) {
        if cfg!(CONFIG_VIRTIO_HARDEN_NOTIFICATION) {
            device.synchronize_callbacks();
            device.unbreak_queues();
        }
        device.set_status(status.with(Status::DRIVER_OK));
    }
    then();
    gate::open(device);
}

/// Marks the device as given up if something failed.
fn or_failed(device: &VirtioDevice, result: Result) -> Result {
    result.inspect_err(|_| device.add_status(Status::FAILED))
}

// Probe and removal

/// Brings a device and its driver together.
///
/// # Errors
///
/// Those of driver and transport; `ENODEV` or `EIO` if the device does not play by the rules. The
/// device is failed then.
///
/// # Context
///
/// May sleep; the driver core holds the lock of the device.
pub(super) fn probe(device: &VirtioDevice) -> Result {
    let driver = device.driver().ok_or(ENODEV)?;

    or_failed(device, start(device, driver))?;
    go_live(device, || driver.scan(device));
    // The device may have asked for a reset before anybody could hear of it.
    watch::inspect(device);
    Ok(())
}

/// All of a probe that can fail.
fn start(device: &VirtioDevice, driver: &VirtioDriver) -> Result {
    begin(device)?;
    device.add_status(Status::DRIVER);
    choose(device, driver);
    device.finalize_features()?;
    validate(device, driver)?;
    features_ok(device)?;
    driver.probe(device)
}

/// Takes a device and its driver apart. The device is left as [`probe`] wants it.
///
/// # Context
///
/// As for [`probe`].
pub(super) fn remove(device: &VirtioDevice) {
    gate::close(device);
    if let Some(driver) = device.driver() {
        driver.remove(device);
    }
    let status = device.status();

    // Who did not finish the driver's reset will not finish another one. The next probe does not
    // begin.
    if !status.is_reset() && !device.was_failed() {
        dev_warn!(
            device.as_ref(),
            "the driver did not reset the device: status {:#x}\n",
            status.bits()
        );
        // If that fails it was said so.
        let _ = device.reset();
    }
    device.add_status(Status::ACKNOWLEDGE);
}

/// Stops the device of a driver that is of no more use: no driver, no accesses.
///
/// # Context
///
/// May sleep.
pub(super) fn shutdown(device: &VirtioDevice) {
    let Some(driver) = device.driver() else {
        return;
    };
    if !driver.shutdown(device) {
        stop(device);
    }
}

/// Stops a device for good: some do not bear to be notified after a reset, so queues break first,
/// and others do not bear that memory goes away, so there is a reset.
///
/// # Context
///
/// May sleep.
pub(super) fn stop(device: &VirtioDevice) {
    device.break_queues();
    device.synchronize_callbacks();
    // If it fails it was said so; nothing else can be done.
    let _ = device.reset();
}

// Sleep, and resets that the transport makes

/// The transport is about to lose the device.
///
/// # Errors
///
/// Those of `step`; then all stays as it is.
fn pause(device: &VirtioDevice, step: impl FnOnce() -> Result) -> Result {
    gate::close(device);
    let status = device.status();

    step().inspect_err(|_| gate::open(device))?;
    device.set_was_failed(status.has(Status::FAILED) && !status.is_gone());
    Ok(())
}

/// The transport has the device again, which knows nothing of what was before. The features are
/// those of the probe, since the driver relies on them.
///
/// # Errors
///
/// Those of driver and transport; `ENODEV` or `EIO` if the device does not play by the rules. The
/// device is failed then.
fn resume(device: &VirtioDevice, step: impl FnOnce(&VirtioDriver) -> Result) -> Result {
    let driver = device.driver();

    or_failed(device, restart(device, driver, step))?;
    if driver.is_some() {
        go_live(device, || ());
        // As in `probe`, but that the lock of the device may be somebody else's.
        watch::look(device);
    }
    Ok(())
}

/// All of [`resume`] that can fail.
fn restart(
    device: &VirtioDevice,
    driver: Option<&VirtioDriver>,
    step: impl FnOnce(&VirtioDriver) -> Result,
) -> Result {
    let was_failed = device.was_failed();

    device.set_was_failed(false);
    device.reset()?;
    device.add_status(Status::ACKNOWLEDGE);
    if was_failed {
        device.add_status(Status::FAILED);
    }
    let Some(driver) = driver else {
        return Ok(());
    };
    device.add_status(Status::DRIVER);
    let missing = device.features().difference(device.offered());

    if !missing.is_empty() {
        let [low, high] = missing.words();

        dev_err!(
            device.as_ref(),
            "the device does not offer features any more that are in use: {high:016x}{low:016x}\n"
        );
        return Err(ENODEV);
    }
    device.finalize_features()?;
    features_ok(device)?;
    step(driver)
}

/// Prepares a device for sleep.
///
/// # Errors
///
/// Those of the driver.
///
/// # Context
///
/// May sleep.
#[cfg(CONFIG_PM_SLEEP)]
pub(super) fn freeze(device: &VirtioDevice) -> Result {
    pause(device, || match device.driver() {
        Some(driver) => driver.freeze(device),
        None => Ok(()),
    })
}

/// Brings a device back from sleep.
///
/// # Errors
///
/// As for [`resume`].
///
/// # Context
///
/// May sleep.
#[cfg(CONFIG_PM_SLEEP)]
pub(super) fn restore(device: &VirtioDevice) -> Result {
    resume(device, |driver| driver.restore(device))
}

/// Prepares a device for a reset that the transport is about to make.
///
/// # Errors
///
/// Those of the driver; `EOPNOTSUPP` if it cannot live through that, or does not use the device:
/// before the end of its probe, from the begin of its removal on, and in sleep.
///
/// # Context
///
/// May sleep; nobody binds or unbinds the driver.
pub(super) fn reset_prepare(device: &VirtioDevice) -> Result {
    let driver = device.driver().ok_or(EOPNOTSUPP)?;

    if !driver.can_prepare_reset() || !gate::is_open(device) {
        return Err(EOPNOTSUPP);
    }
    pause(device, || driver.reset_prepare(device))
}

/// Brings a device back from such a reset.
///
/// # Errors
///
/// As for [`resume`]; `EOPNOTSUPP` if the driver cannot live through that, or was not told before.
///
/// # Context
///
/// As for [`reset_prepare`].
pub(super) fn reset_done(device: &VirtioDevice) -> Result {
    let driver = device.driver().ok_or(EOPNOTSUPP)?;

    if !driver.can_finish_reset() || gate::is_open(device) {
        return Err(EOPNOTSUPP);
    }
    resume(device, |driver| driver.reset_done(device))
}
