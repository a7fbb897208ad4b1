// SPDX-License-Identifier: GPL-2.0

//! The structures of a device: found by its capabilities, then mapped.

#![deny(unsafe_code)]

use super::caps::{
    self,
    Capability,
    Kind,
    Need,
    Place, //
};
use crate::{
    kernel_ext::{
        pci_cap,
        pci_io::{
            self,
            Mapping,
            Regions,
            Register, //
        }, //
    },
    virtio::transport::SharedMemory,
};

use kernel::{
    dev_err,
    device::Bound,
    io::Io,
    page::PAGE_SIZE,
    pci,
    prelude::*,
    sync::Arc, //
};

/// How many capabilities a device usually has at most: one of each kind, and some.
const USUAL: usize = 8;

/// The vendor-specific capabilities of a device, as one walk over the list has found them.
pub(super) struct Capabilities<'a> {
    pci: &'a pci::Device<Bound>,
    /// Where each is, and how it begins, in the order of the list.
    heads: KVec<(usize, u32)>,
}

impl<'a> Capabilities<'a> {
    /// Walks over the list.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(pci: &'a pci::Device<Bound>) -> Result<Self> {
        let mut heads = KVec::with_capacity(USUAL, GFP_KERNEL)?;

        for at in pci_cap::vendor_specific(pci) {
            heads.push((at, word(pci, at)), GFP_KERNEL)?;
        }
        Ok(Self { pci, heads })
    }

    /// Looks for a structure: the first one of its kind that is good. Those in a BAR that does not
    /// exist are passed over. With it comes the multiplier of notifications.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are only bad ones, which are logged.
    pub(super) fn find(&self, need: Need) -> Result<Option<(Place, u32)>> {
        let mut bad = false;

        for capability in self.of_kind(need.kind) {
            let bar_len = pci_io::bar_len(self.pci, capability.bar());

            if bar_len == 0 {
                continue;
            }
            match good(self.pci, &capability, need, bar_len) {
                Some(place) => return Ok(Some((place, capability.multiplier()))),
                None => bad = true,
            }
        }
        match bad {
            true => Err(EINVAL),
            false => Ok(None),
        }
    }

    /// Looks for a structure that must be there.
    ///
    /// # Errors
    ///
    /// As for [`Self::find`]; `EINVAL` if there is none, which is logged.
    pub(super) fn required(&self, need: Need) -> Result<(Place, u32)> {
        self.find(need)?.ok_or_else(|| {
            dev_err!(
                self.pci,
                "virtio_pci: missing capability: {}\n",
                need.kind.name()
            );
            EINVAL
        })
    }

    /// Looks for a shared memory region (Virtio 1.4, 4.1.4.7).
    pub(super) fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        const NEED: Need = Need {
            kind: Kind::SharedMemory,
            min: 1,
            align: 1,
        };
        let all = self.of_kind(NEED.kind);

        all.filter(|capability| capability.id() == id)
            .find_map(|capability| {
                let bar = capability.bar();
                let bar_len = pci_io::bar_len(self.pci, bar);

                if bar_len == 0 {
                    return None;
                }
                let place = good(self.pci, &capability, NEED, bar_len)?;
                let start = self.pci.resource_start(bar.into()).ok()?;

                Some(SharedMemory {
                    address: start.checked_add(place.offset)?,
                    length: place.length,
                })
            })
    }

    /// Those for structures of one kind.
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = Capability> + '_ {
        let heads = self.heads.iter();

        heads.filter_map(move |(at, head)| {
            Capability::read(*at, *head, kind, |at| word(self.pci, at))
        })
    }
}

/// Reads 32 bits of a configuration space; what cannot be read is as if there was no device.
fn word(pci: &pci::Device<Bound>, at: usize) -> u32 {
    pci.config_space().try_read32(at).unwrap_or(u32::MAX)
}

/// Where a structure is; if its capability makes no sense, nowhere, which is logged.
fn good(
    pci: &pci::Device<Bound>,
    capability: &Capability,
    need: Need,
    bar_len: u64,
) -> Option<Place> {
    capability
        .place(need, bar_len)
        .inspect_err(|mistake| {
            dev_err!(
                pci,
                "virtio_pci: a {} capability {}\n",
                need.kind.name(),
                mistake.text()
            );
        })
        .ok()
}

/// Maps a structure, but no more than `most` bytes of it.
///
/// # Errors
///
/// `EINVAL` if that cannot be, `ENOMEM`; both are logged.
pub(super) fn map<'bound, const SIZE: usize>(
    pci: &pci::Device<Bound>,
    regions: &Arc<Regions<'bound>>,
    place: Place,
    most: usize,
) -> Result<Mapping<'bound, SIZE>> {
    let length = usize::try_from(place.length).map_or(most, |length| length.min(most));

    Mapping::new(regions, place.bar, place.offset, length).inspect_err(|_| {
        dev_err!(
            pci,
            "virtio_pci: unable to map virtio {}@{} on bar {}\n",
            length,
            place.offset,
            place.bar
        );
    })
}

/// Where notifications go (Virtio 1.4, 4.1.4.4).
pub(super) struct Notifications<'bound> {
    pci: &'bound pci::Device<Bound>,
    regions: Arc<Regions<'bound>>,
    place: Place,
    multiplier: u32,
    /// All of it, if it is in one page; else each queue maps its own.
    whole: Option<Arc<Mapping<'bound>>>,
}

impl<'bound> Notifications<'bound> {
    /// Those of the structure at `place`.
    ///
    /// # Errors
    ///
    /// As for [`map`].
    pub(super) fn new(
        pci: &'bound pci::Device<Bound>,
        regions: &Arc<Regions<'bound>>,
        place: Place,
        multiplier: u32,
    ) -> Result<Self> {
        // CAST: As large as a page.
        const PAGE: u64 = PAGE_SIZE as u64;
        let whole = match place.length + place.offset % PAGE <= PAGE {
            true => Some(Arc::new(map(pci, regions, place, PAGE_SIZE)?, GFP_KERNEL)?),
            false => None,
        };

        Ok(Self {
            pci,
            regions: regions.clone(),
            place,
            multiplier,
            whole,
        })
    }

    /// The register for notifications of queue `index`, of `width` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not inside the structure, or not aligned, which is logged; `ENOMEM`.
    pub(super) fn register(
        &self,
        index: u32,
        queue_notify_off: u16,
        width: usize,
    ) -> Result<Register<'bound>> {
        let inside = caps::notification(
            self.place,
            queue_notify_off,
            self.multiplier,
            u64::try_from(width)?,
        );
        let Some(offset) = inside else {
            dev_err!(
                self.pci,
                "bad notification offset {} (x {}) for queue {} > {}\n",
                queue_notify_off,
                self.multiplier,
                index,
                self.place.length
            );
            return Err(EINVAL);
        };

        if let Some(whole) = &self.whole {
            return Register::new(whole.clone(), usize::try_from(offset)?, width);
        }
        let place = Place {
            offset: self.place.offset + offset,
            ..self.place
        };
        let mapping = Arc::new(map(self.pci, &self.regions, place, width)?, GFP_KERNEL)?;

        Register::new(mapping, 0, width)
    }
}
