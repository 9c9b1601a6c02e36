//! Reading the challenged leaves.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::expect_len,
    library::{self, failed},
    panic_text,
};
use damocles_core::{
    CommR, PoStProofType, SectorNumber,
    post::{ChallengeRead, ReadChallenges, Replica},
};
use filecoin_hashers::{Domain, HashFunction, Hasher};
use filecoin_proofs::constants::{DefaultTreeDomain, DefaultTreeHasher};
use filecoin_proofs_api::{PrivateReplicaInfo, SectorId, post};
use rayon::prelude::*;
use std::{
    collections::BTreeMap,
    error::Error as StdError,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};
use storage_proofs_core::cache_key::CacheKey;

/// Reads each replica with the proofs library, which checks every leaf against the root of its tree.
///
/// The library, in every node of the network, orders a statement by sector number and takes each sector once, so the
/// answer does too: one read for each sector, ascending. A sector that the statement names twice (as a substitute for
/// a faulty one) must be the same replica both times.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadChallengesProcessor;

impl Processor<ReadChallenges> for ReadChallengesProcessor {
    fn process(&self, task: ReadChallenges, progress: &dyn ProgressSink) -> Result<Vec<ChallengeRead>, ProcessorError> {
        let mut replicas: BTreeMap<SectorNumber, Replica> = BTreeMap::new();
        for replica in task.replicas {
            let number = replica.sector.number;
            let comm_r = replica.sector.comm_r;
            if replicas.insert(number, replica).is_some_and(|other| other.sector.comm_r != comm_r) {
                return Err(ProcessorError::because(format!("the statement names two replicas of sector {number}")));
            }
        }
        let ids: Vec<SectorId> = replicas.keys().map(|number| library::sector_id(*number)).collect();
        let challenges = post::generate_fallback_sector_challenges(
            library::post_proof(task.proof_type),
            &task.randomness.for_post().0,
            &ids,
            library::prover_id(task.miner),
        )
        .map_err(|e| failed(format!("draw the challenges of miner {}", task.miner), e))?;
        let total = u64::try_from(replicas.len()).ok();
        let done = AtomicU64::new(0);
        let read = |(number, replica): (SectorNumber, Replica)| {
            let challenges = challenges.get(&library::sector_id(number)).map(Vec::as_slice);
            let read = match read(task.proof_type, &replica, challenges.unwrap_or_default()) {
                Ok(vanilla) => ChallengeRead::Read { number, vanilla },
                Err(reason) => ChallengeRead::Bad { number, reason },
            };
            (done.fetch_add(1, Ordering::Relaxed) + 1, read)
        };
        let reads: Vec<(u64, ChallengeRead)> = replicas.into_par_iter().map(read).collect();
        progress.progress(done.load(Ordering::Relaxed), total);
        Ok(reads.into_iter().map(|(_, read)| read).collect())
    }
}

fn read(proof_type: PoStProofType, replica: &Replica, challenges: &[u64]) -> Result<Vec<u8>, String> {
    let paths = &replica.paths;
    expect_len("sealed file", &paths.sealed, proof_type.sector_size().bytes()).map_err(|e| chain(&e))?;
    expect_root(replica).map_err(|e| chain(&e))?;
    let proof = library::post_proof(proof_type);
    let info = PrivateReplicaInfo::new(proof, replica.sector.comm_r.0, paths.cache.clone(), paths.sealed.clone());
    let id = library::sector_id(replica.sector.number);
    let prove = AssertUnwindSafe(|| post::generate_single_vanilla_proof(proof, id, &info, challenges));
    match catch_unwind(prove) {
        Ok(Ok(vanilla)) => Ok(vanilla),
        Ok(Err(error)) => {
            Err(chain(&failed(format!("read {} and {}", paths.sealed.display(), paths.cache.display()), error)))
        }
        Err(panic) => Err(format!("read {}: {}", paths.sealed.display(), panic_text(&*panic))),
    }
}

/// Checks that the files are those of the replica: leaves of another replica read well and spoil the whole proof.
fn expect_root(replica: &Replica) -> Result<(), ProcessorError> {
    let path = replica.paths.cache.join(CacheKey::PAux.to_string());
    let bytes = fs_err::read(&path).map_err(|e| ProcessorError::new("read the replica's roots", e))?;
    let not_roots = || ProcessorError::because(format!("{} does not hold the roots of a replica", path.display()));
    let (comm_c, comm_r_last) = bytes.split_first_chunk::<32>().ok_or_else(not_roots)?;
    let comm_c = DefaultTreeDomain::try_from_bytes(comm_c).map_err(|_| not_roots())?;
    let comm_r_last = DefaultTreeDomain::try_from_bytes(comm_r_last).map_err(|_| not_roots())?;
    let comm_r = <DefaultTreeHasher as Hasher>::Function::hash2(&comm_c, &comm_r_last);
    let (found, expected) = (CommR(comm_r.into()), replica.sector.comm_r);
    if found == expected {
        return Ok(());
    }
    let dir = replica.paths.cache.display();
    Err(ProcessorError::because(format!("{dir} belongs to the replica {found}, not to {expected}")))
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
