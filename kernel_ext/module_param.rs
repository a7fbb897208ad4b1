// SPDX-License-Identifier: GPL-2.0

//! Module parameters that may be given several times, or are on or off, or have a text of their
//! own, and that can be read in sysfs, or written there as well.
//!
//! The kernel crate has parameters with one value each, which cannot be read. C header:
//! `include/linux/moduleparam.h`.

use core::{
    cell::UnsafeCell,
    fmt,
    marker::PhantomData,
    slice,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};
use kernel::{
    bindings,
    error::from_result,
    page::PAGE_SIZE,
    prelude::*,
    ThisModule, //
};

/// A parameter: what all its values make together.
pub trait Parameter: Send {
    /// Takes one value.
    ///
    /// # Errors
    ///
    /// Any error is logged; a module is not loaded then, and its initialisation never called. A
    /// later write fails with it.
    ///
    /// # Context
    ///
    /// May sleep. Before the initialisation of the module, and at any time later if the file in
    /// sysfs may be written.
    fn set(&mut self, value: &CStr) -> Result;

    /// Writes what a read in sysfs gives.
    fn show(&self, page: &mut Page<'_>);
}

/// A page of text; what does not fit is left out.
pub struct Page<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl Page<'_> {
    /// Appends text; one byte of the page stays free.
    pub fn print(&mut self, text: fmt::Arguments<'_>) {
        // Text that does not fit is no error.
        let _ = fmt::Write::write_fmt(self, text);
    }

    /// Appends a NUL, for which there is always room.
    pub fn end(&mut self) {
        self.append(b"\0", PAGE_SIZE);
    }

    fn append(&mut self, text: &[u8], limit: usize) {
        for (place, byte) in self.bytes[..limit].iter_mut().skip(self.used).zip(text) {
            *place = *byte;
            self.used += 1;
        }
    }
}

impl fmt::Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes(), PAGE_SIZE - 1);
        Ok(())
    }
}

/// The memory of a parameter, for a `static`; see [`module_parameter`].
pub struct Cell<T>(UnsafeCell<T>);

// SAFETY: Every access is under the lock of the module's parameters, and `T` is `Send`.
unsafe impl<T: Parameter> Sync for Cell<T> {}

impl<T: Parameter> Cell<T> {
    /// A parameter that was not given yet.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Uses the parameter.
    ///
    /// # Context
    ///
    /// May sleep. Not from [`Parameter::set`] or [`Parameter::show`].
    pub fn with<R>(&self, module: &ThisModule, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: The module exists.
        unsafe { bindings::kernel_param_lock(module.as_ptr()) };
        // SAFETY: The kernel holds this lock when it calls the functions of `Ops`.
        let result = f(unsafe { &mut *self.0.get() });

        // SAFETY: Locked above.
        unsafe { bindings::kernel_param_unlock(module.as_ptr()) };
        result
    }
}

/// The functions of `struct kernel_param_ops`.
#[doc(hidden)]
pub struct Ops<T>(PhantomData<T>);

impl<T: Parameter> Ops<T> {
    /// The table for a parameter whose argument is a `Cell<T>`.
    pub const TABLE: bindings::kernel_param_ops = bindings::kernel_param_ops {
        flags: 0,
        set: Some(Self::set),
        get: Some(Self::get),
        free: None,
    };

    /// # Safety
    ///
    /// `param` must be a parameter whose argument is a `Cell<T>`.
    unsafe fn of(param: *const bindings::kernel_param) -> *mut T {
        // SAFETY: By the requirements above.
        let cell = unsafe { (*param).__bindgen_anon_1.arg }.cast::<Cell<T>>();

        // SAFETY: By the requirements above.
        unsafe { &*cell }.0.get()
    }

    /// # Safety
    ///
    /// Called only by the kernel, with the module's parameters locked.
    unsafe extern "C" fn set(value: *const c_char, param: *const bindings::kernel_param) -> c_int {
        // SAFETY: By the requirements above; without `KERNEL_PARAM_OPS_FL_NOARG` there is a value.
        let value = unsafe { CStr::from_char_ptr(value) };
        // SAFETY: By the requirements above nothing else uses it.
        let this = unsafe { &mut *Self::of(param) };

        from_result(|| this.set(value).map(|()| 0))
    }

