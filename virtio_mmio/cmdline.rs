// SPDX-License-Identifier: GPL-2.0

//! The syntax of the parameter `device=`: `<size>@<base>:<irq>[:<id>]`.
//!
//! Numbers are as C's `memparse()` and `sscanf()` read them: size and base in hexadecimal with
//! `0x`, in octal with `0`, else in decimal; the size may have a suffix `K`, `M`, `G`, `T`, `P` or
//! `E`; interrupt and id are decimal. Uses only `core`.

#![deny(unsafe_code)]

/// A device that the parameter describes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spec {
    /// Physical address of its first register, in bytes.
    pub(crate) base: u64,
    /// Length in bytes; not 0, and the last byte has an address.
    pub(crate) size: u64,
    /// Its interrupt, as `request_irq()` takes it; not 0.
    pub(crate) irq: u32,
    /// The number behind its name, if it was given.
    pub(crate) id: Option<i32>,
}

/// What is wrong with a value of the parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    Size,
    SizeTooLarge,
    SizeZero,
    NoBase,
    Base,
    BaseTooLarge,
    End,
    NoIrq,
    Irq,
    IrqZero,
    IrqTooLarge,
    Id,
    IdTooLarge,
    Rest,
}

impl Mistake {
    /// The mistake in words.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Size => "the size is not a number",
            Self::SizeTooLarge => "the size has more than 64 bits",
            Self::SizeZero => "the size is 0",
            Self::NoBase => "there is no @<base> behind the size",
            Self::Base => "the base address is not a number",
            Self::BaseTooLarge => "the base address has more than 64 bits",
            Self::End => "the device ends beyond the last address",
            Self::NoIrq => "there is no :<irq> behind the base address",
            Self::Irq => "the interrupt is not a decimal number",
            Self::IrqZero => "the interrupt is 0",
            Self::IrqTooLarge => "the interrupt has more than 32 bits",
            Self::Id => "the id is not a decimal number",
            Self::IdTooLarge => "the id has more than 32 bits",
            Self::Rest => "something is behind the last number",
        }
    }
}

/// Reads a value of the parameter.
///
/// # Errors
///
/// What is wrong with it, the first from the left.
pub(crate) fn parse(text: &[u8]) -> Result<Spec, Mistake> {
    let (size, rest) = size(text)?;
    let rest = rest.strip_prefix(b"@").ok_or(Mistake::NoBase)?;
    let (base, rest) = number(rest, Mistake::Base, Mistake::BaseTooLarge)?;
    let rest = rest.strip_prefix(b":").ok_or(Mistake::NoIrq)?;
    let (irq, rest) = digits(rest, 10).ok_or(Mistake::Irq)?;
    let irq = irq.and_then(|irq| u32::try_from(irq).ok());
    let irq = irq.ok_or(Mistake::IrqTooLarge)?;
    let id = match rest.strip_prefix(b":") {
        Some(text) => Some(id(text)?),
        None if rest.is_empty() => None,
        None => return Err(Mistake::Rest),
    };

    if size == 0 {
        return Err(Mistake::SizeZero);
    }
    if base.checked_add(size - 1).is_none() {
        return Err(Mistake::End);
    }
    if irq == 0 {
        return Err(Mistake::IrqZero);
    }
    Ok(Spec {
        base,
        size,
        irq,
        id,
    })
}

/// Reads a size with its suffix.
fn size(text: &[u8]) -> Result<(u64, &[u8]), Mistake> {
    let (size, rest) = number(text, Mistake::Size, Mistake::SizeTooLarge)?;
    let Some((suffix, behind)) = rest.split_first() else {
        return Ok((size, rest));
    };
    let thousands = match suffix.to_ascii_uppercase() {
        b'K' => 1,
        b'M' => 2,
        b'G' => 3,
        b'T' => 4,
        b'P' => 5,
        b'E' => 6,
        _ => return Ok((size, rest)),
    };
    let size = size.checked_mul(1 << (10 * thousands));

    Ok((size.ok_or(Mistake::SizeTooLarge)?, behind))
}

/// Reads an id, which ends the value.
fn id(text: &[u8]) -> Result<i32, Mistake> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (id, rest) = digits(text, 10).ok_or(Mistake::Id)?;
    let id = id.and_then(|id| i64::try_from(id).ok());
    let id = id.map(|id| if negative { -id } else { id });
    let id = id.and_then(|id| i32::try_from(id).ok());

    if !rest.is_empty() {
        return Err(Mistake::Rest);
    }
    id.ok_or(Mistake::IdTooLarge)
}

