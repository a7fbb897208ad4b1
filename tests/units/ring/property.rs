// SPDX-License-Identifier: GPL-2.0

//! Driver and device against each other, as in `random.rs`, by choices that proptest makes: a
//! failure comes down to the fewest and smallest that show it.

use crate::{
    driver::Rig,
    packed::PackedRig,
    random::{
        play,
        Choices, //
    },
    split::SplitRig, //
};

use proptest::{
    collection::vec,
    prelude::*, //
};

/// Runs with one ring; what it does is up to `choices`, until there are none left.
fn run<R: Rig>(size: u16, in_order: bool, event: bool, choices: Vec<u32>) {
    play::<R>(size, in_order, event, Choices::listed(choices));
}

/// How long to try; what fails is printed and not kept in a file.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn split(
        shift in 0_u32..9,
        in_order: bool,
        event: bool,
        choices in vec(any::<u32>(), 0..3000),
    ) {
        run::<SplitRig>(1 << shift, in_order, event, choices);
    }

    #[test]
    fn packed(
        size in 1_u16..=257,
        in_order: bool,
        event: bool,
        choices in vec(any::<u32>(), 0..3000),
    ) {
        run::<PackedRig>(size, in_order, event, choices);
    }
}
