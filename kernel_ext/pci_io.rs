// SPDX-License-Identifier: GPL-2.0

//! Registers of PCI devices, in memory or behind I/O ports.
//!
//! The kernel crate's `pci::Bar` maps whole BARs, and only memory. Here ranges of a BAR of either
//! kind are mapped, and accessed with `ioread8()` and the like. C headers: `include/linux/pci.h`,
//! `include/asm-generic/iomap.h`.

use super::{
    io_address::IoAddress,
    iomap, //
};

use core::{
    marker::PhantomData,
    ops::RangeInclusive, //
};
use kernel::{
    bindings,
    device::Bound,
    error::to_result,
    io::{
        IoBackend,
        IoBase,
        IoCapable,
        Region, //
    },
    pci,
    prelude::*,
    ptr::KnownSize,
    sync::Arc, //
};

/// The numbers of BARs that a device can have.
const BARS: RangeInclusive<u8> = 0..=5;

/// How many bytes a BAR has; 0 if there is none of that number, or if it has no place.
pub fn bar_len(dev: &pci::Device, bar: u8) -> u64 {
    // CAST: `IORESOURCE_UNSET` and its like are bits of an unsigned long.
    const USABLE: c_ulong = (bindings::IORESOURCE_IO | bindings::IORESOURCE_MEM) as c_ulong;

    if !BARS.contains(&bar) {
        return 0;
    }
    // SAFETY: The device is valid and has a resource for each BAR.
    let flags = unsafe { (*raw(dev)).resource[usize::from(bar)].flags };

    match flags & USABLE {
        0 => 0,
        _ => dev.resource_len(bar.into()).unwrap_or(0),
    }
}

/// BARs of a device that nothing else may claim, until this is dropped.
///
/// # Invariants
///
/// The BARs of the mask were requested.
pub struct Regions<'a> {
    dev: &'a pci::Device<Bound>,
    bars: c_int,
}

impl<'a> Regions<'a> {
    /// Claims BARs: bit `n` of `bars` stands for BAR `n`. `name` is for `/proc/iomem`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something else has one of them.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(dev: &'a pci::Device<Bound>, bars: u8, name: &'static CStr) -> Result<Arc<Self>> {
        let bars = c_int::from(bars);

        // SAFETY: The device is bound, and the name lives forever.
        to_result(unsafe {
            bindings::pci_request_selected_regions(raw(dev), bars, name.as_char_ptr())
        })?;
        // INVARIANT: Requested just now.
        Ok(Arc::new(Self { dev, bars }, GFP_KERNEL)?)
    }
}

impl Drop for Regions<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::pci_release_selected_regions(raw(self.dev), self.bars) };
    }
}

/// A range of a BAR that is mapped until this is dropped.
///
/// # Invariants
///
/// `address` is what `pci_iomap_range()` made of a range of `length` bytes, which begins at a
/// multiple of 4 and has `SIZE` bytes in whole words, if `SIZE` is not 0.
pub struct Mapping<'a, const SIZE: usize = 0> {
    regions: Arc<Regions<'a>>,
    address: *mut c_void,
    length: usize,
}

impl<'a, const SIZE: usize> Mapping<'a, SIZE> {
    /// Maps `length` bytes at `offset` of BAR number `bar`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the BAR was not claimed, if the range is empty or not all inside the BAR, or
    /// unfit for `SIZE`; `ENOMEM`.
    ///
    /// # Context
    ///
    /// May sleep.
    pub fn new(regions: &Arc<Regions<'a>>, bar: u8, offset: u64, length: usize) -> Result<Self> {
        let end = offset.checked_add(u64::try_from(length)?).ok_or(EINVAL)?;
        let claimed = BARS.contains(&bar) && regions.bars & (1 << bar) != 0;
        let fits = SIZE == 0 || (offset % 4 == 0 && length & !3 >= SIZE);

        if !claimed || !fits || length == 0 || end > bar_len(regions.dev, bar) {
            return Err(EINVAL);
        }
        let offset = usize::try_from(offset)?;
        // SAFETY: The device is bound, and the range is inside the BAR.
        let address =
            unsafe { bindings::pci_iomap_range(raw(regions.dev), bar.into(), offset, length) };

        if address.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Mapped just now.
        Ok(Self {
            regions: regions.clone(),
            address,
            length,
        })
    }

    /// How many bytes are mapped.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Where `length` bytes at `offset` are.
    fn place(&self, offset: usize, length: usize) -> Result<*mut c_void> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(self.address.wrapping_byte_add(offset)),
            _ => Err(EINVAL),
        }
    }

    /// Reads a byte.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not in the range.
    #[inline]
    pub fn get8(&self, offset: usize) -> Result<u8> {
        let address = self.place(offset, 1)?;

        // SAFETY: By the type invariant it is mapped.
        Ok(unsafe { iomap::ioread8(address) })
    }

    /// Reads a little-endian word of 16 bits; otherwise as [`Self::get8`].
    pub fn get16(&self, offset: usize) -> Result<u16> {
        let address = self.place(offset, 2)?;

        // SAFETY: By the type invariant it is mapped.
        Ok(unsafe { iomap::ioread16(address) })
    }

    /// Reads a little-endian word of 32 bits; otherwise as [`Self::get8`].
    pub fn get32(&self, offset: usize) -> Result<u32> {
        let address = self.place(offset, 4)?;

        // SAFETY: By the type invariant it is mapped.
        Ok(unsafe { iomap::ioread32(address) })
    }

    /// Writes a byte; otherwise as [`Self::get8`].
    pub fn put8(&self, value: u8, offset: usize) -> Result {
        let address = self.place(offset, 1)?;

        // SAFETY: By the type invariant it is mapped.
        unsafe { iomap::iowrite8(value, address) };
        Ok(())
    }

    /// Writes a word of 16 bits; otherwise as [`Self::get8`].
    pub fn put16(&self, value: u16, offset: usize) -> Result {
        let address = self.place(offset, 2)?;

        // SAFETY: By the type invariant it is mapped.
        unsafe { iomap::iowrite16(value, address) };
        Ok(())
    }

    /// Writes a word of 32 bits; otherwise as [`Self::get8`].
    pub fn put32(&self, value: u32, offset: usize) -> Result {
        let address = self.place(offset, 4)?;

        // SAFETY: By the type invariant it is mapped.
        unsafe { iomap::iowrite32(value, address) };
        Ok(())
    }
}

