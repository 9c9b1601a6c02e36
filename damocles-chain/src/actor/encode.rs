//! From a call to a method's parameters.

use crate::lotus_json::{AddressError, BitFieldError, bit_field_of, from_core};
use damocles_core::{
    SectorSet,
    chain::{
        Call, CreateMiner, DeclareFaults, DeclareFaultsRecovered, PartitionSectors, PreCommitBatch, ProveCommit,
        SubmitWindowedPoSt,
    },
};
use fil_actor_miner_state::v18 as miner;
use fil_actor_power_state::v18 as power;
use fil_actors_shared::v18::STORAGE_POWER_ACTOR_ADDR;
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    address::Address,
    piece::PaddedPieceSize,
    randomness::Randomness,
    sector::{PoStProof, RegisteredPoStProof, RegisteredSealProof},
};
use serde::Serialize;

/// Why a call cannot be sent to any actor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("an address in the call is not one")]
    Address(#[from] AddressError),
    #[error("the sectors of the call are no bit field")]
    Sectors(#[from] BitFieldError),
    #[error("the parameters cannot be written")]
    Cbor(#[from] fvm_ipld_encoding::Error),
    #[error("this kind of call is not known")]
    Unknown,
}

/// A call as an actor takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActorCall {
    pub(crate) to: Address,
    pub(crate) method: u64,
    pub(crate) params: RawBytes,
}

/// Turns a call into a method and its parameters.
pub(crate) fn encode(call: &Call) -> Result<ActorCall, EncodeError> {
    use miner::Method as M;
    let to = call.miner().map_or(STORAGE_POWER_ACTOR_ADDR, |id| Address::new_id(id.0));
    let (method, params) = match call {
        Call::CreateMiner(call) => (power::Method::CreateMiner as u64, create_miner(call)?),
        Call::PreCommit(call) => (M::PreCommitSectorBatch2 as u64, pre_commit(call)?),
        Call::ProveCommit(call) => (M::ProveCommitSectors3 as u64, prove_commit(call)?),
        Call::SubmitWindowedPoSt(call) => (M::SubmitWindowedPoSt as u64, submit_windowed_post(call)?),
        Call::DeclareFaults(call) => (M::DeclareFaults as u64, declare_faults(call)?),
        Call::DeclareFaultsRecovered(call) => (M::DeclareFaultsRecovered as u64, declare_recovered(call)?),
        _ => return Err(EncodeError::Unknown),
    };
    Ok(ActorCall { to, method, params })
}

fn cbor<T: Serialize>(params: &T) -> Result<RawBytes, EncodeError> {
    Ok(RawBytes::serialize(params)?)
}

fn create_miner(call: &CreateMiner) -> Result<RawBytes, EncodeError> {
    let proof = damocles_core::PoStProofType::window(call.sector_size);
    cbor(&power::CreateMinerParams {
        owner: from_core(&call.owner)?,
        worker: from_core(&call.worker)?,
        window_post_proof_type: RegisteredPoStProof::from(proof.number()),
        peer: Vec::new(),
        multiaddrs: Vec::new(),
    })
}

fn pre_commit(call: &PreCommitBatch) -> Result<RawBytes, EncodeError> {
    let info = |sector: &damocles_core::chain::PreCommit| miner::SectorPreCommitInfo {
        seal_proof: RegisteredSealProof::from(sector.proof_type.number()),
        sector_number: sector.number.0,
        sealed_cid: sector.comm_r.cid(),
        seal_rand_epoch: sector.ticket_epoch.0,
        deal_ids: Vec::new(),
        expiration: sector.expiration.0,
        unsealed_cid: miner::CompactCommD::new(sector.comm_d.map(|d| d.cid())),
    };
    cbor(&miner::PreCommitSectorBatchParams2 { sectors: call.sectors.iter().map(info).collect() })
}

fn prove_commit(call: &ProveCommit) -> Result<RawBytes, EncodeError> {
    let manifest = |sector: &damocles_core::chain::SectorProof| miner::SectorActivationManifest {
        sector_number: sector.number.0,
        pieces: sector
            .pieces
            .iter()
            .map(|p| miner::PieceActivationManifest {
                cid: p.piece.comm_p.cid(),
                size: PaddedPieceSize(p.piece.size.bytes()),
                verified_allocation_key: None,
                notify: Vec::new(),
            })
            .collect(),
    };
    cbor(&miner::ProveCommitSectors3Params {
        sector_activations: call.sectors.iter().map(manifest).collect(),
        sector_proofs: call.sectors.iter().map(|s| RawBytes::new(s.proof.clone())).collect(),
        aggregate_proof: RawBytes::default(),
        aggregate_proof_type: None,
        require_activation_success: call.all_or_nothing,
        require_notification_success: false,
    })
}

fn submit_windowed_post(call: &SubmitWindowedPoSt) -> Result<RawBytes, EncodeError> {
    let mut partitions = Vec::with_capacity(call.partitions.len());
    for partition in &call.partitions {
        partitions.push(miner::PoStPartition { index: partition.index.0, skipped: bit_field_of(&partition.skipped)? });
    }
    let post_proof = RegisteredPoStProof::from(call.proof_type.number());
    cbor(&miner::SubmitWindowedPoStParams {
        deadline: call.deadline.0,
        partitions,
        proofs: vec![PoStProof { post_proof, proof_bytes: call.proof.clone() }],
        chain_commit_epoch: call.commit_epoch.0,
        chain_commit_rand: Randomness(call.commit_randomness.0.to_vec()),
    })
}

fn declare_faults(call: &DeclareFaults) -> Result<RawBytes, EncodeError> {
    let faults = declarations(&call.faults, |deadline, partition, sectors| miner::FaultDeclaration {
        deadline,
        partition,
        sectors,
    })?;
    cbor(&miner::DeclareFaultsParams { faults })
}

fn declare_recovered(call: &DeclareFaultsRecovered) -> Result<RawBytes, EncodeError> {
    let recoveries = declarations(&call.recoveries, |deadline, partition, sectors| miner::RecoveryDeclaration {
        deadline,
        partition,
        sectors,
    })?;
    cbor(&miner::DeclareFaultsRecoveredParams { recoveries })
}

/// Declarations of the same partition are joined: the actor refuses a partition that is named twice.
fn declarations<D>(
    parts: &[PartitionSectors],
    declaration: impl Fn(u64, u64, BitField) -> D,
) -> Result<Vec<D>, EncodeError> {
    let mut joined: std::collections::BTreeMap<(u64, u64), SectorSet> = std::collections::BTreeMap::new();
    for part in parts {
        let all = joined.entry((part.deadline.0, part.partition.0)).or_default();
        *all = all.union(&part.sectors);
    }
    joined
        .into_iter()
        .map(|((deadline, partition), sectors)| Ok(declaration(deadline, partition, bit_field_of(&sectors)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{
        ActorId, CommP, CommR, DeadlineIndex, Epoch, PartitionIndex, PieceInfo, PoStProofType, SealProofType,
        SectorNumber, SectorSize,
        chain::{PieceActivation, PoStPartition, PreCommit, SectorProof},
        verify::Randomness as Drawn,
    };

    fn hex_of(call: &Call) -> (u64, String) {
        let encoded = encode(call).unwrap();
        assert_eq!(encoded.to, Address::new_id(1000));
        (encoded.method, hex::encode(encoded.params.bytes()))
    }

    const MINER: ActorId = ActorId(1000);

    #[test]
    fn pre_commits_have_the_known_bytes() {
        let sector = PreCommit {
            number: SectorNumber(1),
            proof_type: SealProofType::of(SectorSize::KiB2),
            comm_r: CommR([7; 32]),
            comm_d: None,
            ticket_epoch: Epoch(100),
            expiration: Epoch(1_000_000),
        };
        let call = Call::PreCommit(PreCommitBatch { miner: MINER, sectors: vec![sector] });
        let expected = format!("8181870501d82a5829000182e20381e80220{}1864801a000f4240f6", "07".repeat(32));
        assert_eq!(hex_of(&call), (28, expected));
    }

    #[test]
    fn posts_have_the_known_bytes() {
        let skipped = [1u64, 2, 3, 50, 70].map(SectorNumber).into_iter().collect::<SectorSet>();
        let field = hex::encode(fvm_ipld_encoding::to_vec(&bit_field_of(&skipped).unwrap()).unwrap());
        let call = Call::SubmitWindowedPoSt(SubmitWindowedPoSt {
            miner: MINER,
            deadline: DeadlineIndex(5),
            partitions: vec![
                PoStPartition { index: PartitionIndex(0), skipped: SectorSet::new() },
                PoStPartition { index: PartitionIndex(1), skipped },
            ],
            proof_type: PoStProofType::window(SectorSize::KiB2),
            proof: vec![9; 192],
            commit_epoch: Epoch(123),
            commit_randomness: Drawn([1; 32]),
        });
        let expected = format!("8505828200408201{field}81820a58c0{}187b5820{}", "09".repeat(192), "01".repeat(32));
        assert_eq!(hex_of(&call), (5, expected));
    }

    #[test]
    fn proofs_have_the_known_bytes() {
        let piece = PieceInfo { comm_p: CommP([2; 32]), size: 2048u64.try_into().unwrap() };
        let sector =
            SectorProof { number: SectorNumber(1), proof: vec![1, 2, 3], pieces: vec![PieceActivation { piece }] };
        let call = Call::ProveCommit(ProveCommit { miner: MINER, sectors: vec![sector], all_or_nothing: true });
        let cid = hex::encode(CommP([2; 32]).cid().to_bytes());
        let expected = format!("86818201 8184d82a5828 00{cid}190800f680 81 43010203 40 f6 f5 f4").replace(' ', "");
        let (method, params) = hex_of(&call);
        assert_eq!(method, 34);
        // The CID of a piece has 39 bytes, and the multibase prefix of links.
        assert_eq!(params, expected);
    }

    #[test]
    fn faults_have_the_known_bytes_and_are_joined() {
        let part = |numbers: &[u64]| PartitionSectors {
            deadline: DeadlineIndex(1),
            partition: PartitionIndex(0),
            sectors: numbers.iter().copied().map(SectorNumber).collect(),
        };
        let field = |numbers: &[u64]| {
            hex::encode(fvm_ipld_encoding::to_vec(&bit_field_of(&part(numbers).sectors).unwrap()).unwrap())
        };
        let call = Call::DeclareFaults(DeclareFaults { miner: MINER, faults: vec![part(&[7])] });
        assert_eq!(hex_of(&call), (10, format!("8181830100{}", field(&[7]))));
        let call = Call::DeclareFaultsRecovered(DeclareFaultsRecovered {
            miner: MINER,
            recoveries: vec![part(&[7]), part(&[7, 8])],
        });
        assert_eq!(hex_of(&call), (11, format!("8181830100{}", field(&[7, 8]))));
    }

    #[test]
    fn miners_are_created_at_the_power_actor() {
        let address = |n: u64| damocles_core::Address::from_actor(ActorId(n));
        let call = CreateMiner { owner: address(100), worker: address(101), sector_size: SectorSize::KiB2 };
        let encoded = encode(&Call::CreateMiner(call)).unwrap();
        assert_eq!((encoded.to, encoded.method), (Address::new_id(4), 2));
        let params: power::CreateMinerParams = encoded.params.deserialize().unwrap();
        assert_eq!(params.worker, Address::new_id(101));
        assert_eq!(params.window_post_proof_type, RegisteredPoStProof::StackedDRGWindow2KiBV1P1);
    }
}
