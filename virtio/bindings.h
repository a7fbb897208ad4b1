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
#include <linux/virtio_ring.h>
#include <xen/xen.h>
