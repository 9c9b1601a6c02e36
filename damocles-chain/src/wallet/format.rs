//! The bytes of a wallet's file.
//!
//! `magic (8) | version u16 | memory u32 | passes u32 | lanes u32 | salt (16) | nonce (24) | length u32 | sealed | check (32)`,
//! numbers big-endian. Everything before `sealed` is authenticated with it. `check` is the BLAKE2b-256 of all before
//! it: it tells a damaged file from a wrong password without the work that a password costs.

use super::kdf::{KdfParams, Salt, SealKey};
use chacha20poly1305::{AeadInPlace as _, KeyInit as _, XChaCha20Poly1305, XNonce};
use rand::{RngCore as _, rngs::OsRng};
use zeroize::Zeroizing;

/// The largest file that is read: some ten thousand keys.
pub(super) const MAX_FILE: usize = 16 << 20;
const MAGIC: [u8; 8] = *b"DMCLSWLT";
const VERSION: u16 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;
const HEADER: usize = 8 + 2 + 3 * 4 + 16 + NONCE + 4;
const CHECK: usize = 32;

/// How a file's key is made of the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) params: KdfParams,
    pub(super) salt: Salt,
}

impl Lock {
    /// A lock with a new salt.
    pub(super) fn new(params: KdfParams) -> Self {
        let mut salt = Salt::default();
        OsRng.fill_bytes(&mut salt);
        Self { params, salt }
    }
}

/// A file that is well-formed; nobody knows yet whether it opens.
#[derive(Debug)]
pub(super) struct Sealed<'a> {
    pub(super) lock: Lock,
    nonce: XNonce,
    header: &'a [u8],
    body: &'a [u8],
}

/// Why bytes are no wallet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("it does not begin as a wallet does")]
    NotAWallet,
    #[error("version {0}")]
    Newer(u16),
    #[error("it ends too early, or goes on after its end")]
    Length,
    #[error("its check sum is another one")]
    Check,
    #[error("the costs of its password are out of bounds")]
    Params,
}

/// Cuts fields off the front of a header.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], FormatError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(FormatError::Length)?;
        self.0 = rest;
        Ok(field)
    }

    fn number(&mut self) -> Result<u32, FormatError> {
        self.take().copied().map(u32::from_be_bytes)
    }
}

impl<'a> Sealed<'a> {
    /// Reads a file's bytes. It costs one hash of them and allocates nothing.
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, FormatError> {
        let mut fields = Fields(file);
        if fields.take().ok() != Some(&MAGIC) {
            return Err(FormatError::NotAWallet);
        }
        // A later version may have put everything after this elsewhere.
        match u16::from_be_bytes(*fields.take()?) {
            VERSION => {}
            0 => return Err(FormatError::NotAWallet),
            newer => return Err(FormatError::Newer(newer)),
        }
        let (content, check) = file.split_last_chunk::<CHECK>().ok_or(FormatError::Length)?;
        if check_of(content) != *check {
            return Err(FormatError::Check);
        }
        let (memory, passes, lanes) = (fields.number()?, fields.number()?, fields.number()?);
        let params = KdfParams::try_new(memory, passes, lanes).map_err(|_| FormatError::Params)?;
        let salt = *fields.take()?;
        let nonce = XNonce::from(*fields.take::<NONCE>()?);
        let length = usize::try_from(fields.number()?).map_err(|_| FormatError::Length)?;
        let (header, body) = content.split_at_checked(HEADER).ok_or(FormatError::Length)?;
        if body.len() != length || length < TAG {
            return Err(FormatError::Length);
        }
        Ok(Self { lock: Lock { params, salt }, nonce, header, body })
    }

    /// What is inside, if the key is the right one and nobody changed the file.
    pub(super) fn open(&self, key: &SealKey) -> Option<Zeroizing<Vec<u8>>> {
        let (sealed, tag) = self.body.split_last_chunk::<TAG>()?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let cipher = XChaCha20Poly1305::new(key.as_ref().into());
        cipher.decrypt_in_place_detached(&self.nonce, self.header, &mut plain, tag.into()).ok()?;
        Some(plain)
    }
}

/// The bytes of a file. `None` where there is too much for one.
pub(super) fn seal(lock: Lock, key: &SealKey, plain: &[u8]) -> Option<Vec<u8>> {
    let length = plain.len().checked_add(TAG)?;
    if HEADER + length + CHECK > MAX_FILE {
        return None;
    }
    let mut nonce = XNonce::default();
    OsRng.fill_bytes(&mut nonce);
    let mut file = Vec::with_capacity(HEADER + length + CHECK);
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_be_bytes());
    for number in [lock.params.memory_kib(), lock.params.passes(), lock.params.lanes()] {
        file.extend_from_slice(&number.to_be_bytes());
    }
    file.extend_from_slice(&lock.salt);
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&u32::try_from(length).ok()?.to_be_bytes());
    let mut body = Zeroizing::new(plain.to_vec());
    let cipher = XChaCha20Poly1305::new(key.as_ref().into());
    let tag = cipher.encrypt_in_place_detached(&nonce, &file, &mut body).ok()?;
    file.extend_from_slice(&body);
    file.extend_from_slice(&tag);
    let check = check_of(&file);
    file.extend_from_slice(&check);
    Some(file)
}

