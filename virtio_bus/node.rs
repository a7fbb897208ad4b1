// SPDX-License-Identifier: GPL-2.0

//! A device's node in a device tree: the only child of its transport's node, if it is compatible
//! with `virtio,device<type>`. Elsewhere there are no nodes, and nothing happens here.

use super::device::VirtioDevice;
use crate::virtio::bindings::{
    self,
    device_node,
    fwnode_handle, //
};

use core::ptr::null_mut;
use kernel::{
    container_of,
    prelude::*,
    str::CString,
    warn_on, //
};

/// A node with a reference.
///
/// # Invariants
///
/// The pointer is valid, and this owns a reference.
struct Child(*mut fwnode_handle);

impl Child {
    /// The next available child of `parent` behind `before`, or the first one.
    ///
    /// # Safety
    ///
    /// `parent` must be valid.
    unsafe fn next(parent: *const fwnode_handle, before: Option<Self>) -> Option<Self> {
        // The reference to `before` goes over to the function.
        let before = before.map_or(null_mut(), Self::into_raw);
        // SAFETY: By the safety requirements; `before` is a child of it, or null.
        let child = unsafe { bindings::fwnode_get_next_available_child_node(parent, before) };

        // INVARIANT: The function gives a reference with the pointer.
        (!child.is_null()).then(|| Self(child))
    }

    /// The pointer, whose reference the caller owns now.
    fn into_raw(self) -> *mut fwnode_handle {
        let raw = self.0;

        core::mem::forget(self);
        raw
    }

    /// Tells whether the node is of a device of this type.
    fn is_compatible(&self, device: u32) -> Result<bool> {
        let name = CString::try_from_fmt(fmt!("virtio,device{device:x}"))?;
        // SAFETY: By the type invariants; both strings end with a NUL.
        let place = unsafe {
            bindings::fwnode_property_match_string(
                self.0,
                c"compatible".as_char_ptr(),
                name.as_char_ptr(),
            )
        };

        Ok(place >= 0)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::fwnode_handle_put(self.0) };
    }
}

/// Finds the node of a device that is about to be registered; [`detach`] gives it back.
///
/// # Errors
///
/// `EINVAL` if there is more than one child, `ENOMEM`.
///
/// # Context
///
/// May sleep.
pub(super) fn attach(device: &VirtioDevice) -> Result {
    // SAFETY: A valid device, whose transport set its parent.
    let parent = unsafe { (*device.as_dev()).parent };
    if parent.is_null() {
        return Ok(());
    }
    // SAFETY: The parent outlives its children.
    let node = unsafe { (*parent).of_node };
    if node.is_null() {
        return Ok(());
    }
    // SAFETY: The node of a device is valid; only an address is formed.
    let node = unsafe { &raw const (*node).fwnode };
    // SAFETY: As above.
    let Some(child) = (unsafe { Child::next(node, None) }) else {
        return Ok(());
    };
    // SAFETY: A child of the same node, with a reference of its own.
    let again = Child(unsafe { bindings::fwnode_handle_get(child.0) });
    // SAFETY: As above.
    let second = unsafe { Child::next(node, Some(again)) };
    if warn_on!(second.is_some()) {
        return Err(EINVAL);
    }
    if child.is_compatible(device.id().device)? {
        // SAFETY: Children of a device tree node are such nodes.
        let node = unsafe { container_of!(child.into_raw(), device_node, fwnode) };

        // SAFETY: Nobody else uses the device yet. The reference goes over to it.
        unsafe { (*device.as_dev()).of_node = node };
    }
    Ok(())
}

/// The node of a device, with the reference that [`attach`] left it.
pub(super) struct Attached(*mut device_node);

/// Takes the node from a device that goes; the reference ends when the value is dropped, which must
/// be when the device is registered no more.
pub(super) fn detach(device: &VirtioDevice) -> Attached {
    // SAFETY: A valid device.
    Attached(unsafe { (*device.as_dev()).of_node })
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: `attach` left a reference; only an address is formed before.
            unsafe { bindings::fwnode_handle_put(&raw mut (*self.0).fwnode) };
        }
    }
}
