// SPDX-License-Identifier: GPL-2.0

//! The driver as the virtio core sees it.

use super::{
    engine::Engine,
    layout::{
        MUST_TELL_HOST,
        NUM_PAGES, //
    },
    shared::{
        Listener,
        Shared, //
    },
};
use crate::{
    config::{
        FeatureBit,
        ACCESS_PLATFORM, //
    },
    kernel_ext::{
        kthread,
        pm_notifier::PmNotifier, //
    },
    virtio::{
        id::IdTable,
        pm::Phase,
        Device,
        Driver, //
    },
};

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    device::{
        Bound,
        Core, //
    },
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// The balloon driver.
pub(crate) struct BalloonDriver;

/// What the driver keeps for one device; the fields are dropped in this order.
#[pin_data]
pub(crate) struct Balloon<'a> {
    #[pin]
    _state: File<Arc<Shared>>,
    dir: Dir,
    #[pin]
    _listener: PmNotifier<Listener>,
    #[pin]
    engine: Engine<'a>,
}

impl<'a> Balloon<'a> {
    /// Creates a balloon with its debugfs file and its listener for sleep transitions.
    fn new(dev: &'a Device<Bound>) -> impl PinInit<Self, Error> + use<'a> {
        pin_init::pin_init_scope(move || {
            // Tells now whether the transport has a configuration space.
            dev.read(&NUM_PAGES).inspect_err(|_| {
                dev_err!(dev, "the device has no configuration space\n");
            })?;
            let shared = Shared::new()?;
            let name = dev.as_ref().name();
            let dir = Dir::new(&CString::try_from_fmt(fmt!("virtio_balloon-{name}"))?);

            Ok(try_pin_init!(Self {
                engine <- Engine::new(dev, shared.clone()),
                _listener <- PmNotifier::new(Listener(shared.clone())),
                dir,
                _state <- dir.read_callback_file(c"state", shared, &|shared, f| shared.show(f)),
            }? Error))
        })
    }
}

#[vtable]
impl Driver for BalloonDriver {
    type Data<'bound> = Balloon<'bound>;

    const ID_TABLE: IdTable = &crate::ID_TABLE;
    const FEATURES: &'static [FeatureBit] = &[MUST_TELL_HOST];
    const THREAD_NAME: &'static CStr = c"vballoon";

    fn validate(dev: &Device<Core<'_>>) -> Result {
        // Page numbers are physical; the specification has no way to translate them.
        dev.decline(ACCESS_PLATFORM);
        Ok(())
    }

    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
    ) -> impl PinInit<Balloon<'bound>, Error> + 'bound {
        Balloon::new(dev)
    }

    fn thread(_dev: &Device<Bound>, data: Pin<&Balloon<'_>>, current: &kthread::Current) {
        data.engine.serve(current);
    }

    fn unbind(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) {
        data.engine.end();
    }

    fn shutdown(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) {
        data.engine.shut_down();
    }

    fn config_changed(_dev: &Device<Bound>, data: Pin<&Balloon<'_>>) {
        data.engine.shared.wake_for_config();
    }

    fn notified(_dev: &Device<Bound>, data: Pin<&Balloon<'_>>, _place: usize) {
        data.engine.shared.wake();
    }

    fn freeze(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) -> Result {
        data.engine.disconnect();
        Ok(())
    }

    fn restore(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) -> Result {
        data.engine.reconnect()
    }

    fn sleep(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>, phase: Phase) -> Result {
        data.engine.sleep(phase)
    }
}