fn check_of(content: &[u8]) -> [u8; CHECK] {
    let hash = blake2b_simd::Params::new().hash_length(CHECK).hash(content);
    hash.as_bytes().try_into().expect("the hash was asked for so many bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _};

    fn cheap() -> Lock {
        Lock::new(KdfParams::try_new(8, 1, 1).unwrap())
    }

    fn rechecked(mut file: Vec<u8>) -> Vec<u8> {
        let end = file.len().saturating_sub(CHECK);
        file.truncate(end);
        let check = check_of(&file);
        file.extend_from_slice(&check);
        file
    }

    #[test]
    fn a_sealed_file_opens_with_its_key_only() {
        let (lock, key) = (cheap(), SealKey::new([3; 32]));
        let file = seal(lock, &key, b"plain text of keys").unwrap();
        let sealed = Sealed::parse(&file).unwrap();
        assert_eq!(sealed.lock, lock);
        assert_eq!(sealed.open(&key).unwrap().as_slice(), b"plain text of keys");
        assert!(sealed.open(&SealKey::new([4; 32])).is_none());
        let again = seal(lock, &key, b"plain text of keys").unwrap();
        assert_ne!(file, again, "each writing has a nonce of its own");
        assert!(seal(lock, &key, &vec![0; MAX_FILE]).is_none());
    }

    #[test]
    fn every_flipped_bit_is_seen_even_under_a_corrected_check_sum() {
        let key = SealKey::new([3; 32]);
        let file = seal(cheap(), &key, b"plain text of keys").unwrap();
        for bit in 0..file.len() * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Sealed::parse(&bad).is_err(), "bit {bit}");
            if bit / 8 < file.len() - CHECK {
                let bad = rechecked(bad);
                assert!(Sealed::parse(&bad).ok().and_then(|s| s.open(&key)).is_none(), "bit {bit}");
            }
        }
        for len in 0..file.len() {
            assert!(Sealed::parse(&file[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn versions_and_costs() {
        let file = seal(cheap(), &SealKey::new([3; 32]), b"").unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut file = file.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            Sealed::parse(&rechecked(file)).unwrap_err()
        };
        assert_eq!(with(8, &[0, 2]), FormatError::Newer(2));
        assert_eq!(with(8, &[0, 0]), FormatError::NotAWallet);
        assert_eq!(with(0, b"d"), FormatError::NotAWallet);
        // 1 TiB, four billion passes, no lane.
        assert_eq!(with(10, &(1u32 << 30).to_be_bytes()), FormatError::Params);
        assert_eq!(with(14, &u32::MAX.to_be_bytes()), FormatError::Params);
        assert_eq!(with(18, &0u32.to_be_bytes()), FormatError::Params);
        assert_eq!(with(62, &u32::MAX.to_be_bytes()), FormatError::Length);
        assert_eq!(Sealed::parse(b"").unwrap_err(), FormatError::NotAWallet);
    }

    /// A million inputs: mutated files, mutated files with a corrected check sum, and noise.
    #[test]
    fn a_million_hostile_inputs() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let key = SealKey::new([3; 32]);
        let file = seal(cheap(), &key, &[5; 40]).unwrap();
        let (mut parsed, mut opened) = (0, 0);
        for turn in 0..1_000_000 {
            let input = match turn % 3 {
                0 => {
                    let mut noise = vec![0; rng.gen_range(0..200)];
                    rng.fill_bytes(&mut noise);
                    noise
                }
                kind => {
                    let mut bytes = file.clone();
                    for _ in 0..rng.gen_range(1..4) {
                        match rng.gen_range(0..4) {
                            0 => bytes.truncate(rng.gen_range(0..=bytes.len())),
                            1 => bytes.insert(rng.gen_range(0..=bytes.len()), rng.r#gen()),
                            _ if bytes.is_empty() => {}
                            _ => {
                                let at = rng.gen_range(0..bytes.len());
                                bytes[at] = rng.r#gen();
                            }
                        }
                    }
                    if kind == 1 { bytes } else { rechecked(bytes) }
                }
            };
            if let Ok(sealed) = Sealed::parse(&input) {
                parsed += 1;
                if sealed.open(&key).is_some() {
                    opened += 1;
                    assert_eq!(input, file, "only the file itself opens");
                }
            }
        }
        assert!(parsed > 10_000, "{parsed}: the inputs with a corrected check sum get behind the first gate");
        assert!(opened > 0, "a mutation that changes nothing opens");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&VERSION.to_be_bytes());
            file.extend_from_slice(&bytes);
            let _ = Sealed::parse(&file);
            let _ = Sealed::parse(&rechecked(file));
        }
    }
}