impl<const SIZE: usize> Drop for Mapping<'_, SIZE> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::pci_iounmap(raw(self.regions.dev), self.address) };
    }
}

// SAFETY: A mapping can be used and given up by any thread.
unsafe impl<const SIZE: usize> Send for Mapping<'_, SIZE> {}

// SAFETY: Accesses to registers may be done in parallel.
unsafe impl<const SIZE: usize> Sync for Mapping<'_, SIZE> {}

impl<'m, const SIZE: usize> IoBase<'m> for &'m Mapping<'_, SIZE> {
    type Backend = Backend;
    type Target = Region<SIZE>;

    #[inline]
    fn as_view(self) -> Window<'m, Region<SIZE>> {
        // INVARIANT: By the type invariant they are mapped, as long as this is borrowed.
        Window {
            registers: Region::ptr_from_raw_parts_mut(self.address.cast(), self.length & !3),
            mapping: PhantomData,
        }
    }
}

/// A register in a [`Mapping`], which it keeps.
///
/// # Invariants
///
/// `address` and the `length` bytes from there on are in the range.
pub struct Register<'a, const SIZE: usize = 0> {
    address: *mut c_void,
    length: usize,
    _mapping: Arc<Mapping<'a, SIZE>>,
}

impl<'a, const SIZE: usize> Register<'a, SIZE> {
    /// The register of `length` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not all in the range.
    pub fn new(mapping: Arc<Mapping<'a, SIZE>>, offset: usize, length: usize) -> Result<Self> {
        // INVARIANT: `place` has looked.
        Ok(Self {
            address: mapping.place(offset, length)?,
            length,
            _mapping: mapping,
        })
    }
}

// SAFETY: By the type invariant; the mapping stays as long as the value.
unsafe impl<const SIZE: usize> IoAddress for Register<'_, SIZE> {
    fn address(&self) -> *mut c_void {
        self.address
    }

    fn length(&self) -> usize {
        self.length
    }
}

// SAFETY: A register can be used by any thread.
unsafe impl<const SIZE: usize> Send for Register<'_, SIZE> {}

// SAFETY: As above.
unsafe impl<const SIZE: usize> Sync for Register<'_, SIZE> {}

/// Registers in a [`Mapping`].
///
/// # Invariants
///
/// `registers` are in a range that is mapped as long as `'a`, by their number of bytes.
pub struct Window<'a, T: ?Sized> {
    registers: *mut T,
    mapping: PhantomData<&'a ()>,
}

impl<T: ?Sized> Copy for Window<'_, T> {}

impl<T: ?Sized> Clone for Window<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

/// Access to [`Window`]s.
pub struct Backend;

impl<'a, T: ?Sized + KnownSize> IoBase<'a> for Window<'a, T> {
    type Backend = Backend;
    type Target = T;

    #[inline]
    fn as_view(self) -> Self {
        self
    }
}

impl IoBackend for Backend {
    type View<'a, T: ?Sized + KnownSize> = Window<'a, T>;

    #[inline]
    fn as_ptr<'a, T: ?Sized + KnownSize>(view: Window<'a, T>) -> *mut T {
        view.registers
    }

    #[inline]
    unsafe fn project_view<'a, T: ?Sized + KnownSize, U: ?Sized + KnownSize>(
        _view: Self::View<'a, T>,
        registers: *mut U,
    ) -> Self::View<'a, U> {
        // INVARIANT: By the requirements of this function they are a part of those of `_view`.
        Window {
            registers,
            mapping: PhantomData,
        }
    }
}

/// Values of one width.
macro_rules! io_capable {
    ($type:ty, $read:ident, $write:ident) => {
        impl IoCapable<$type> for Backend {
            #[inline]
            fn io_read(view: Window<'_, $type>) -> $type {
                // SAFETY: By the type invariant it is mapped.
                unsafe { iomap::$read(view.registers.cast()) }
            }

            #[inline]
            fn io_write(view: Window<'_, $type>, value: $type) {
                // SAFETY: By the type invariant it is mapped.
                unsafe { iomap::$write(value, view.registers.cast()) }
            }
        }
    };
}

io_capable!(u8, ioread8, iowrite8);
io_capable!(u16, ioread16, iowrite16);
io_capable!(u32, ioread32, iowrite32);

fn raw(dev: &pci::Device) -> *mut bindings::pci_dev {
    // CAST: `pci::Device` is a transparent wrapper.
    core::ptr::from_ref(dev).cast_mut().cast()
}
