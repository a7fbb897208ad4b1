// SPDX-License-Identifier: GPL-2.0

//! `struct virtio_config_ops` of a transport: what the core and the drivers call.

use super::{
    registration::Shell,
    reset,
    ring::{
        Virtqueue,
        Wanted, //
    },
    Transport, //
};
use crate::virtio::{
    bindings,
    reset::state::State, //
};

use core::{
    marker::PhantomData,
    slice, //
};
use kernel::{
    cpumask::Cpumask,
    dev_err,
    error::from_result,
    prelude::*,
    warn_on, //
};

/// `DRIVER_OK` of the device status (Virtio 1.4, 2.1): the device is live.
const DRIVER_OK: u8 = 4;

/// The functions of `struct virtio_config_ops` for a transport. All are called with a device of
/// it that is registered, or being so, and with arguments as the C header wants them.
pub(super) struct Ops<T>(PhantomData<T>);

#[expect(
    clippy::missing_safety_doc,
    reason = "the contract is that of the C header, for all of them"
)]
impl<T: Transport> Ops<T> {
    const TABLE: bindings::virtio_config_ops = bindings::virtio_config_ops {
        get: Some(Self::get),
        set: Some(Self::set),
        generation: Some(Self::generation),
        get_status: Some(Self::get_status),
        set_status: Some(Self::set_status),
        reset: Some(Self::reset),
        find_vqs: Some(Self::find_vqs),
        del_vqs: Some(Self::del_vqs),
        synchronize_cbs: Some(Self::synchronize_cbs),
        get_extended_features: Some(Self::get_extended_features),
        finalize_features: Some(Self::finalize_features),
        bus_name: Some(Self::bus_name),
        get_shm_region: Some(Self::get_shm_region),
        disable_vq_and_reset: match T::HAS_RESET_QUEUE {
            true => Some(Self::disable_vq_and_reset),
            false => None,
        },
        enable_vq_after_reset: match T::HAS_RESTART_QUEUE {
            true => Some(Self::enable_vq_after_reset),
            false => None,
        },
        set_vq_affinity: match T::HAS_SET_QUEUE_AFFINITY {
            true => Some(Self::set_vq_affinity),
            false => None,
        },
        get_vq_affinity: match T::HAS_QUEUE_AFFINITY {
            true => Some(Self::get_vq_affinity),
            false => None,
        },
        ..pin_init::zeroed()
    };

    /// For devices without configuration space: drivers look for these two.
    const WITHOUT_CONFIG: bindings::virtio_config_ops = bindings::virtio_config_ops {
        get: None,
        set: None,
        ..Self::TABLE
    };

