// SPDX-License-Identifier: GPL-2.0

//! What the other files do, done right: this one compiles.

use api::{
    virtio::{
        driver::Adapter,
        prelude::*, //
    },
    LocalModule,
    TABLE, //
};
use kernel::driver::Registration;

struct Query {
    question: KBox<[u8; 64]>,
    answer: KBox<InBuf<64>>,
}

impl Payload for Query {
    fn parts(&mut self) -> Parts<'_> {
        Parts::new()
            .readable(Readable::first(&self.question, 64))
            .writable(&mut *self.answer)
    }
}

/// A driver.
pub struct Control;

/// Its data.
#[pin_data]
pub struct Data {
    queue: Queue<Query>,
}

#[vtable]
impl Driver for Control {
    type Data<'bound> = Data;
    type Registration<'bound> = ();

    const ID_TABLE: IdTable = TABLE;
    const FEATURES: &'static [FeatureBit] = &[1, 127];
    const THREADS: &'static [&'static CStr] = &[c"one", c"two"];

    fn validate(negotiation: &Negotiation<'_>) -> Result {
        negotiation.decline(1);
        Ok(())
    }

    fn probe<'bound>(
        _dev: &'bound Device<Core<'_>>,
        queues: NewQueues<'_, Self>,
    ) -> impl PinInit<Data, Error> {
        pin_init::pin_init_scope(move || {
            let queue = queues.single(c"in")?;

            Ok(try_pin_init!(Data { queue }? Error))
        })
    }

    fn live(_dev: &Device<Core<'_>>, data: Pin<&Data>) -> Result {
        data.queue.notify()
    }

    fn unbind(dev: &Device<Core<'_>>, data: Pin<&Data>) {
        if let Ok(reset) = dev.reset() {
            while let Ok(Some(query)) = data.queue.take_unused(&reset) {
                drop(query);
            }
        }
    }

    fn shutdown(dev: &Device<Core<'_>>, _data: Pin<&Data>) {
        dev.shut_down();
    }
}

/// Registers it.
pub fn register(module: &'static ThisModule) -> Result {
    let control = Registration::<Adapter<Control>>::new(c"control", module);

    KBox::pin_init(control, GFP_KERNEL)?;
    Ok(())
}
