// SPDX-License-Identifier: GPL-2.0

//! The driver as the virtio core sees it.

use super::{
    engine::Engine,
    informer::Informer,
    layout::{
        DEFLATE,
        DEFLATE_ON_OOM,
        FREE_PAGE_HINT,
        INFLATE,
        MUST_TELL_HOST,
        NUM_PAGES,
        PAGE_POISON,
        PAGE_REPORTING,
        STATS,
        STATS_VQ, //
    },
    oom, poison,
    queues::DeviceQueues,
    report,
    shared::{
        Listener,
        Reason,
        Shared, //
    },
};
use crate::{
    config::{
        FeatureBit,
        ACCESS_PLATFORM,
        RING_INDIRECT_DESC, //
    },
    kernel_ext::{
        kthread,
        notifier::{
            Notifier,
            Oom,
            Pm, //
        }, //
    },
    virtio::{
        id::IdTable,
        pm::Phase,
        queue::NewQueues,
        Device,
        Driver,
        Negotiation, //
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
    sync::Arc,
    time::Instant, //
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
    _listener: Notifier<Pm, Listener>,
    _oom: Option<Pin<KBox<Notifier<Oom, oom::Listener>>>>,
    #[pin]
    informer: Informer<'a>,
    #[pin]
    engine: Engine<'a>,
}

impl<'a> Balloon<'a> {
    /// Creates a balloon with its debugfs file and its listener for sleep transitions.
    fn new<'q>(
        dev: &'a Device<Bound>,
        queues: NewQueues<'q, BalloonDriver>,
    ) -> impl PinInit<Self, Error> + use<'a, 'q> {
        pin_init::pin_init_scope(move || {
            // Tells now whether the transport has a configuration space.
            dev.read(&NUM_PAGES).inspect_err(|_| {
                dev_err!(dev, "the device has no configuration space\n");
            })?;
            let shared = Shared::new(dev.as_ref())?;
            let name = dev.as_ref().name();
            let dir = Dir::new(&CString::try_from_fmt(fmt!("virtio_balloon-{name}"))?);

            let queues = DeviceQueues::new(dev, queues)?;
            poison::announce(dev);
            let oom = match dev.features().has(DEFLATE_ON_OOM) {
                true => Some(oom::Listener::register(shared.clone())?),
                false => None,
            };

            Ok(try_pin_init!(Self {
                engine <- Engine::new(dev, shared.clone(), queues.pages),
                informer <- Informer::new(dev, shared.clone(), queues.info),
                _oom: oom,
                _listener <- Notifier::new(Listener(shared.clone()), 0),
                dir,
                _state <- dir.read_callback_file(c"state", shared, &|shared, f| shared.show(f)),
            }? Error))
        })
    }

    /// Takes the device into use again after it was reset.
    ///
    /// # Errors
    ///
    /// As for [`DeviceQueues::new`].
    fn reconnect(&self, queues: NewQueues<'_, BalloonDriver>) -> Result {
        let start = Instant::now();
        let dev = self.engine.dev;
        let queues = DeviceQueues::new(dev, queues)?;

        poison::announce(dev);
        self.informer.connect(queues.info)?;
        self.engine.reconnect(queues.pages, start);
        Ok(())
    }
}

#[vtable]
impl Driver for BalloonDriver {
    type Data<'bound> = Balloon<'bound>;
    type Registration<'bound> = ();

    const ID_TABLE: IdTable = &crate::ID_TABLE;
    const FEATURES: &'static [FeatureBit] = &[
        MUST_TELL_HOST,
        STATS_VQ,
        DEFLATE_ON_OOM,
        FREE_PAGE_HINT,
        PAGE_POISON,
        PAGE_REPORTING,
    ];
    const THREADS: &'static [&'static CStr] = &[c"vballoon", c"vballoon-info"];

    fn validate(dev: &Negotiation<'_>) -> Result {
        // Page numbers are physical; the specification has no way to translate them.
        dev.decline(ACCESS_PLATFORM);
        // As the C driver does: no need for memory to make a long list available.
        dev.decline(RING_INDIRECT_DESC);
        let fills_unannounced = poison::validate(dev);
        report::validate(dev, fills_unannounced);
        Ok(())
    }

    fn probe<'bound>(
        dev: &'bound Device<Core<'_>>,
        queues: NewQueues<'_, Self>,
    ) -> impl PinInit<Balloon<'bound>, Error> {
        Balloon::new(dev, queues)
    }

    fn live(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) -> Result {
        data.informer.go_live();
        data.engine.finish_reset();
        Ok(())
    }

    fn thread(
        _dev: &Device<Bound>,
        data: Pin<&Balloon<'_>>,
        current: &kthread::Current,
        which: usize,
    ) {
        match which {
            0 => data.engine.serve(current),
            _ => data.informer.serve(current),
        }
    }

    fn unbind(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) {
        data.engine.end();
        data.informer.disconnect();
    }

    fn shutdown(dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) {
        data.engine.shut_down(dev);
    }

    fn config_changed(_dev: &Device<Bound>, data: Pin<&Balloon<'_>>) {
        let shared = &data.engine.shared;

        shared.hints.expect_command();
        shared.wake_for_config();
        shared.info.ring();
    }

    fn notified(_dev: &Device<Bound>, data: Pin<&Balloon<'_>>, place: usize) {
        match place {
            INFLATE | DEFLATE => data.engine.shared.wake(),
            STATS => {
                data.engine.shared.wakeup.begin(Reason::STATISTICS);
                data.engine.shared.info.ring();
            }
            _ => data.engine.shared.info.ring(),
        }
    }

    fn freeze(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) -> Result {
        // Nobody uses a device while it is reset.
        data.informer.pause();
        data.engine.disconnect();
        data.informer.disconnect();
        Ok(())
    }

    fn restore(
        _dev: &Device<Core<'_>>,
        data: Pin<&Balloon<'_>>,
        queues: NewQueues<'_, Self>,
    ) -> Result {
        data.reconnect(queues)
    }

    fn prepare_reset(dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>) -> Result {
        data.engine.begin_reset();
        Self::freeze(dev, data)
    }

    fn sleep(_dev: &Device<Core<'_>>, data: Pin<&Balloon<'_>>, phase: Phase) -> Result {
        data.engine.sleep(phase)?;
        data.engine.shared.info.ring();
        Ok(())
    }
}
