// SPDX-License-Identifier: GPL-2.0

//! What a transport must not be able to do with rings.

use api::virtio::transport::{
    ring::{
        Own,
        Ring,
        Shape,
        Wanted,
        Wish, //
    },
    Device,
    DeviceOf,
    Notify,
    Transport, //
};
use kernel::prelude::*;

/// Notifications would be sent by one transport with another one's part of the device.
fn ring_of_another<A: Notify, B: Notify>(
    device: &DeviceOf<A>,
    shape: Shape,
    wish: &Wish<'_>,
) -> Result<Ring> {
    Ring::new::<B>(device, 0, shape, wish)
    //~^ ERROR E0308: mismatched types
}

/// The same, of a device of which nothing is known.
fn ring_of_any<A: Notify>(device: &Device, shape: Shape, wish: &Wish<'_>) -> Result<Ring> {
    Ring::new::<A>(device, 0, shape, wish)
    //~^ ERROR E0308: mismatched types
}

/// One transport would be told of used buffers with another one's part of the device.
fn own_of_another<'a, A: Transport, B: Transport>(
    own: &Own<B>,
    device: &'a DeviceOf<A>,
) -> Wish<'a> {
    own.wish(device)
    //~^ ERROR E0308: mismatched types
}

/// A wish would be used when the driver's list is gone.
fn keep<'a>(wanted: &Wanted<'a>) -> Option<Wish<'static>> {
    wanted.wishes().next()
    //~^ ERROR lifetime may not live long enough
}

/// A transport would say itself whose the device is.
fn say<T>(device: Device) -> DeviceOf<T> {
    DeviceOf(device, core::marker::PhantomData)
    //~^ ERROR E0423: cannot initialize a tuple struct which contains private fields
}
