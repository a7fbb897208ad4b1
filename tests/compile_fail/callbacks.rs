// SPDX-License-Identifier: GPL-2.0

//! What must be done in some callbacks only.

use api::{
    kernel_ext::{
        kthread,
        registration::Registration, //
    },
    virtio::prelude::*, //
};

/// A feature would be declined when the negotiation is over.
fn decline_late(dev: &Device<Core<'_>>) {
    dev.decline(1);
    //~^ ERROR E0599: no method named `decline` found
}

/// The negotiation would be kept for later.
fn keep_negotiation(negotiation: Negotiation<'_>) -> Negotiation<'static> {
    negotiation
    //~^ ERROR lifetime may not live long enough
}

/// A driver would negotiate by itself.
fn negotiate(dev: &Device<Bound>) -> Negotiation<'_> {
    Negotiation::new(dev)
    //~^ ERROR E0624: associated function `new` is private
}

/// The device would be stopped while its features are negotiated.
fn stop_early(negotiation: &Negotiation<'_>) {
    negotiation.shut_down();
    //~^ ERROR E0599: no method named `shut_down` found
}

/// The device would be stopped by a thread, or in an interrupt.
fn stop_anywhere(dev: &Device<Bound>) {
    dev.shut_down();
    //~^ ERROR E0599: no method named `shut_down` found
}

/// A driver would make its device live by itself.
fn live_early(dev: &Device<Bound>) {
    dev.make_live();
    //~^ ERROR E0624: method `make_live` is private
}

/// The device would be used when the driver is not bound any more.
fn keep_device(dev: &Device<Bound>) -> &'static Device<Bound> {
    dev
    //~^ ERROR lifetime may not live long enough
}

/// Code that is not a thread of the driver would say that it is one.
fn be_a_thread() -> c_int {
    kthread::Current::enter(|_| ())
    //~^ ERROR E0133: call to unsafe function
}

/// What must not be forgotten would be in the hands of the driver.
fn register<'a, H: 'a, R: Registration<'a, H>>(handler: Pin<&'a H>) {
    let _ = R::new(handler, c"mine");
    //~^ ERROR E0133: call to unsafe function
}
