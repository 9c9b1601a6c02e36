//! From a method's parameters back to a call.

use crate::lotus_json::sector_set_of;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use damocles_core::{
    ActorId, CommD, CommP, CommR, DeadlineIndex, Epoch, PaddedPieceSize, PartitionIndex, PieceInfo, PoStProofType,
    SealProofType, SectorNumber,
    chain::{
        Call, PieceActivation, PoStPartition, PreCommit, PreCommitBatch, ProveCommit, SectorProof, SubmitWindowedPoSt,
    },
    verify::Randomness,
};
use fil_actor_miner_state::v18::{
    self as miner, Method as M, PreCommitSectorBatchParams2, ProveCommitSectors3Params, SubmitWindowedPoStParams,
};
use fvm_ipld_encoding::{RawBytes, de::DeserializeOwned};

/// Reads a message that was sent to a miner: pre-commits, prove-commits and window PoSts. None for any other method,
/// and for parameters that no client of ours would send.
///
/// `params` is base64, as on Lotus' wire.
pub fn decode_call(miner: ActorId, method: u64, params: &str) -> Option<Call> {
    let params = STANDARD.decode(params).ok()?;
    if method == M::PreCommitSectorBatch2 as u64 {
        let sectors = read::<PreCommitSectorBatchParams2>(params)?.sectors;
        let sectors = sectors.iter().map(pre_commit).collect::<Option<_>>()?;
        return Some(Call::PreCommit(PreCommitBatch { miner, sectors }));
    }
    if method == M::ProveCommitSectors3 as u64 {
        return prove_commit(miner, read(params)?).map(Call::ProveCommit);
    }
    if method == M::SubmitWindowedPoSt as u64 {
        return window_post(miner, read(params)?).map(Call::SubmitWindowedPoSt);
    }
    None
}

fn read<T: DeserializeOwned>(params: Vec<u8>) -> Option<T> {
    RawBytes::new(params).deserialize().ok()
}

fn pre_commit(info: &miner::SectorPreCommitInfo) -> Option<PreCommit> {
    let comm_d = match info.unsealed_cid.0 {
        Some(cid) => Some(CommD::from_cid(&cid).ok()?),
        None => None,
    };
    Some(PreCommit {
        number: SectorNumber(info.sector_number),
        proof_type: SealProofType::try_from(i64::from(info.seal_proof)).ok()?,
        comm_r: CommR::from_cid(&info.sealed_cid).ok()?,
        comm_d,
        ticket_epoch: Epoch(info.seal_rand_epoch),
        expiration: Epoch(info.expiration),
    })
}

fn prove_commit(miner: ActorId, params: ProveCommitSectors3Params) -> Option<ProveCommit> {
    let proofs = params.sector_activations.iter().zip(&params.sector_proofs);
    let sectors = proofs.map(|(manifest, proof)| {
        let pieces = manifest.pieces.iter().map(|piece| {
            let comm_p = CommP::from_cid(&piece.cid).ok()?;
            let size = PaddedPieceSize::try_from(piece.size.0).ok()?;
            Some(PieceActivation { piece: PieceInfo { comm_p, size } })
        });
        Some(SectorProof {
            number: SectorNumber(manifest.sector_number),
            proof: proof.bytes().to_vec(),
            pieces: pieces.collect::<Option<_>>()?,
        })
    });
    Some(ProveCommit {
        miner,
        sectors: sectors.collect::<Option<_>>()?,
        all_or_nothing: params.require_activation_success,
    })
}

fn window_post(miner: ActorId, params: SubmitWindowedPoStParams) -> Option<SubmitWindowedPoSt> {
    let partitions = params.partitions.iter().map(|partition| {
        let skipped = sector_set_of(&partition.skipped).ok()?;
        Some(PoStPartition { index: PartitionIndex(partition.index), skipped })
    });
    let proof = params.proofs.into_iter().next()?;
    Some(SubmitWindowedPoSt {
        miner,
        deadline: DeadlineIndex(params.deadline),
        partitions: partitions.collect::<Option<_>>()?,
        proof_type: PoStProofType::try_from(i64::from(proof.post_proof)).ok()?,
        proof: proof.proof_bytes,
        commit_epoch: Epoch(params.chain_commit_epoch),
        commit_randomness: Randomness(params.chain_commit_rand.0.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::encode;
    use damocles_core::SectorSize;

    #[test]
    fn what_is_encoded_reads_back() {
        let miner = ActorId(1000);
        let proof_type = SealProofType::of(SectorSize::KiB2);
        let piece = PieceInfo { comm_p: CommP([3; 32]), size: PaddedPieceSize::try_from(2048).unwrap() };
        let calls = [
            Call::PreCommit(PreCommitBatch {
                miner,
                sectors: vec![PreCommit {
                    number: SectorNumber(7),
                    proof_type,
                    comm_r: CommR([1; 32]),
                    comm_d: Some(CommD([2; 32])),
                    ticket_epoch: Epoch(100),
                    expiration: Epoch(1_000_000),
                }],
            }),
            Call::ProveCommit(ProveCommit {
                miner,
                sectors: vec![SectorProof {
                    number: SectorNumber(7),
                    proof: vec![9; 192],
                    pieces: vec![PieceActivation { piece }],
                }],
                all_or_nothing: true,
            }),
            Call::SubmitWindowedPoSt(SubmitWindowedPoSt {
                miner,
                deadline: DeadlineIndex(5),
                partitions: vec![PoStPartition {
                    index: PartitionIndex(1),
                    skipped: [SectorNumber(3), SectorNumber(4)].into_iter().collect(),
                }],
                proof_type: proof_type.window_post(),
                proof: vec![8; 192],
                commit_epoch: Epoch(123),
                commit_randomness: Randomness([4; 32]),
            }),
        ];
        for call in calls {
            let encoded = encode(&call).unwrap();
            let params = STANDARD.encode(encoded.params.bytes());
            assert_eq!(decode_call(miner, encoded.method, &params), Some(call));
        }
        assert_eq!(decode_call(miner, 5, "rubbish"), None);
        assert_eq!(decode_call(miner, 5, "AAAA"), None);
    }
}
