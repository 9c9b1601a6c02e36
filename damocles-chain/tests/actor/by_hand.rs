//! The chain's CBOR, bit fields, addresses and amounts, written from their specifications and from nothing that the
//! client uses.

fn head(major: u8, n: u64) -> Vec<u8> {
    let major = major << 5;
    let short = |n: u64| u8::try_from(n).unwrap();
    match n {
        0..=23 => vec![major | short(n)],
        24..=0xff => vec![major | 24, short(n)],
        0x100..=0xffff => [&[major | 25][..], &u16::try_from(n).unwrap().to_be_bytes()].concat(),
        0x1_0000..=0xffff_ffff => [&[major | 26][..], &u32::try_from(n).unwrap().to_be_bytes()].concat(),
        _ => [&[major | 27][..], &n.to_be_bytes()].concat(),
    }
}

pub(crate) fn uint(n: u64) -> Vec<u8> {
    head(0, n)
}

pub(crate) fn int(n: i64) -> Vec<u8> {
    u64::try_from(n).map_or_else(|_| head(1, u64::try_from(-1 - n).unwrap()), uint)
}

pub(crate) fn bytes(bytes: &[u8]) -> Vec<u8> {
    [head(2, u64::try_from(bytes.len()).unwrap()), bytes.to_vec()].concat()
}

pub(crate) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, u64::try_from(items.len()).unwrap()), items.concat()].concat()
}

pub(crate) fn null() -> Vec<u8> {
    vec![0xf6]
}

pub(crate) fn bool(value: bool) -> Vec<u8> {
    vec![if value { 0xf5 } else { 0xf4 }]
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(u8::try_from(n & 0x7f).unwrap() | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).unwrap());
    out
}

fn link(codec: u64, hash: u64, digest: [u8; 32]) -> Vec<u8> {
    let cid = [&[0, 1][..], &varint(codec), &varint(hash), &[32], &digest].concat();
    [vec![0xd8, 42], bytes(&cid)].concat()
}

/// A replica: `fil-commitment-sealed`, `poseidon-bls12_381-a2-fc1`.
pub(crate) fn comm_r(digest: [u8; 32]) -> Vec<u8> {
    link(0xf102, 0xb401, digest)
}

/// Data: `fil-commitment-unsealed`, `sha2-256-trunc254-padded`.
pub(crate) fn comm_d(digest: [u8; 32]) -> Vec<u8> {
    link(0xf101, 0x1012, digest)
}

pub(crate) fn id(n: u64) -> Vec<u8> {
    bytes(&[&[0][..], &varint(n)].concat())
}

/// Zero is no bytes at all; anything else is its sign and its digits in base 256.
pub(crate) fn amount(atto: u128) -> Vec<u8> {
    let digits = atto.to_be_bytes();
    let from = digits.iter().position(|b| *b != 0);
    bytes(&from.map_or_else(Vec::new, |from| [&[0][..], &digits[from..]].concat()))
}

/// RLE+: two bits of version, one that says with what the runs begin, then the runs.
pub(crate) fn bit_field(numbers: &[u64]) -> Vec<u8> {
    let mut runs: Vec<u64> = Vec::new();
    let mut at = 0;
    for n in numbers {
        match runs.last_mut() {
            Some(last) if *n == at => *last += 1,
            Some(_) => runs.extend([n - at, 1]),
            None if *n == 0 => runs.push(1),
            None => runs.extend([*n, 1]),
        }
        at = n + 1;
    }
    if runs.is_empty() {
        return bytes(&[]);
    }
    let mut bits = vec![false, false, numbers[0] == 0];
    let mut push = |value: u64, count: u32| bits.extend((0..count).map(|i| value >> i & 1 == 1));
    for run in runs {
        match run {
            1 => push(1, 1),
            2..=15 => {
                push(0b10, 2);
                push(run, 4);
            }
            _ => {
                push(0, 2);
                varint(run).into_iter().for_each(|byte| push(u64::from(byte), 8));
            }
        }
    }
    let packed = bits.chunks(8).map(|byte| byte.iter().rev().fold(0u8, |sum, bit| sum << 1 | u8::from(*bit)));
    bytes(&packed.collect::<Vec<_>>())
}

#[test]
fn bit_fields_have_the_known_bytes() {
    for (numbers, hex) in [(&[][..], "40"), (&[7], "42f002"), (&[1, 2, 3, 10, 11, 4000], "46e8680a941f01")] {
        assert_eq!(hex::encode(bit_field(numbers)), hex, "{numbers:?}");
    }
}
