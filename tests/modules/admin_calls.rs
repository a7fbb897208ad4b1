// SPDX-License-Identifier: GPL-2.0

//! Calls the functions that `virtio_pci` exports, for a shell.
//!
//! Whoever opens `/dev/admin_calls` writes a line and reads what came of it: what the function
//! returned, then what it gave. A line is the place of a virtual function on bus 0 (device and
//! function number), the name of a function without `virtio_pci_admin_`, and its arguments; bytes
//! are in hexadecimal. Scatter lists have entries of an odd length.

/// The shared sources, as far as they are needed here.
#[path = "../../virtio"]
pub mod virtio {
    pub mod bindings;
}

use crate::virtio::bindings::{
    self,
    pci_dev,
    scatterlist, //
};

use core::{
    fmt::Write,
    str::SplitAsciiWhitespace, //
};
use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

module! {
    type: Module,
    name: "admin_calls",
    authors: ["The virtio-rust developers"],
    description: "Calls the functions that virtio_pci exports",
    license: "GPL",
}

/// The arguments of a call.
struct Arguments<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Arguments<'a> {
    fn word(&mut self) -> Result<&'a str> {
        self.0.next().ok_or(EINVAL)
    }

    fn number<T: core::str::FromStr>(&mut self) -> Result<T> {
        self.word()?.parse().map_err(|_| EINVAL)
    }

    /// Bytes in hexadecimal.
    fn bytes(&mut self) -> Result<KVec<u8>> {
        let text = self.word()?;
        let mut bytes = KVec::new();

        for at in (0..text.len()).step_by(2) {
            let digits = text.get(at..at + 2).ok_or(EINVAL)?;
            let byte = u8::from_str_radix(digits, 16).map_err(|_| EINVAL)?;

            bytes.push(byte, GFP_KERNEL)?;
        }
        Ok(bytes)
    }
}

/// Memory with a scatter list of many entries.
struct Memory {
    pieces: KVec<KVec<u8>>,
    list: KVec<scatterlist>,
}

impl Memory {
    /// How long an entry is.
    const PIECE: usize = 1777;

    fn new(contents: &[u8]) -> Result<Self> {
        let mut this = Self {
            pieces: KVec::new(),
            list: KVec::new(),
        };

        for part in contents.chunks(Self::PIECE) {
            let mut piece = KVec::new();
            let mut entry = scatterlist::default();

            piece.extend_from_slice(part, GFP_KERNEL)?;
            // SAFETY: `entry` is one; the piece is that long, and stays where it is.
            unsafe { bindings::sg_init_one(&mut entry, piece.as_ptr().cast(), part.len() as u32) };
            if let Some(last) = this.list.last_mut() {
                last.page_link &= !(bindings::SG_END as c_ulong);
            }
            this.pieces.push(piece, GFP_KERNEL)?;
            this.list.push(entry, GFP_KERNEL)?;
        }
        Ok(this)
    }
}

/// Bytes in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is read.
struct Text(KVec<u8>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0
            .extend_from_slice(text.as_bytes(), GFP_KERNEL)
            .map_err(|_| core::fmt::Error)
    }
}

/// Makes a call.
fn call(pdev: *mut pci_dev, name: &str, arguments: &mut Arguments<'_>, to: &mut Text) -> Result {
    let args = arguments;

    // SAFETY: `pdev` is valid, and whatever else is given to the functions, too.
    let text = unsafe {
        match name {
            "has_legacy_io" => write!(to, "{}", bindings::virtio_pci_admin_has_legacy_io(pdev)),
            "has_dev_parts" => write!(to, "{}", bindings::virtio_pci_admin_has_dev_parts(pdev)),
            "legacy_common_io_write" | "legacy_device_io_write" => {
                let (at, mut bytes) = (args.number()?, args.bytes()?);
                let function = match name {
                    "legacy_common_io_write" => bindings::virtio_pci_admin_legacy_common_io_write,
                    _ => bindings::virtio_pci_admin_legacy_device_io_write,
                };

                write!(
                    to,
                    "{}",
                    function(pdev, at, bytes.len() as u8, bytes.as_mut_ptr())
                )
            }
            "legacy_common_io_read" | "legacy_device_io_read" => {
                let (at, len) = (args.number()?, args.number()?);
                let mut bytes = KVec::from_elem(0xee, usize::from(len) + 1, GFP_KERNEL)?;
                let function = match name {
                    "legacy_common_io_read" => bindings::virtio_pci_admin_legacy_common_io_read,
                    _ => bindings::virtio_pci_admin_legacy_device_io_read,
                };
                let ret = function(pdev, at, len, bytes.as_mut_ptr());

                write!(to, "{ret} {}", Hex(&bytes))
            }
            "legacy_io_notify_info" => {
                let (mut bar, mut offset) = (0xee, 0xee);
                let flags = args.number()?;
                let ret = bindings::virtio_pci_admin_legacy_io_notify_info(
                    pdev,
                    flags,
                    &mut bar,
                    &mut offset,
                );

                write!(to, "{ret} {bar} {offset}")
            }
            _ => return call_parts(pdev, name, args, to),
        }
    };

    text.map_err(|_| ENOMEM)
}

