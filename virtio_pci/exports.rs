// SPDX-License-Identifier: GPL-2.0

//! The C functions of this module, and nothing else.
//!
//! Their contracts are those of `include/linux/virtio_pci_admin.h`: `pdev` is a virtual function
//! that the caller drives, and the caller serialises what it does with it. All may sleep, and all
//! pointers are valid. Those that return a number return 0 or a negative errno.

#![allow(
    clippy::missing_safety_doc,
    reason = "the contracts are those of the C header"
)]

use super::admin::{
    self,
    layout::{
        Object,
        METADATA_SIZE,
        PARTS_ALL, //
    },
    Admin, //
};
use crate::{
    kernel_ext::{
        pci_iov::Function,
        sg_pieces::ForeignList, //
    },
    virtio::{
        bindings::{
            pci_dev,
            scatterlist, //
        },
        export::export_symbol_gpl, //
    },
};

use kernel::{
    error::from_result,
    pci,
    prelude::*,
    sync::Arc, //
};

export_symbol_gpl! {
    virtio_pci_admin_has_dev_parts,
    virtio_pci_admin_mode_set,
    virtio_pci_admin_obj_create,
    virtio_pci_admin_obj_destroy,
    virtio_pci_admin_dev_parts_metadata_get,
    virtio_pci_admin_dev_parts_get,
    virtio_pci_admin_dev_parts_set,
}

/// A virtual function whose physical function this driver is bound to.
struct Member<'a> {
    function: Function<'a>,
    admin: Arc<Admin>,
}

impl Member<'_> {
    /// The one that a caller drives, if it is one.
    ///
    /// # Safety
    ///
    /// `pdev` must be valid as long as the result.
    unsafe fn find(pdev: *mut pci_dev) -> Option<Self> {
        // SAFETY: By the requirements above; `pci::Device` is a transparent wrapper.
        let function = Function::new(unsafe { &*pdev.cast::<pci::Device>() })?;
        let admin = admin::find(&function)?;

        Some(Self { function, admin })
    }

    /// What its physical function calls it: virtual functions are counted from 1 on.
    fn number(&self) -> Result<u64> {
        Ok(u64::from(self.function.number()?) + 1)
    }
}

/// Does something with the virtual function that a caller drives; 0 or a negative errno.
///
/// # Safety
///
/// `pdev` must be valid.
unsafe fn with_member(pdev: *mut pci_dev, step: impl FnOnce(&Member<'_>, u64) -> Result) -> c_int {
    from_result(|| {
        // SAFETY: By the requirements above.
        let member = unsafe { Member::find(pdev) }.ok_or(ENODEV)?;

        step(&member, member.number()?).map(|()| 0)
    })
}

/// Tells whether parts of its state can be read and written.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_pci_admin_has_dev_parts(pdev: *mut pci_dev) -> bool {
    // SAFETY: By the contract of the function.
    unsafe { Member::find(pdev) }.is_some_and(|member| member.admin.has_parts())
}

/// Stops it, or lets it go on.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_pci_admin_mode_set(pdev: *mut pci_dev, flags: u8) -> c_int {
    // SAFETY: By the contract of the function.
    unsafe { with_member(pdev, |member, number| member.admin.set_mode(number, flags)) }
}

/// Creates an object that parts of its state are read or written with.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_pci_admin_obj_create(
    pdev: *mut pci_dev,
    obj_type: u16,
    operation_type: u8,
    obj_id: *mut u32,
) -> c_int {
    let create = |member: &Member<'_>, number| {
        let id = member
            .admin
            .create_object(number, obj_type, operation_type)?;

        // SAFETY: By the contract of the function.
        unsafe { obj_id.write(id) };
        Ok(())
    };

    // SAFETY: By the contract of the function.
    unsafe { with_member(pdev, create) }
}

/// Destroys one.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_pci_admin_obj_destroy(
    pdev: *mut pci_dev,
    obj_type: u16,
    id: u32,
) -> c_int {
    let destroy = |member: &Member<'_>, number| member.admin.destroy_object(number, obj_type, id);

    // SAFETY: By the contract of the function.
    unsafe { with_member(pdev, destroy) }
}

/// Says how large all parts of its state are.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_pci_admin_dev_parts_metadata_get(
    pdev: *mut pci_dev,
    obj_type: u16,
    id: u32,
    metadata_type: u8,
    out: *mut u32,
) -> c_int {
    let get = |member: &Member<'_>, number| {
        if metadata_type != METADATA_SIZE {
            return Err(EOPNOTSUPP);
        }
        let size = member
            .admin
            .parts_size(number, Object { kind: obj_type, id })?;

        // SAFETY: By the contract of the function.
        unsafe { out.write(size) };
        Ok(())
    };

    // SAFETY: By the contract of the function.
    unsafe { with_member(pdev, get) }
}

/// Reads all parts of its state.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_pci_admin_dev_parts_get(
    pdev: *mut pci_dev,
    obj_type: u16,
    id: u32,
    get_type: u8,
    res_sg: *mut scatterlist,
    res_size: *mut u32,
) -> c_int {
    let get = |member: &Member<'_>, number| {
        if get_type != PARTS_ALL {
            return Err(EOPNOTSUPP);
        }
        let object = Object { kind: obj_type, id };
        // SAFETY: By the contract of the function.
        let list = unsafe { ForeignList::new(res_sg) };
        let size = u32::try_from(member.admin.read_parts(number, object, &list)?)?;

        // SAFETY: By the contract of the function.
        unsafe { res_size.write(size) };
        Ok(())
    };

    // SAFETY: By the contract of the function.
    unsafe { with_member(pdev, get) }
}

