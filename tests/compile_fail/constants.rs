// SPDX-License-Identifier: GPL-2.0

//! Constants of a driver that make no sense.

use api::{
    virtio::{
        driver::Adapter,
        prelude::*, //
    },
    LocalModule,
    TABLE, //
};
use kernel::driver::Registration;

/// A driver that only has constants of its own.
macro_rules! driver {
    ($name:ident, $constant:item) => {
        /// The driver.
        pub struct $name;

        #[vtable]
        impl Driver for $name {
            type Data<'bound> = ();
            type Registration<'bound> = ();

            const ID_TABLE: IdTable = TABLE;
            $constant

            fn probe<'bound>(
                _dev: &'bound Device<Core<'_>>,
                _queues: NewQueues<'_, Self>,
            ) -> impl PinInit<(), Error> {
                Ok::<_, Error>(())
            }
        }
    };
}

driver! {
    ThreeThreads,
    const THREADS: &'static [&'static CStr] = &[c"one", c"two", c"three"];
}

//~ ELSEWHERE E0080: a driver has too many threads

driver! {
    NoSuchFeature,
    const FEATURES: &'static [FeatureBit] = &[1, 128];
}

//~ ELSEWHERE E0080: there is no such feature

/// Registers both drivers, which are looked at when their code is made.
pub fn register(module: &'static ThisModule) -> Result {
    let too_many = Registration::<Adapter<ThreeThreads>>::new(c"too_many", module);
    let no_such = Registration::<Adapter<NoSuchFeature>>::new(c"no_such", module);

    KBox::pin_init(too_many, GFP_KERNEL)?;
    KBox::pin_init(no_such, GFP_KERNEL)?;
    Ok(())
}
