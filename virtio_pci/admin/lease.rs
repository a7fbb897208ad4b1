// SPDX-License-Identifier: GPL-2.0

//! The administration virtqueue in the hands of an [`Admin`].

use super::Admin;
use crate::virtio::{
    buffers::Buffers,
    transport::ring::Ring, //
};

use kernel::sync::Arc;

/// Lets an [`Admin`] use a virtqueue until this is dropped.
pub(crate) struct Lease<B> {
    admin: Arc<Admin>,
    _ring: Arc<Ring<B>>,
}

impl<B> Lease<B> {
    /// Begins with a queue that was made for the purpose and is empty.
    pub(crate) fn new(admin: &Arc<Admin>, ring: &Arc<Ring<B>>) -> Self {
        // SAFETY: No driver is given this queue. `drop` takes it away from the `Admin`, and only
        // then lets the ring go.
        admin.queue.open(unsafe { Buffers::new(ring.raw_queue()) });
        Self {
            admin: admin.clone(),
            _ring: ring.clone(),
        }
    }
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        self.admin.queue.close();
    }
}
