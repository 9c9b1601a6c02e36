//! Names for contents.

/// FNV-1a, 128 bits: the same on every machine and in every version, unlike the standard library's hashers. It names
/// contents and protects nothing.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let step = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    let part = |hash: u128, bytes: &'a [u8]| {
        let length = bytes.len().to_be_bytes();
        bytes.iter().copied().chain(length).fold(hash, step)
    };
    parts.into_iter().fold(BASIS, part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_count() {
        let a = fingerprint([b"ab".as_slice(), b"c"]);
        assert_ne!(a, fingerprint([b"a".as_slice(), b"bc"]));
        assert_eq!(a, fingerprint([b"ab".as_slice(), b"c"]));
    }
}
