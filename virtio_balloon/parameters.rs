// SPDX-License-Identifier: GPL-2.0

//! The parameters of the module, by which the guest's administrator has a say in how much memory
//! the balloon leaves.
//!
//! They hold for all balloons, and from the next attempt to allocate on when they are changed in
//! `/sys/module/virtio_balloon/parameters`.

use super::{
    layout::LEAVE_MIB,
    policy::{
        Floor,
        Policy, //
    }, //
};
use crate::{
    kernel_ext::{
        modinfo::modinfo,
        module_param::{
            module_parameter,
            Page,
            Parameter, //
        }, //
    },
    LocalModule, //
};

use kernel::{
    module::this_module,
    prelude::*, //
};

module_parameter! {
    /// `policy=`: the name of a [`Policy`].
    POLICY: PolicyName = PolicyName(Policy::Available),
    c"policy", c"virtio_balloon.policy", 0o644
}
modinfo!("parmtype", "policy:string");
modinfo!(
    "parm",
    "policy:What inflation takes: available (memory), pressure (what can be swapped out, too, ",
    "unless it is read back), swap (what can be swapped out)"
);

module_parameter! {
    /// `floor=`: see [`Floor::parse`].
    FLOOR: FloorText = FloorText(Floor::Mib(LEAVE_MIB)),
    c"floor", c"virtio_balloon.floor", 0o644
}
modinfo!("parmtype", "floor:string");
modinfo!(
    "parm",
    "floor:Memory that inflation leaves, in MiB or, with a %, in percent of all memory"
);

/// The policy and the floor at present.
///
/// # Context
///
/// May sleep.
pub(super) fn current() -> (Policy, Floor) {
    let module = this_module::<LocalModule>();
    let policy = POLICY.with(module, |name| name.0);
    let floor = FLOOR.with(module, |text| text.0);

    (policy, floor)
}

/// The state of `policy=`.
struct PolicyName(Policy);

impl Parameter for PolicyName {
    fn set(&mut self, value: &CStr) -> Result {
        let policy = Policy::parse(value.to_bytes().trim_ascii());

        self.0 = policy.ok_or(EINVAL).inspect_err(|_| {
            pr_err!("policy: not one of available, pressure, swap\n");
        })?;
        Ok(())
    }

    fn show(&self, page: &mut Page<'_>) {
        page.print(fmt!("{}\n", self.0.name()));
    }
}

/// The state of `floor=`.
struct FloorText(Floor);

impl Parameter for FloorText {
    fn set(&mut self, value: &CStr) -> Result {
        self.0 = Floor::parse(value.to_bytes().trim_ascii()).map_err(|mistake| {
            pr_err!("floor: {mistake}\n");
            EINVAL
        })?;
        Ok(())
    }

    fn show(&self, page: &mut Page<'_>) {
        let (number, unit) = self.0.number_and_unit();

        page.print(fmt!("{number}{unit}\n"));
    }
}
