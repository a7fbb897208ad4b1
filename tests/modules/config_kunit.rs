// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of `config.rs` and `virtio/endian.rs`, compiled as the kernel compiles them: sets of
//! features, fields of the configuration space, and reading what a device changes meanwhile.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "without KUnit there are no tests, and no test uses everything"
)]

use kernel::prelude::*;

#[path = "../../config.rs"]
mod config;

#[path = "../../virtio"]
mod virtio {
    pub(crate) mod endian;
}

module! {
    type: ConfigKunit,
    name: "config_kunit",
    authors: ["The virtio-rust developers"],
    description: "KUnit tests of feature sets and configuration fields",
    license: "GPL",
}

struct ConfigKunit;

impl kernel::Module for ConfigKunit {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

#[kernel::macros::kunit_tests(virtio_config)]
mod tests {
    use super::{
        config::{
            consistent,
            Features,
            Field,
            Value,
            MAX_CHANGES,
            VERSION_1, //
        },
        virtio::endian::{
            ByteOrder,
            Le16,
            Le32,
            Le64,
            Virtio32, //
        },
    };
    use core::cell::Cell;
    use kernel::prelude::*;

    /// A field as it reads in a space whose bytes count up from 1, and the accesses that took.
    fn read<T: Value>(field: &Field<T>, order: ByteOrder) -> (T::Cpu, usize) {
        let mut accesses = 0;
        let bytes = field.read_by(|offset, part| {
            for (byte, value) in part.iter_mut().zip(offset + 1..) {
                *byte = u8::try_from(value).unwrap_or(0);
            }
            accesses += 1;
        });

        (T::from_bytes(bytes, order), accesses)
    }

    #[test]
    fn sets_have_128_bits() -> Result {
        for bit in 0..=Features::BITS {
            let known = bit < Features::BITS;
            let set = Features::EMPTY.with(bit);

            assert_eq!(set.has(bit), known);
            assert_eq!(set.iter().count(), usize::from(known));
            assert!(set.without(bit).is_empty());
        }
        assert_eq!(Features::of(&[0, 64]).words(), [1, 1]);
        Ok(())
    }

    #[test]
    fn both_sides_must_know_a_feature() -> Result {
        let driver = Features::of(&[0, 3, 70]);
        let offered = Features::of(&[0, 1, 28, 70]);
        let legacy = Some(Features::of(&[1, 70]));
        let modern = offered.with(VERSION_1);

        for (offered, legacy, agreed) in [
            (offered, None, [0, 28, 28]),
            (offered, legacy, [1, 28, 28]),
            (modern.without(28), legacy, [0, 70, VERSION_1]),
        ] {
            let found = Features::negotiate(offered, driver, legacy);

            assert_eq!(found, Features::of(&agreed));
        }
        Ok(())
    }

    #[test]
    fn fields_have_width_and_order() -> Result {
        let native = u32::from_ne_bytes([5, 6, 7, 8]);
        let (little, legacy) = (ByteOrder::Little, ByteOrder::Native);

        assert_eq!(read(&Field::<u8>::new(3), legacy), (4, 1));
        assert_eq!(read(&Field::<Le16>::new(2), legacy), (0x0403, 1));
        assert_eq!(read(&Field::<Le32>::new(4), legacy), (0x0807_0605, 1));
        assert_eq!(read(&Field::<Virtio32>::new(4), little), (0x0807_0605, 1));
        assert_eq!(read(&Field::<Virtio32>::new(4), legacy), (native, 1));
        assert_eq!(read(&Field::<[u8; 3]>::new(1), little), ([2, 3, 4], 3));
        assert_eq!(
            read(&Field::<Le64>::new(0), little),
            (0x0807_0605_0403_0201, 1)
        );
        Ok(())
    }

    #[test]
    fn fields_may_depend_on_a_feature() -> Result {
        let field = Field::<Le32>::gated(8, 70);

        assert!(!field.exists(Features::of(&[6, 69])));
        assert!(field.exists(Features::of(&[70])));
        assert!(Field::<Le32>::new(8).exists(Features::EMPTY));
        Ok(())
    }

    #[test]
    fn torn_reads_are_repeated() -> Result {
        for (changes, has_generation, reads) in [
            (0, true, Some(1)),
            (3, true, Some(4)),
            (0, false, Some(2)),
            (3, false, Some(5)),
            (usize::MAX, true, None),
            (usize::MAX, false, None),
        ] {
            let (state, left, count) = (Cell::new(0u32), Cell::new(changes), Cell::new(0));
            let halves = || {
                let low = state.get();

                if left.get() > 0 {
                    left.set(left.get() - 1);
                    state.set(low + 1);
                }
                count.set(count.get() + 1);
                Ok::<_, Error>((low, state.get()))
            };
            let found = consistent(|| has_generation.then(|| state.get()), halves)?;

            assert!(found.is_none_or(|(low, high)| low == high));
            assert_eq!(found.is_some(), reads.is_some());
            assert_eq!(count.get(), reads.unwrap_or(MAX_CHANGES + 1));
        }
        Ok(())
    }
}
