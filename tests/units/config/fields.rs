// SPDX-License-Identifier: GPL-2.0

//! Configuration fields: width, byte order, and reading what a device changes meanwhile.

use crate::{
    config::{
        consistent,
        Features,
        Field,
        Value,
        MAX_CHANGES, //
    },
    virtio::endian::{
        ByteOrder,
        Le16,
        Le32,
        Le64,
        Virtio16,
        Virtio32,
        Virtio64, //
    },
};

use std::{
    cell::Cell,
    fmt::Debug, //
};

/// Reads a field of a space whose bytes count up from 1; also returns the accesses made.
fn read<T: Value>(field: Field<T>, order: ByteOrder) -> (T::Cpu, Vec<(u32, usize)>) {
    let mut accesses = Vec::new();
    let bytes = field.read_by(|offset, part| {
        accesses.push((offset, part.len()));
        for (byte, value) in part.iter_mut().zip(offset as u8 + 1..) {
            *byte = value;
        }
    });

    (T::from_bytes(bytes, order), accesses)
}

/// The field reads as the value, and the value is written as it was read, by the same accesses.
fn check<T: Value<Cpu: Clone + PartialEq + Debug> + Copy>(
    field: Field<T>,
    order: ByteOrder,
    value: T::Cpu,
    accesses: &[(u32, usize)],
) {
    assert_eq!(read(field, order), (value.clone(), accesses.to_vec()));
    let mut written = Vec::new();
    field.write_by(&T::to_bytes(value, order), |offset, part| {
        let expected: Vec<u8> = (offset as u8 + 1..).take(part.len()).collect();

        assert_eq!(part, expected);
        written.push((offset, part.len()));
    });
    assert_eq!(written, accesses);
}

#[test]
fn little_endian_is_so_on_every_device() {
    for order in [ByteOrder::Little, ByteOrder::Native] {
        check(Field::<u8>::new(3), order, 4, &[(3, 1)]);
        check(Field::<Le16>::new(2), order, 0x0403, &[(2, 2)]);
        check(Field::<Le32>::new(4), order, 0x0807_0605, &[(4, 4)]);
        check(
            Field::<Le64>::new(8),
            order,
            0x100f_0e0d_0c0b_0a09,
            &[(8, 8)],
        );
    }
}

#[test]
fn virtio_order_is_that_of_the_device() {
    let native = u32::from_ne_bytes([5, 6, 7, 8]);

    check(
        Field::<Virtio16>::new(2),
        ByteOrder::Little,
        0x0403,
        &[(2, 2)],
    );
    check(
        Field::<Virtio32>::new(4),
        ByteOrder::Little,
        0x0807_0605,
        &[(4, 4)],
    );
    check(
        Field::<Virtio32>::new(4),
        ByteOrder::Native,
        native,
        &[(4, 4)],
    );
    check(
        Field::<Virtio64>::new(8),
        ByteOrder::Little,
        0x100f_0e0d_0c0b_0a09,
        &[(8, 8)],
    );
    // What matters for another CPU than this: the stored integer, not its bytes.
    assert_eq!(
        Virtio16::from_cpu(0x1234, ByteOrder::Little).to_bytes(),
        [0x34, 0x12]
    );
    assert_eq!(
        Virtio16::from_cpu(0x1234, ByteOrder::Native).to_bytes(),
        0x1234_u16.to_ne_bytes()
    );
}

#[test]
fn arrays_are_read_byte_by_byte() {
    let field = Field::<[u8; 3]>::new(1);

    check(
        field,
        ByteOrder::Native,
        [2, 3, 4],
        &[(1, 1), (2, 1), (3, 1)],
    );
}

#[test]
fn wide_fields_may_tear() {
    assert!(!Field::<u8>::new(0).tears());
    assert!(!Field::<Le32>::new(0).tears());
    assert!(Field::<Le64>::new(0).tears());
    assert!(Field::<[u8; 6]>::new(0).tears());
    assert!(!Field::<[u8; 1]>::new(0).tears());
}

#[test]
fn gated_field_exists_with_its_feature_only() {
    let none = Features::EMPTY;
    let field = Field::<Le32>::gated(8, 70);

    assert!(Field::<Le32>::new(0).exists(none));
    assert!(!field.exists(none));
    assert!(field.exists(none.with(70)));
    assert_eq!(field.offset(), 8);
}

#[test]
#[should_panic(expected = "aligned")]
fn fields_are_aligned() {
    let _ = Field::<Le32>::new(6);
}

/// A 64-bit field that the device changes while its halves are read, `changes` times.
fn torn(changes: usize, has_generation: bool) -> (Option<(u32, u32)>, usize) {
    let (state, left, reads) = (Cell::new(7), Cell::new(changes), Cell::new(0));
    let value = consistent(
        || has_generation.then(|| state.get()),
        || {
            let low = state.get();
            if left.get() > 0 {
                left.set(left.get() - 1);
                state.set(state.get() + 1);
            }
            reads.set(reads.get() + 1);
            Ok::<_, ()>((low, state.get()))
        },
    );

    (value.unwrap(), reads.get())
}

#[test]
fn torn_reads_are_repeated() {
    assert_eq!(torn(0, true), (Some((7, 7)), 1));
    assert_eq!(torn(1, true), (Some((8, 8)), 2));
    assert_eq!(torn(3, true), (Some((10, 10)), 4));
    assert_eq!(torn(0, false), (Some((7, 7)), 2));
    assert_eq!(torn(3, false), (Some((10, 10)), 5));
}

#[test]
fn a_device_that_never_rests_is_given_up() {
    assert_eq!(torn(MAX_CHANGES, true).0, Some((71, 71)));
    assert_eq!(torn(usize::MAX, true), (None, MAX_CHANGES + 1));
    assert_eq!(torn(usize::MAX, false), (None, MAX_CHANGES + 1));
}

#[test]
fn errors_end_the_reading() {
    let result = consistent(|| Some(0), || Err::<(), _>("no such field"));

    assert_eq!(result, Err("no such field"));
}
