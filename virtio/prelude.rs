// SPDX-License-Identifier: GPL-2.0

//! What nearly every virtio driver needs, from here and from the kernel crate:
//! `use crate::virtio::prelude::*;`.

pub use super::{
    device::{
        Device,
        Negotiation,
        Reset, //
    },
    driver::Driver,
    endian::{
        ByteOrder,
        Le16,
        Le32,
        Le64,
        Virtio16,
        Virtio32,
        Virtio64, //
    },
    id::{
        DeviceId,
        IdTable, //
    },
    payload::{
        InBuf,
        OutBuf,
        Parts,
        Payload,
        Readable,
        Writable, //
    },
    pm::Phase,
    queue::{
        NewQueues,
        Queue,
        QueueInfo,
        Queues, //
    },
    stream::InStream, //
};
pub(crate) use super::{
    driver::module_virtio_driver,
    id::virtio_device_table, //
};
pub use crate::config::{
    FeatureBit,
    Features,
    Field, //
};

pub use kernel::{
    device::{
        Bound,
        Core, //
    },
    prelude::*,
};