    /// # Safety
    ///
    /// As for [`Self::set`].
    unsafe extern "C" fn get(buffer: *mut c_char, param: *const bindings::kernel_param) -> c_int {
        // SAFETY: The kernel gives a page, which is zeroed first.
        let bytes = unsafe {
            buffer.cast::<u8>().write_bytes(0, PAGE_SIZE);
            slice::from_raw_parts_mut(buffer.cast::<u8>(), PAGE_SIZE)
        };
        // SAFETY: By the requirements above nothing else uses it.
        let this = unsafe { &*Self::of(param) };
        let mut page = Page { bytes, used: 0 };

        this.show(&mut page);
        // CAST: At most a page.
        page.used as c_int
    }
}

/// A parameter that is on or off, which the kernel's own functions for a `bool` set; for a
/// `static`, see [`module_parameter`].
#[repr(transparent)]
pub struct Flag(AtomicBool);

impl Flag {
    /// A parameter that was not given yet.
    pub const fn off() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Tells whether it is on.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares a parameter that can be read in sysfs, of a module made with `module!` in the same
/// crate: its state, its name as a loaded module's and its name as a built-in one's.
///
/// Only root may read a [`Parameter`] without a mode, which is read, when built in, together with
/// the initialisation of devices; one with the mode of its file is read before all initialisation,
/// where `set` must not allocate. A `bool` is a [`Flag`], with the mode of its file, which must not
/// allow writing.
macro_rules! module_parameter {
    ($(#[$doc:meta])* $state:ident: bool, $name:literal, $builtin:literal, $mode:literal) => {
        $(#[$doc])*
        static $state: $crate::kernel_ext::module_param::Flag =
            $crate::kernel_ext::module_param::Flag::off();

        $crate::kernel_ext::module_param::module_parameter! {
            @entry $state, $name, $builtin, &raw const ::kernel::bindings::param_ops_bool, $mode, -1
        }
    };
    ($(#[$doc:meta])* $state:ident: $type:ty = $init:expr, $name:literal, $builtin:literal) => {
        $(#[$doc])*
        static $state: $crate::kernel_ext::module_param::Cell<$type> =
            $crate::kernel_ext::module_param::Cell::new($init);

        $crate::kernel_ext::module_param::module_parameter! {
            @entry $state, $name, $builtin,
            &$crate::kernel_ext::module_param::Ops::<$type>::TABLE, 0o400, 6
        }
    };
    (
        $(#[$doc:meta])* $state:ident: $type:ty = $init:expr,
        $name:literal, $builtin:literal, $mode:literal
    ) => {
        $(#[$doc])*
        static $state: $crate::kernel_ext::module_param::Cell<$type> =
            $crate::kernel_ext::module_param::Cell::new($init);

        $crate::kernel_ext::module_param::module_parameter! {
            @entry $state, $name, $builtin,
            &$crate::kernel_ext::module_param::Ops::<$type>::TABLE, $mode, -1
        }
    };
    (
        @entry $state:ident, $name:literal, $builtin:literal,
        $ops:expr, $mode:literal, $level:literal
    ) => {
        #[allow(unsafe_code, reason = "what the kernel expects in that section")]
        const _: () = {
            #[link_section = "__param"]
            #[used(compiler)]
            static PARAMETER: ::kernel::module_param::KernelParam =
                ::kernel::module_param::KernelParam::new(::kernel::bindings::kernel_param {
                    name: ::kernel::str::as_char_ptr_in_const_context(
                        if cfg!(MODULE) { $name } else { $builtin }
                    ),
                    #[cfg(MODULE)]
                    mod_: ::core::ptr::addr_of_mut!(::kernel::bindings::__this_module),
                    #[cfg(not(MODULE))]
                    mod_: ::core::ptr::null_mut(),
                    ops: $ops,
                    perm: $mode,
                    level: $level,
                    flags: 0,
                    __bindgen_anon_1: ::kernel::bindings::kernel_param__bindgen_ty_1 {
                        arg: ::core::ptr::from_ref(&$state).cast_mut().cast(),
                    },
                });
        };
    };
}
pub(crate) use module_parameter;
