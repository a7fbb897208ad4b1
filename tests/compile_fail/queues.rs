// SPDX-License-Identifier: GPL-2.0

//! What a driver must not be able to do with queues.

use api::virtio::{
    device::Reset,
    prelude::*,
    queue::Notification, //
};

type In = Queue<InBuf<64>>;

/// The queues would be made a second time, under the first ones.
fn twice<D: Driver>(queues: NewQueues<'_, D>) -> Result<(In, In)> {
    Ok((
        queues.single(c"in")?,
        queues.single(c"in")?,
        //~^ ERROR E0382: use of moved value: `queues`
    ))
}

/// Another driver's callbacks would be called with this driver's data.
fn for_another<A: Driver, B: Driver>(queues: NewQueues<'_, A>) -> NewQueues<'_, B> {
    queues
    //~^ ERROR E0308: mismatched types
}

/// The right to make queues would be used when the device is live.
fn keep<D: Driver>(queues: NewQueues<'_, D>) -> Option<NewQueues<'static, D>> {
    Some(queues)
    //~^ ERROR lifetime may not live long enough
}

/// A driver would give itself the right.
fn make<'a, D: Driver>(dev: &'a Device<Bound>) -> NewQueues<'a, D> {
    NewQueues::of(dev, todo!())
    //~^ ERROR E0624: associated function `of` is private
}

/// A queue would be made of a handle for other payloads.
fn other_payloads(queue: In) -> Queue<OutBuf<Le32, 4, ()>> {
    queue
    //~^ ERROR E0308: mismatched types
}

/// There would be two handles for a queue.
fn two_handles(queue: &In) -> In {
    queue.clone()
    //~^ ERROR E0308: mismatched types
}

/// The driver would touch what the device has.
fn touch_what_the_device_has(queue: &In, buf: KBox<InBuf<64>>) -> Result<usize> {
    let mut buf = buf;

    queue.add(buf).map_err(|(error, _)| error)?;
    Ok(buf.take(64).len())
    //~^ ERROR E0382: borrow of moved value: `buf`
}

/// A payload would be in the queue twice.
fn add_twice(queue: &In, buf: KBox<InBuf<64>>) {
    let _ = queue.add(buf);
    let _ = queue.add(buf);
    //~^ ERROR E0382: use of moved value: `buf`
}

/// Buffers would be taken from a device that was not reset.
fn take_without_reset(queue: &In) {
    let _ = queue.take_unused();
    //~^ ERROR E0061: this method takes 1 argument but 0
}

/// A driver would say itself that the device was reset.
fn say_reset<'a>() -> Reset<'a> {
    Reset(core::marker::PhantomData)
    //~^ ERROR E0423: cannot initialize a tuple struct which contains private fields
}

/// A notification would be sent twice.
fn notify_twice(notification: Notification<'_>) {
    let _ = notification.send();
    let _ = notification.send();
    //~^ ERROR E0382: use of moved value: `notification`
}

/// A handle would be used when the device that it was borrowed with is gone.
fn outlive(dev: &Device<Bound>) -> Result<Reset<'static>> {
    dev.reset()
    //~^ ERROR lifetime may not live long enough
}
