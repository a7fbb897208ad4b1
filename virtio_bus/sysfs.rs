// SPDX-License-Identifier: GPL-2.0

//! The files that each device of the bus has in sysfs; `text.rs` says what stands in them.

use super::{
    device::VirtioDevice,
    text::{
        self,
        Text, //
    },
};
use crate::virtio::bindings::{
    attribute,
    attribute_group,
    attribute_group__bindgen_ty_2,
    device,
    device_attribute, //
};

use core::{
    ffi::CStr,
    ptr::{
        null,
        null_mut, //
    },
};
use kernel::{
    ffi::c_char,
    str::as_char_ptr_in_const_context, //
};

/// Something in static memory that the driver core only reads, and that is never changed.
#[repr(transparent)]
struct Static<T>(T);

// SAFETY: Nobody writes to it, and what its pointers lead to is of the same kind.
unsafe impl<T> Sync for Static<T> {}

type Show = unsafe extern "C" fn(*mut device, *mut device_attribute, *mut c_char) -> isize;

/// A file that all may read.
const fn file(name: &'static CStr, show: Show) -> Static<device_attribute> {
    let mut file: device_attribute = pin_init::zeroed();

    file.attr.name = as_char_ptr_in_const_context(name);
    file.attr.mode = 0o444;
    file.__bindgen_anon_1.show = Some(show);
    Static(file)
}

static DEVICE: Static<device_attribute> = file(c"device", show_device);
static VENDOR: Static<device_attribute> = file(c"vendor", show_vendor);
static STATUS: Static<device_attribute> = file(c"status", show_status);
static MODALIAS: Static<device_attribute> = file(c"modalias", show_modalias);
static FEATURES: Static<device_attribute> = file(c"features", show_features);

static FILES: Static<[*mut attribute; 6]> = Static([
    (&raw const DEVICE.0.attr).cast_mut(),
    (&raw const VENDOR.0.attr).cast_mut(),
    (&raw const STATUS.0.attr).cast_mut(),
    (&raw const MODALIAS.0.attr).cast_mut(),
    (&raw const FEATURES.0.attr).cast_mut(),
    null_mut(),
]);

static GROUP: Static<attribute_group> = Static(attribute_group {
    __bindgen_anon_2: attribute_group__bindgen_ty_2 {
        attrs: (&raw const FILES.0).cast_mut().cast(),
    },
    ..pin_init::zeroed()
});

static LIST: Static<[*const attribute_group; 2]> = Static([&raw const GROUP.0, null()]);

/// What the bus takes as the attributes of its devices.
pub(super) const GROUPS: *const *const attribute_group = (&raw const LIST.0).cast();

/// Gives a text to sysfs; returns its length.
///
/// # Safety
///
/// `dev` is a device on the virtio bus, and `page` is what sysfs gives for a file of it.
unsafe fn show(
    dev: *mut device,
    page: *mut c_char,
    text: impl FnOnce(&VirtioDevice) -> Text,
) -> isize {
    // SAFETY: By the safety requirements.
    let text = text(unsafe { VirtioDevice::from_dev(dev) });
    let bytes = text.as_bytes();

    // SAFETY: sysfs gives a page, and a text is shorter than that.
    unsafe { page.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len()) };
    // CAST: A text has a hundred bytes or so.
    bytes.len() as isize
}

/// Declares the functions of the files.
macro_rules! shows {
    ($($name:ident: |$device:ident| $text:expr;)*) => {$(
        /// # Safety
        ///
        /// Called only by sysfs, for a file of a device on the virtio bus.
        unsafe extern "C" fn $name(
            dev: *mut device,
            _attribute: *mut device_attribute,
            page: *mut c_char,
        ) -> isize {
            // SAFETY: By the requirements above.
            unsafe { show(dev, page, |$device| $text) }
        }
    )*};
}

shows! {
    show_device: |device| text::id(device.id().device);
    show_vendor: |device| text::id(device.id().vendor);
    show_status: |device| text::status(device.status());
    show_modalias: |device| text::modalias(device.id());
    show_features: |device| text::features(device.features());
}