/// Makes a call that is about parts of states.
fn call_parts(pdev: *mut pci_dev, name: &str, args: &mut Arguments<'_>, to: &mut Text) -> Result {
    // SAFETY: As in `call`.
    let text = unsafe {
        match name {
            "mode_set" => write!(
                to,
                "{}",
                bindings::virtio_pci_admin_mode_set(pdev, args.number()?)
            ),
            "obj_create" => {
                let (kind, op, mut id) = (args.number()?, args.number()?, 0xee);
                let ret = bindings::virtio_pci_admin_obj_create(pdev, kind, op, &mut id);

                write!(to, "{ret} {id}")
            }
            "obj_destroy" => {
                let (kind, id) = (args.number()?, args.number()?);

                write!(
                    to,
                    "{}",
                    bindings::virtio_pci_admin_obj_destroy(pdev, kind, id)
                )
            }
            "dev_parts_metadata_get" => {
                let (kind, id, metadata) = (args.number()?, args.number()?, args.number()?);
                let mut out = 0xee;
                let ret = bindings::virtio_pci_admin_dev_parts_metadata_get(
                    pdev, kind, id, metadata, &mut out,
                );

                write!(to, "{ret} {out}")
            }
            "dev_parts_get" => {
                let (kind, id, get) = (args.number()?, args.number()?, args.number()?);
                let mut memory = Memory::new(&KVec::from_elem(0xee, args.number()?, GFP_KERNEL)?)?;
                let (list, mut size) = (memory.list.as_mut_ptr(), 0xee);
                let ret =
                    bindings::virtio_pci_admin_dev_parts_get(pdev, kind, id, get, list, &mut size);

                write!(to, "{ret} {size} ").and_then(|()| {
                    let mut pieces = memory.pieces.iter();

                    pieces.try_for_each(|piece| write!(to, "{}", Hex(piece)))
                })
            }
            "dev_parts_set" => {
                let mut memory = Memory::new(&args.bytes()?)?;

                write!(
                    to,
                    "{}",
                    bindings::virtio_pci_admin_dev_parts_set(pdev, memory.list.as_mut_ptr())
                )
            }
            _ => return Err(EINVAL),
        }
    };

    text.map_err(|_| ENOMEM)
}

/// An open file.
#[pin_data]
struct Caller {
    #[pin]
    text: Mutex<Text>,
}

impl Caller {
    fn obey(line: &[u8]) -> Result<Text> {
        let line = core::str::from_utf8(line).map_err(|_| EINVAL)?;
        let mut arguments = Arguments(line.split_ascii_whitespace());
        let devfn = arguments.number()?;
        let name = arguments.word()?;
        let mut text = Text(KVec::new());
        // SAFETY: The function gives a reference to a device, or null.
        let pdev = unsafe { bindings::pci_get_domain_bus_and_slot(0, 0, devfn) };

        if pdev.is_null() {
            return Err(ENXIO);
        }
        let called = call(pdev, name, &mut arguments, &mut text);

        // SAFETY: The reference is ours.
        unsafe { bindings::pci_dev_put(pdev) };
        called.map(|()| text)
    }
}

#[vtable]
impl MiscDevice for Caller {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        KBox::pin_init(
            pin_init!(Self {
                text <- new_mutex!(Text(KVec::new())),
            }),
            GFP_KERNEL,
        )
    }

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut line = KVec::new();
        let len = from.copy_from_iter_vec(&mut line, GFP_KERNEL)?;

        *kiocb.file().text.lock() = Self::obey(&line)?;
        Ok(len)
    }

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let caller = kiocb.file();
        let text = caller.text.lock();

        to.simple_read_from_buffer(kiocb.ki_pos_mut(), &text.0)
    }
}

#[pin_data]
struct Module {
    #[pin]
    device: MiscDeviceRegistration<Caller>,
}

impl kernel::InPlaceModule for Module {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            device <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"admin_calls",
            }),
        }? Error)
    }
}
