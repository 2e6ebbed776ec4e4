//! Zigzag varints, as records have them: small numbers of either sign take few bytes.
//!
//! Seven bits a byte, the low ones first; the highest bit says that more follow.

/// Maps numbers of small magnitude to small unsigned ones: 0, -1, 1, -2, ... to 0, 1, 2, 3, ...
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// How many bytes a number takes: 1 to 5 if it fits 32 bits, 10 at the most.
#[inline]
pub fn size(value: i64) -> usize {
    let rest = zigzag(value);
    if rest < 0x80 {
        return 1;
    }
    let last_bit = 63 - rest.leading_zeros() as usize;
    // last_bit / 7 + 1, without a division.
    (last_bit * 9 + 73) / 64
}

/// How many bytes a length takes.
#[inline]
pub fn length_size(length: usize) -> usize {
    size(length as i64)
}

/// Appends a number.
#[inline]
pub fn write(value: i64, out: &mut Vec<u8>) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A number of at most three bytes, as a little-endian integer, and how many bytes it has. Larger
/// ones than `SHORT_MAX` (after [`zigzag`]) don't fit.
#[inline(always)]
pub fn short(zigzagged: u64) -> (u64, u32) {
    debug_assert!(zigzagged <= SHORT_MAX);
    let z = zigzagged;
    if z < 0x80 {
        (z, 1)
    } else if z < 0x4000 {
        (z & 0x7f | 0x80 | (z & 0x3f80) << 1, 2)
    } else {
        (z & 0x7f | 0x8080 | (z & 0x3f80) << 1 | (z & 0x1f_c000) << 2, 3)
    }
}

/// What three bytes can hold.
pub const SHORT_MAX: u64 = (1 << 21) - 1;

/// Appends the low `len` bytes of `bits`. Eight bytes are stored, without a call, and those too
/// many are taken back: the caller has made sure that there is room.
#[inline(always)]
pub fn append_bits(bits: u64, len: u32, out: &mut Vec<u8>) {
    debug_assert!(len <= 8 && out.capacity() - out.len() >= 8);
    let end = out.len() + len as usize;
    out.extend_from_slice(&bits.to_le_bytes());
    out.truncate(end);
}

/// Takes a 64-bit number off the front of `bytes`. `None` if the bytes end within it or it has
/// more than 64 bits.
pub fn take_long(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(unzigzag(value));
        }
    }
    None
}

/// Takes a 32-bit number off the front of `bytes`. `None` if the bytes end within it or it has
/// more than 32 bits.
pub fn take(bytes: &mut &[u8]) -> Option<i32> {
    let mut rest = *bytes;
    let value = i32::try_from(take_long(&mut rest)?).ok()?;
    // Five bytes hold 35 bits, so a longer form is padding that Kafka does not accept.
    (bytes.len() - rest.len() <= 5).then(|| *bytes = rest)?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        write(value, &mut out);
        out
    }

    /// REC-13, REC-14.
    #[test]
    fn numbers_have_the_published_bytes() {
        let vectors: [(i64, &[u8]); 11] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (i32::MAX.into(), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN.into(), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for (value, bytes) in vectors {
            assert_eq!(written(value), bytes);
            assert_eq!(take_long(&mut &bytes[..]), Some(value));
        }
    }

    /// REC-16.
    #[test]
    fn a_number_that_is_cut_or_too_long_is_refused_and_nothing_is_taken() {
        for bytes in [&[][..], &[0x80], &[0xff; 10], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]] {
            let mut rest = bytes;
            assert_eq!(take(&mut rest), None);
            assert_eq!(rest, bytes);
        }
        assert_eq!(take(&mut &written(i64::from(i32::MAX) + 1)[..]), None);
        assert_eq!(
            take_long(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]),
            None
        );
    }

    fn any_magnitude() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0..64u32).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_has_the_size_that_was_said(value in any_magnitude()) {
            let bytes = written(value);
            prop_assert_eq!(bytes.len(), size(value));
            let mut rest = &bytes[..];
            prop_assert_eq!(take_long(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(take(&mut &bytes[..]), i32::try_from(value).ok());
        }
    }
}