    /// The table for a device with configuration space, or for one without.
    pub(super) const fn table(has_config: bool) -> &'static bindings::virtio_config_ops {
        match has_config {
            true => &Self::TABLE,
            false => &Self::WITHOUT_CONFIG,
        }
    }

    /// The transport of a device.
    ///
    /// # Safety
    ///
    /// As for all functions of this table.
    #[inline(always)]
    unsafe fn of<'a>(vdev: *mut bindings::virtio_device) -> &'a T {
        // SAFETY: The table is only in devices that `Registration::new` made.
        unsafe { Shell::<T>::parts(vdev) }.1
    }

    unsafe extern "C" fn get(
        vdev: *mut bindings::virtio_device,
        offset: c_uint,
        buffer: *mut c_void,
        len: c_uint,
    ) {
        // SAFETY: By the contract of the table `buffer` has room for `len` bytes. They are
        // initialised first, so that a reference to them is allowed.
        let bytes = unsafe {
            buffer.cast::<u8>().write_bytes(0, len as usize);
            slice::from_raw_parts_mut(buffer.cast::<u8>(), len as usize)
        };

        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.read_config(offset as usize, bytes);
    }

    unsafe extern "C" fn set(
        vdev: *mut bindings::virtio_device,
        offset: c_uint,
        buffer: *const c_void,
        len: c_uint,
    ) {
        // SAFETY: By the contract of the table `buffer` has `len` bytes.
        let bytes = unsafe { slice::from_raw_parts(buffer.cast::<u8>(), len as usize) };

        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.write_config(offset as usize, bytes);
    }

    unsafe extern "C" fn generation(vdev: *mut bindings::virtio_device) -> u32 {
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(vdev) };
        // SAFETY: By the contract of the table the device is one of `T`.
        let generation = unsafe { Shell::<T>::generation(vdev) };

        generation.tell(transport.generation(), || {
            dev_err!(
                device,
                "the device does not stop to change its configuration, what was read is used\n"
            );
        })
    }

    unsafe extern "C" fn get_status(vdev: *mut bindings::virtio_device) -> u8 {
        // SAFETY: By the contract of the table.
        let status = unsafe { Self::of(vdev) }.status();

        // SAFETY: By the contract of the table the device is one of `T`.
        unsafe { Shell::<T>::reset(vdev) }.shown(status)
    }

    unsafe extern "C" fn set_status(vdev: *mut bindings::virtio_device, status: u8) {
        if warn_on!(status == 0) {
            return;
        }
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(vdev) };
        // SAFETY: By the contract of the table.
        let state = unsafe { Shell::<T>::reset(vdev) };

        reset::settle(state, transport, device);
        // The core was told that it is gone.
        if state.state() == State::Fenced {
            return;
        }
        if status & DRIVER_OK != 0 {
            state.live();
        }
        transport.set_status(status);
    }

    unsafe extern "C" fn reset(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(vdev) };

        // SAFETY: By the contract of the table.
        reset::run(unsafe { Shell::<T>::reset(vdev) }, transport, device);
    }

    unsafe extern "C" fn find_vqs(
        vdev: *mut bindings::virtio_device,
        nvqs: c_uint,
        vqs: *mut *mut bindings::virtqueue,
        infos: *mut bindings::virtqueue_info,
        affinity: *mut bindings::irq_affinity,
    ) -> c_int {
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(vdev) };
        // SAFETY: By the contract of the table both arrays have `nvqs` elements; only the driver of
        // the device asks for queues.
        let mut wanted = unsafe { Wanted::from_raw(device, infos, vqs, nvqs as usize, affinity) };
        // SAFETY: By the contract of the table.
        let state = unsafe { Shell::<T>::reset(vdev) };

        reset::settle(state, transport, device);
        from_result(|| {
            // Not every core looks.
            if state.state().is_unfinished() {
                return Err(EIO);
            }
            transport.make_queues(device, &mut wanted).map(|()| 0)
        })
    }

    unsafe extern "C" fn del_vqs(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(vdev) };
        // SAFETY: By the contract of the table.
        let state = unsafe { Shell::<T>::reset(vdev) };

        reset::settle(state, transport, device);
        transport.delete_queues(state.state().is_quiet());
    }

    unsafe extern "C" fn synchronize_cbs(vdev: *mut bindings::virtio_device) {
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.wait_for_callbacks();
    }

    unsafe extern "C" fn get_extended_features(
        vdev: *mut bindings::virtio_device,
        words: *mut u64,
    ) {
        // SAFETY: By the contract of the table.
        let offered = unsafe { Self::of(vdev) }.offered_features().words();

        // SAFETY: By the contract of the table there is room for as many words.
        unsafe { words.cast::<[u64; 2]>().write(offered) };
    }

    unsafe extern "C" fn finalize_features(vdev: *mut bindings::virtio_device) -> c_int {
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(vdev) };
        let own = device.features().intersection(transport.own_features());

        // The ring takes out all bits of transports that it does not know itself.
        // SAFETY: By the contract of the table.
        unsafe { bindings::vring_transport_features(vdev) };
        let features = device.features().union(own);

        device.set_features(features);
        from_result(|| transport.accept_features(device, features).map(|()| 0))
    }

    unsafe extern "C" fn bus_name(vdev: *mut bindings::virtio_device) -> *const c_char {
        // SAFETY: By the contract of the table.
        unsafe { Self::of(vdev) }.bus_name().as_char_ptr()
    }

    unsafe extern "C" fn get_shm_region(
        vdev: *mut bindings::virtio_device,
        region: *mut bindings::virtio_shm_region,
        id: u8,
    ) -> bool {
        // SAFETY: By the contract of the table.
        let Some(found) = (unsafe { Self::of(vdev) }).shared_memory(id) else {
            return false;
        };

        // SAFETY: By the contract of the table `region` is the caller's.
        unsafe {
            (*region).addr = found.address;
            (*region).len = found.length;
        }
        true
    }

    unsafe extern "C" fn disable_vq_and_reset(vq: *mut bindings::virtqueue) -> c_int {
        // SAFETY: By the contract of the table.
        let queue = unsafe { Virtqueue::from_raw(vq) };
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(queue.device()) };

        from_result(|| {
            transport.reset_queue(device, queue)?;
            queue.set_reset(true);
            Ok(0)
        })
    }

    unsafe extern "C" fn enable_vq_after_reset(vq: *mut bindings::virtqueue) -> c_int {
        // SAFETY: By the contract of the table.
        let queue = unsafe { Virtqueue::from_raw(vq) };
        // SAFETY: By the contract of the table.
        let (device, transport) = unsafe { Shell::<T>::parts(queue.device()) };

        from_result(|| {
            if !queue.is_reset() {
                return Err(EBUSY);
            }
            transport.restart_queue(device, queue)?;
            queue.set_reset(false);
            Ok(0)
        })
    }

    unsafe extern "C" fn set_vq_affinity(
        vq: *mut bindings::virtqueue,
        cpus: *const bindings::cpumask,
    ) -> c_int {
        // SAFETY: By the contract of the table.
        let queue = unsafe { Virtqueue::from_raw(vq) };
        // SAFETY: By the contract of the table.
        let transport = unsafe { Self::of(queue.device()) };
        let cpus = match cpus.is_null() {
            true => None,
            // SAFETY: By the contract of the table the mask is the caller's.
            false => Some(unsafe { Cpumask::from_raw(cpus) }),
        };

        from_result(|| transport.set_queue_affinity(queue, cpus).map(|()| 0))
    }

    unsafe extern "C" fn get_vq_affinity(
        vdev: *mut bindings::virtio_device,
        index: c_int,
    ) -> *const bindings::cpumask {
        // SAFETY: By the contract of the table.
        let transport = unsafe { Self::of(vdev) };

        match u32::try_from(index) {
            // CAST: `Cpumask` is a transparent wrapper.
            Ok(index) => transport.queue_affinity(index).cast(),
            Err(_) => core::ptr::null(),
        }
    }
}