/// Reads a number that says its base itself.
fn number(text: &[u8], none: Mistake, large: Mistake) -> Result<(u64, &[u8]), Mistake> {
    let (digits_of, base) = match text {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
            (rest, 16)
        }
        [b'0', ..] => (text, 8),
        _ => (text, 10),
    };
    let (number, rest) = digits(digits_of, base).ok_or(none)?;

    Ok((number.ok_or(large)?, rest))
}

/// Reads as many digits as there are. None if there is none; no number if it has more than 64
/// bits.
fn digits(text: &[u8], base: u32) -> Option<(Option<u64>, &[u8])> {
    let value = |byte: &u8| char::from(*byte).to_digit(base);
    let count = text.iter().take_while(|byte| value(byte).is_some()).count();
    let (digits, rest) = text.split_at(count);
    let number = digits
        .iter()
        .filter_map(value)
        .try_fold(0u64, |sum, digit| {
            sum.checked_mul(base.into())?.checked_add(digit.into())
        });

    (count > 0).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(base: u64, size: u64, irq: u32, id: Option<i32>) -> Result<Spec, Mistake> {
        Ok(Spec {
            base,
            size,
            irq,
            id,
        })
    }

    #[test]
    fn values_of_the_documentation() {
        assert_eq!(
            parse(b"0x100@0x100b0000:48"),
            spec(0x100b_0000, 0x100, 48, None)
        );
        assert_eq!(
            parse(b"1K@0x1001e000:74"),
            spec(0x1001_e000, 1024, 74, None)
        );
        assert_eq!(
            parse(b"512@0xfeb00e00:12:7"),
            spec(0xfeb0_0e00, 512, 12, Some(7))
        );
    }

    #[test]
    fn bases_suffixes_and_ids() {
        assert_eq!(parse(b"01000@4096:5:-1"), spec(4096, 512, 5, Some(-1)));
        assert_eq!(parse(b"0X2m@0:1"), spec(0, 2 << 20, 1, None));
        assert_eq!(parse(b"1e@0:1"), spec(0, 1 << 60, 1, None));
        assert_eq!(parse(b"0x1e@0:1"), spec(0, 0x1e, 1, None));
        assert_eq!(parse(b"1@0xffffffffffffffff:1"), spec(u64::MAX, 1, 1, None));
        assert_eq!(
            parse(b"1@0:4294967295:2147483647"),
            spec(0, 1, u32::MAX, Some(i32::MAX))
        );
        assert_eq!(parse(b"1@0:1:-2147483648"), spec(0, 1, 1, Some(i32::MIN)));
    }

    #[test]
    fn each_mistake_is_named() {
        let cases: &[(&[u8], Mistake)] = &[
            (b"", Mistake::Size),
            (b"x@0:1", Mistake::Size),
            (b"-1@0:1", Mistake::Size),
            (b"16E@0:1", Mistake::SizeTooLarge),
            (b"0x10000000000000000@0:1", Mistake::SizeTooLarge),
            (b"0@0:1", Mistake::SizeZero),
            (b"0x200", Mistake::NoBase),
            (b"0x200KK@0:1", Mistake::NoBase),
            (b"0x200:5", Mistake::NoBase),
            (b"0x200@", Mistake::Base),
            (b"0x200@-5:1", Mistake::Base),
            (b"1@18446744073709551616:1", Mistake::BaseTooLarge),
            (b"2@0xffffffffffffffff:1", Mistake::End),
            (b"0x200@0x1000", Mistake::NoIrq),
            (b"0x200@0x1000-5", Mistake::NoIrq),
            (b"0x200@089:5", Mistake::NoIrq),
            (b"0x200@0x1000:", Mistake::Irq),
            (b"0x200@0x1000:-1", Mistake::Irq),
            (b"0x200@0x1000:0", Mistake::IrqZero),
            (b"0x200@0x1000:4294967296", Mistake::IrqTooLarge),
            (b"0x200@0x1000:0x10", Mistake::Rest),
            (b"0x200@0x1000:5x", Mistake::Rest),
            (b"0x200@0x1000:5:", Mistake::Id),
            (b"0x200@0x1000:5:--1", Mistake::Id),
            (b"0x200@0x1000:5:2147483648", Mistake::IdTooLarge),
            (b"0x200@0x1000:5:1 ", Mistake::Rest),
            (b"0x200@0x1000:5:1:2", Mistake::Rest),
        ];

        for (text, mistake) in cases {
            assert_eq!(parse(text), Err(*mistake), "{}", text.escape_ascii());
            assert!(!mistake.text().is_empty());
        }
    }
}
