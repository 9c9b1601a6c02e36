//! From a password to the key of a file.

use super::{Password, WalletError, WalletErrorKind};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize as _, Zeroizing};

/// The key that a file is sealed with.
pub(super) type SealKey = Zeroizing<[u8; 32]>;
/// Makes equal passwords give different keys.
pub(super) type Salt = [u8; 16];

const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 64;
const MOST_LANES: u32 = 16;
/// Memory times passes: some ten seconds of work.
const MOST_WORK_KIB: u64 = 4 << 20;

/// What argon2id costs: memory, passes over it, and lanes.
///
/// - At least 8 KiB of memory for each lane, at most 1 GiB in all.
/// - Memory times passes is at most 4 GiB, so that no file can ask for more than some seconds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl KdfParams {
    /// For wallets with funds: 256 MiB and three passes.
    pub const STANDARD: Self = Self { memory_kib: 256 << 10, passes: 3, lanes: 1 };

    /// Other costs. A wallet of low cost is only as safe as its password is long.
    ///
    /// # Errors
    ///
    /// They are out of bounds.
    pub fn try_new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, WalletError> {
        let bounded = (1..=MOST_LANES).contains(&lanes)
            && (1..=MOST_PASSES).contains(&passes)
            && (8 * lanes..=MOST_MEMORY_KIB).contains(&memory_kib)
            && u64::from(memory_kib) * u64::from(passes) <= MOST_WORK_KIB;
        if bounded {
            return Ok(Self { memory_kib, passes, lanes });
        }
        Err(WalletError::new(WalletErrorKind::BadSetting, "set cost of password")
            .with("memory", format_args!("{memory_kib} KiB"))
            .with("passes", passes)
            .with("lanes", lanes)
            .hint_with(
                "memory is 8 KiB for each lane to 1 GiB, passes 1 to 64, lanes 1 to 16, and memory times passes at \
                 most 4 GiB",
            ))
    }

    /// Memory in KiB.
    pub fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    pub fn passes(self) -> u32 {
        self.passes
    }

    /// Lanes.
    pub fn lanes(self) -> u32 {
        self.lanes
    }

    /// The key that the password and the salt give. It takes as long as the costs say.
    pub(super) fn derive(self, password: &Password, salt: &Salt) -> Result<SealKey, WalletError> {
        self.run(password, salt)
    }

    fn run(self, password: &Password, salt: &[u8]) -> Result<SealKey, WalletError> {
        let failed = |what: String| {
            WalletError::new(WalletErrorKind::Io, "derive key from password")
                .with("memory", format_args!("{} KiB", self.memory_kib))
                .because(what)
        };
        let mut key = SealKey::default();
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(key.len()))
            .map_err(|e| failed(e.to_string()))?;
        let count = params.block_count();
        let mut memory = Memory(Vec::new());
        // A machine without so much memory is told so instead of the process being stopped.
        memory.0.try_reserve_exact(count).map_err(|e| failed(e.to_string()))?;
        memory.0.resize(count, Block::default());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password.expose(), salt, key.as_mut_slice(), memory.0.as_mut_slice())
            .map_err(|e| failed(e.to_string()))?;
        Ok(key)
    }
}

impl Default for KdfParams {
    fn default() -> Self {
        Self::STANDARD
    }
}

struct Memory(Vec<Block>);

impl Drop for Memory {
    fn drop(&mut self) {
        for block in &mut self.0 {
            block.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        for (memory, passes, lanes) in [(8, 1, 1), (128, 1, 16), (1 << 20, 4, 4), (256 << 10, 3, 1), (65536, 64, 4)] {
            assert!(KdfParams::try_new(memory, passes, lanes).is_ok(), "{memory} {passes} {lanes}");
        }
        for (memory, passes, lanes) in [
            (7, 1, 1),
            (15, 1, 2),
            (8, 0, 1),
            (8, 1, 0),
            (8, 65, 1),
            (1 << 20, 5, 1),
            ((1 << 20) + 1, 1, 1),
            (u32::MAX, u32::MAX, u32::MAX),
            (1 << 30, 1, 1),
            (1024, 1, 17),
        ] {
            let error = KdfParams::try_new(memory, passes, lanes).unwrap_err();
            assert_eq!(error.kind(), WalletErrorKind::BadSetting);
        }
    }

    #[test]
    fn argon2id_gives_the_known_answer() {
        // Of the test suite of Argon2's reference implementation: version 0x13, t = 2, m = 256 KiB, p = 1.
        let params = KdfParams::try_new(256, 2, 1).unwrap();
        let key = params.run(&Password::new("password"), b"somesalt").unwrap();
        assert_eq!(hex::encode(key), "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
    }
}
