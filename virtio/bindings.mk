# SPDX-License-Identifier: GPL-2.0
#
# Makes virtio_bindings.rs beside the objects of whoever includes this file.

virtio_bindings_folder := $(dir $(lastword $(MAKEFILE_LIST)))

# virtio/bindings.rs includes the generated file by this name.
export VIRTIO_BINDINGS := $(abspath $(obj))/virtio_bindings.rs

# Items that kernel::bindings lacks. The integer aliases are repeated because
# bindgen degrades unions whose members it cannot resolve.
virtio_bindings_types := virtio_device virtio_driver virtio_device_id \
	virtio_config_ops virtio_map virtio_map_ops virtqueue virtqueue_info \
	vq_callback_t virtio_shm_region vduse_vq_group vringh_config_ops \
	balloon_dev_info page_reporting_dev_info hwrng vring vring_desc(_t)? vring_avail(_t)? vring_used(_t)? \
	vring_used_elem(_t)? __virtio(16|32|64) \
	[us](8|16|32|64)_? __[us](8|16|32|64) __le(16|32|64) bool_ dma_addr_t gfp_t
virtio_bindings_functions := __register_virtio_driver unregister_virtio_driver \
	virtio_reset_device virtio_device_shutdown virtqueue_add_(sgs|(out|in)buf(_premapped)?) \
	virtqueue_(kick(_prepare)?|notify|poll|disable_cb|enable_cb(_prepare|_delayed)?) virtqueue_get_(buf|vring) virtqueue_detach_unused_buf \
	virtqueue_(reset|resize|dma_dev|(un)?map_.*) virtio_max_dma_size vring_create_virtqueue_map \
	virtqueue_is_broken virtqueue_get_vring_size balloon_page_alloc \
	balloon_page_list_enqueue balloon_page_list_dequeue \
	register_oom_notifier unregister_oom_notifier \
	hwrng_register hwrng_unregister \
	page_reporting_register page_reporting_unregister \
	virtio_break_device __virtio_unbreak_device \
	(un)?register_virtio_device virtio_config_(changed|driver_(en|dis)able) \
	virtio_device_(freeze|restore|reset_(prepare|done)) vring_(create|new|del)_virtqueue \
	vring_interrupt vring_transport_features vring_notification_data \
	virtqueue_get_(desc|avail|used)_addr \
	virtio_check_driver_offered_feature virtio_pci_admin_.* \
	virtio_debug_(init|exit|device_(init|exit|filter_features))
virtio_bindings_vars := VIRTIO_.* virtio_check_mem_acc_cb xen_domain_type \
	RUST_CONST_HELPER_.*

virtio_bindings_flags = \
	$(shell grep -Ev '^\#|^$$' $(srctree)/rust/bindgen_parameters) \
	--no-recursive-allowlist \
	$(foreach i,$(virtio_bindings_types),--allowlist-type '$i') \
	$(foreach i,$(virtio_bindings_functions),--allowlist-function '$i') \
	$(foreach i,$(virtio_bindings_vars),--allowlist-var '$i') \
	--raw-line 'pub(crate) use kernel::bindings::*;'

# libclang reads the flags of the kernel's C compiler; those that it does not
# know are left out by the kernel's own list for its bindings.
ifdef CONFIG_CC_IS_CLANG
virtio_bindings_cflags = $(c_flags)
else
virtio_bindings_skip := $(shell sed -n \
	'/^bindgen_skip_c_flags :=/,/[^\\]$$/{s/.*:=//;s/\\$$//;p}' \
	$(srctree)/rust/Makefile)
virtio_bindings_cflags = $(filter-out $(virtio_bindings_skip),$(c_flags)) -w
endif

quiet_cmd_virtio_bindings = BINDGEN $@
      cmd_virtio_bindings = \
	$(BINDGEN) $< $(virtio_bindings_flags) --rust-target 1.85 \
		--use-core --with-derive-default --ctypes-prefix ffi \
		--no-debug '.*' --enable-function-attribute-detection \
		-o $@ -- $(virtio_bindings_cflags) -fno-builtin -D__BINDGEN__ -DMODULE

$(obj)/virtio_bindings.rs: $(virtio_bindings_folder)bindings.h FORCE
	$(call if_changed_dep,virtio_bindings)

targets += virtio_bindings.rs
