// SPDX-License-Identifier: GPL-2.0

//! What a payload must not be able to do.

use api::virtio::prelude::*;

struct Swap {
    first: KBox<[u8; 64]>,
    second: KBox<InBuf<64>>,
}

/// What the device was shown would be freed before it is told of it.
impl Payload for Swap {
    fn parts(&mut self) -> Parts<'_> {
        let parts = Parts::new().readable(Readable::first(&self.first, 64));

        if let Ok(other) = KBox::new([0; 64], GFP_ATOMIC) {
            self.first = other;
            //~^ ERROR E0506: cannot assign to `self.first` because it is borrowed
        }
        parts.writable(&mut *self.second)
    }
}

struct Local;

/// The device would be shown memory that is gone when the function returns.
impl Payload for Local {
    fn parts(&mut self) -> Parts<'_> {
        match KBox::new([0; 64], GFP_ATOMIC) {
            Ok(mut local) => Parts::new().writable(Writable::all(&mut local)),
            //~^ ERROR E0515: cannot return value referencing local variable `local`
            Err(_) => Parts::new(),
        }
    }
}

struct Both(KBox<[u8; 64]>);

/// The device would read and write the same memory.
impl Payload for Both {
    fn parts(&mut self) -> Parts<'_> {
        let readable = Readable::first(&self.0, 64);

        Parts::new()
            .readable(readable)
            .writable(Writable::all(&mut self.0))
        //~^ ERROR E0502: cannot borrow `self.0` as mutable because
    }
}

struct Shared(kernel::sync::Arc<KBox<[u8; 64]>>);

/// The device would write what others can read.
impl Payload for Shared {
    fn parts(&mut self) -> Parts<'_> {
        Parts::new().writable(Writable::all(&mut *self.0))
        //~^ ERROR E0596: cannot borrow data in dereference of `Arc<
    }
}

struct Inline([u8; 64]);

/// The device would be shown memory that is not from kmalloc.
impl Payload for Inline {
    fn parts(&mut self) -> Parts<'_> {
        Parts::new().readable(Readable::first(&self.0, 64))
        //~^ ERROR E0308: mismatched types
    }
}

struct Borrowing<'a>(&'a KBox<[u8; 64]>);

/// The device would have memory that is borrowed for less long.
impl<'a> Payload for Borrowing<'a> {
    //~^ ERROR E0478: lifetime bound not satisfied
    //~^^ ERROR E0495: cannot infer an appropriate lifetime for lifetime parameter `'a`
    fn parts(&mut self) -> Parts<'_> {
        Parts::new().readable(Readable::first(self.0, 64))
    }
}

struct Thread(*mut ());

/// What must stay with its thread would come back in another one.
impl Payload for Thread {
    //~^ ERROR E0277: `*mut ()` cannot be sent between threads safely
    fn parts(&mut self) -> Parts<'_> {
        Parts::new()
    }
}

/// Memory would be named by hand.
fn by_hand(list: *mut kernel::bindings::scatterlist) -> Writable<'static> {
    Writable::from_list(list)
    //~^ ERROR E0133: call to unsafe function
}

/// The device would be given a value that may not be any bytes.
fn not_bytes(flags: &mut KBox<[bool; 64]>) -> Writable<'_> {
    Writable::all(flags)
    //~^ ERROR E0277: the trait bound `bool: kernel::transmute::FromBytes` is not satisfied
}
