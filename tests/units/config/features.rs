// SPDX-License-Identifier: GPL-2.0

//! The arithmetic of feature sets.

use crate::config::{
    FeatureBit,
    Features,
    ACCESS_PLATFORM,
    RING_INDIRECT_DESC,
    VERSION_1, //
};

const ALL: Features = Features::from_words([u64::MAX; 2]);

/// Bits at the edges of the words, and one beyond.
const EDGES: [FeatureBit; 6] = [0, 63, 64, 127, Features::BITS, FeatureBit::MAX];

#[test]
fn bits_fall_into_the_right_word() {
    let set = Features::from_words([1 << 32, 1 << 63]);

    for bit in 0..=Features::BITS {
        assert_eq!(set.has(bit), bit == VERSION_1 || bit == 127, "bit {bit}");
    }
    assert!(!ALL.has(FeatureBit::MAX));
    assert_eq!(Features::of(&[127, VERSION_1, 127]), set);
    assert_eq!(Features::of(&EDGES).words(), [1 | 1 << 63, 1 | 1 << 63]);
    assert_eq!(set.iter().collect::<Vec<_>>(), [VERSION_1, 127]);
}

#[test]
fn a_bit_is_put_in_and_taken_out_alone() {
    assert_eq!(ALL.without(0).words(), [!1, u64::MAX]);
    assert_eq!(ALL.without(63).words(), [!(1 << 63), u64::MAX]);
    assert_eq!(ALL.without(64).words(), [u64::MAX, !1]);
    assert_eq!(ALL.without(127).words(), [u64::MAX, !(1 << 63)]);
    for bit in EDGES {
        let known = bit < Features::BITS;

        assert_eq!(Features::EMPTY.with(bit).has(bit), known, "bit {bit}");
        assert_eq!(Features::EMPTY.with(bit).iter().count(), usize::from(known));
        assert_eq!(ALL.without(bit).iter().count(), 128 - usize::from(known));
        assert_eq!(ALL.without(bit).with(bit), ALL);
        assert_eq!(ALL.without(bit).without(bit), ALL.without(bit));
    }
}

#[test]
fn sets_are_compared_in_both_words() {
    let (low, high) = (
        Features::from_words([6, 0]),
        Features::from_words([0, 1 << 40]),
    );

    assert_eq!(low.union(high).words(), [6, 1 << 40]);
    assert_eq!(low.union(high).intersection(high), high);
    assert_eq!(low.union(high).difference(low), high);
    assert!(low.is_subset_of(low.union(high)) && high.is_subset_of(low.union(high)));
    assert!(!low.union(high).is_subset_of(low) && !low.union(high).is_subset_of(high));
    assert!(Features::EMPTY.is_subset_of(Features::EMPTY) && Features::EMPTY.is_empty());
    assert!(!low.is_empty() && !high.is_empty());
}

#[test]
fn modern_devices_negotiate_all_bits() {
    let driver = Features::of(&[0, 3, 70, 90]);
    let offered = Features::of(&[0, 1, 70, VERSION_1]);
    let agreed = Features::negotiate(offered, driver, Some(Features::of(&[1])));

    assert_eq!(agreed, Features::of(&[0, 70, VERSION_1]));
}

#[test]
fn legacy_devices_negotiate_64_bits_of_the_legacy_table() {
    let driver = Features::of(&[0, 3, 70]);
    let offered = Features::of(&[0, 1, 3, 70, RING_INDIRECT_DESC]);
    let one = Features::negotiate(offered, driver, None);
    let two = Features::negotiate(offered, driver, Some(Features::of(&[1, 70])));

    assert_eq!(one, Features::of(&[0, 3, RING_INDIRECT_DESC]));
    assert_eq!(two, Features::of(&[1, RING_INDIRECT_DESC]));
}

#[test]
fn transports_decide_on_their_bits() {
    assert_eq!(Features::TRANSPORT.iter().min(), Some(RING_INDIRECT_DESC));
    assert_eq!(Features::TRANSPORT.iter().max(), Some(41));
    assert_eq!(Features::TRANSPORT.iter().count(), 14);
    assert!(Features::TRANSPORT.has(ACCESS_PLATFORM));
    assert_eq!(
        Features::negotiate(ALL, Features::EMPTY, None),
        Features::TRANSPORT
    );
    assert_eq!(
        Features::negotiate(Features::EMPTY, ALL, Some(ALL)),
        Features::EMPTY
    );
}