/// Writes parts of its state.
#[no_mangle]
pub(crate) unsafe extern "C" fn virtio_pci_admin_dev_parts_set(
    pdev: *mut pci_dev,
    data_sg: *mut scatterlist,
) -> c_int {
    let set = |member: &Member<'_>, number| {
        // SAFETY: By the contract of the function.
        let list = unsafe { ForeignList::new(data_sg) };

        member.admin.write_parts(number, &list)
    };

    // SAFETY: By the contract of the function.
    unsafe { with_member(pdev, set) }
}

/// Those for its legacy interface.
#[cfg(CONFIG_VIRTIO_PCI_ADMIN_LEGACY)]
mod legacy {
    use super::*;
    use crate::{
        kernel_ext::pci_io,
        pci::admin::{
            layout::Opcode,
            legacy_layout::Holder, //
        },
    };

    use core::slice;

    export_symbol_gpl! {
        virtio_pci_admin_has_legacy_io,
        virtio_pci_admin_legacy_common_io_write,
        virtio_pci_admin_legacy_common_io_read,
        virtio_pci_admin_legacy_device_io_write,
        virtio_pci_admin_legacy_device_io_read,
        virtio_pci_admin_legacy_io_notify_info,
    }

    /// Tells whether it can be reached.
    #[no_mangle]
    pub(crate) unsafe extern "C" fn virtio_pci_admin_has_legacy_io(pdev: *mut pci_dev) -> bool {
        // SAFETY: By the contract of the function.
        unsafe { Member::find(pdev) }.is_some_and(|member| member.admin.has_legacy())
    }

    /// # Safety
    ///
    /// `pdev` must be valid, and `buf` have `size` bytes.
    unsafe fn write(
        pdev: *mut pci_dev,
        opcode: Opcode,
        offset: u8,
        size: u8,
        buf: *const u8,
    ) -> c_int {
        let write = |member: &Member<'_>, number| {
            // SAFETY: By the requirements above.
            let bytes = unsafe { slice::from_raw_parts(buf, size.into()) };

            member.admin.write_legacy(opcode, number, offset, bytes)
        };

        // SAFETY: By the requirements above.
        unsafe { with_member(pdev, write) }
    }

    /// # Safety
    ///
    /// As for [`write`].
    unsafe fn read(
        pdev: *mut pci_dev,
        opcode: Opcode,
        offset: u8,
        size: u8,
        buf: *mut u8,
    ) -> c_int {
        let read = |member: &Member<'_>, number| {
            // SAFETY: By the requirements above.
            let bytes = unsafe { slice::from_raw_parts_mut(buf, size.into()) };

            member.admin.read_legacy(opcode, number, offset, bytes)
        };

        // SAFETY: By the requirements above.
        unsafe { with_member(pdev, read) }
    }

    /// Writes to the common configuration.
    #[no_mangle]
    pub(crate) unsafe extern "C" fn virtio_pci_admin_legacy_common_io_write(
        pdev: *mut pci_dev,
        offset: u8,
        size: u8,
        buf: *mut u8,
    ) -> c_int {
        // SAFETY: By the contract of the function.
        unsafe { write(pdev, Opcode::LegacyCommonWrite, offset, size, buf) }
    }

    /// Reads the common configuration.
    #[no_mangle]
    pub(crate) unsafe extern "C" fn virtio_pci_admin_legacy_common_io_read(
        pdev: *mut pci_dev,
        offset: u8,
        size: u8,
        buf: *mut u8,
    ) -> c_int {
        // SAFETY: By the contract of the function.
        unsafe { read(pdev, Opcode::LegacyCommonRead, offset, size, buf) }
    }

    /// Writes to the device configuration.
    #[no_mangle]
    pub(crate) unsafe extern "C" fn virtio_pci_admin_legacy_device_io_write(
        pdev: *mut pci_dev,
        offset: u8,
        size: u8,
        buf: *mut u8,
    ) -> c_int {
        // SAFETY: By the contract of the function.
        unsafe { write(pdev, Opcode::LegacyDeviceWrite, offset, size, buf) }
    }

    /// Reads the device configuration.
    #[no_mangle]
    pub(crate) unsafe extern "C" fn virtio_pci_admin_legacy_device_io_read(
        pdev: *mut pci_dev,
        offset: u8,
        size: u8,
        buf: *mut u8,
    ) -> c_int {
        // SAFETY: By the contract of the function.
        unsafe { read(pdev, Opcode::LegacyDeviceRead, offset, size, buf) }
    }

    /// Says where notifications of its queues go, in a BAR of its own or of its physical function.
    #[no_mangle]
    pub(crate) unsafe extern "C" fn virtio_pci_admin_legacy_io_notify_info(
        pdev: *mut pci_dev,
        req_bar_flags: u8,
        bar: *mut u8,
        bar_offset: *mut u64,
    ) -> c_int {
        let info = |member: &Member<'_>, number| {
            let holder = Holder::from_flags(req_bar_flags).ok_or(ENOENT)?;
            let device = match holder {
                Holder::Owner => member.function.owner(),
                Holder::Member => member.function.device(),
            };
            let found = member
                .admin
                .notification(number, holder, |bar| pci_io::bar_len(device, bar))?;

            // SAFETY: By the contract of the function.
            unsafe { bar.write(found.bar) };
            // SAFETY: By the contract of the function.
            unsafe { bar_offset.write(found.offset) };
            Ok(())
        };

        // SAFETY: By the contract of the function.
        unsafe { with_member(pdev, info) }
    }
}
