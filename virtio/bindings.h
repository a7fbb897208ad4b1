/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads: the kernel's own headers, never a copy of them.
 *
 * Kbuild lists the items taken from here. All that the kernel crate binds
 * already comes from kernel::bindings, so that the types unify.
 */
#include <linux/balloon.h>
#include <linux/hw_random.h>
#include <linux/oom.h>
#include <linux/page_reporting.h>
#include <linux/virtio.h>
#include <linux/virtio_anchor.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci_admin.h>
#include <linux/virtio_ring.h>
#include <xen/xen.h>

/*
 * Constants that are too complicated for bindgen as macros. They are addresses
 * of the kernel; as unsigned numbers they would be too large for it as well.
 */
#ifdef CONFIG_ARM64
const long RUST_CONST_HELPER_VMEMMAP_START = VMEMMAP_START;
const long RUST_CONST_HELPER_PAGE_OFFSET = PAGE_OFFSET;
const long RUST_CONST_HELPER_PAGE_END = _PAGE_END(VA_BITS_MIN);
#endif
