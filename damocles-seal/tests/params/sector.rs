//! A real 2 KiB sector, sealed through the proofs library in a temporary directory.

use std::fs::File;
use std::path::PathBuf;

use filecoin_proofs_api::seal::{
    SealPreCommitPhase2Output, add_piece, seal_commit_phase1, seal_commit_phase2, seal_pre_commit_phase1,
    seal_pre_commit_phase2,
};
use filecoin_proofs_api::{PieceInfo, ProverId, RegisteredSealProof, SectorId, UnpaddedBytesAmount};
use tempfile::TempDir;

pub(crate) const SECTOR_SIZE: u64 = 2048;
pub(crate) const SEAL_PROOF: RegisteredSealProof = RegisteredSealProof::StackedDrg2KiBV1_1;

pub(crate) struct SealedSector {
    pub(crate) number: u64,
    pub(crate) ticket: [u8; 32],
    pub(crate) replica: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) pre_commit: SealPreCommitPhase2Output,
    pieces: Vec<PieceInfo>,
    _dir: TempDir,
}

/// The payload of the miner's id address, padded: what the proofs call the prover.
pub(crate) fn prover_id(miner: u64) -> ProverId {
    let mut prover = [0; 32];
    let mut rest = miner;
    for byte in &mut prover {
        let low = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
        *byte = if rest == 0 { low } else { low | 0x80 };
        if rest == 0 {
            break;
        }
    }
    prover
}

/// Chain randomness is masked to a field element.
pub(crate) fn randomness(fill: u8) -> [u8; 32] {
    let mut value = [fill; 32];
    value[31] &= 0x3f;
    value
}

impl SealedSector {
    /// Pre-commit phases 1 and 2 with data that depends on the number.
    pub(crate) fn seal(miner: u64, number: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (unsealed, replica, cache) =
            (dir.path().join("unsealed"), dir.path().join("replica"), dir.path().join("cache"));
        std::fs::create_dir(&cache).unwrap();
        File::create(&replica).unwrap();
        let data: Vec<u8> = (0..2032_u64).map(|i| u8::try_from((i * 31 + number * 7) % 251).unwrap()).collect();
        let target = File::options().read(true).write(true).create_new(true).open(&unsealed).unwrap();
        let (piece, _) = add_piece(SEAL_PROOF, data.as_slice(), target, UnpaddedBytesAmount(2032), &[]).unwrap();
        let pieces = vec![piece];
        let ticket = randomness(0x11);
        let (prover, id) = (prover_id(miner), SectorId::from(number));
        let first =
            seal_pre_commit_phase1(SEAL_PROOF, &cache, &unsealed, &replica, prover, id, ticket, &pieces).unwrap();
        let pre_commit = seal_pre_commit_phase2(first, &cache, &replica).unwrap();
        Self { number, ticket, replica, cache, pre_commit, pieces, _dir: dir }
    }

    /// Both commit phases; the second takes minutes of CPU.
    pub(crate) fn prove(&self, miner: u64, seed: [u8; 32]) -> Vec<u8> {
        let (prover, id) = (prover_id(miner), SectorId::from(self.number));
        let first = seal_commit_phase1(
            &self.cache,
            &self.replica,
            prover,
            id,
            self.ticket,
            seed,
            self.pre_commit.clone(),
            &self.pieces,
        )
        .unwrap();
        seal_commit_phase2(first, prover, id).unwrap().proof
    }
}
