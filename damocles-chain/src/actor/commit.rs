//! Calls that bring sectors onto the chain, and back.

use super::{
    encode::{EncodeError, cbor},
    limits,
    read::read,
};
use crate::lotus_json::{from_core, to_core};
use damocles_core::{
    ActorId, CommD, CommP, CommR, DeadlineIndex, Epoch, PaddedPieceSize, PartitionIndex, PieceInfo, SealProofType,
    SectorNumber, SectorSize,
    chain::{
        Allocation, AllocationId, Call, NiSector, Notification, PieceActivation, PreCommit, PreCommitBatch,
        ProveCommit, ProveCommitAggregate, ProveCommitNi, ProveReplicaUpdates, SectorPieces, SectorProof, SectorUpdate,
    },
};
use fil_actor_miner_state::v18 as miner;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    piece::PaddedPieceSize as ChainPieceSize,
    sector::{RegisteredAggregateProof, RegisteredSealProof, RegisteredUpdateProof},
};

pub(super) fn pre_commit(call: &PreCommitBatch) -> Result<RawBytes, EncodeError> {
    limits::batch(call.sectors.iter().map(|s| s.number))?;
    let info = |sector: &PreCommit| miner::SectorPreCommitInfo {
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

pub(super) fn read_pre_commit(miner: ActorId, params: &[u8]) -> Option<Call> {
    let sectors = read::<miner::PreCommitSectorBatchParams2>(params)?.sectors;
    let sector = |info: &miner::SectorPreCommitInfo| {
        let comm_d = match info.unsealed_cid.0 {
            Some(cid) => Some(CommD::from_cid(&cid).ok()?),
            None => None,
        };
        if !info.deal_ids.is_empty() {
            return None;
        }
        Some(PreCommit {
            number: SectorNumber(info.sector_number),
            proof_type: SealProofType::try_from(i64::from(info.seal_proof)).ok()?,
            comm_r: CommR::from_cid(&info.sealed_cid).ok()?,
            comm_d,
            ticket_epoch: Epoch(info.seal_rand_epoch),
            expiration: Epoch(info.expiration),
        })
    };
    let sectors = sectors.iter().map(sector).collect::<Option<_>>()?;
    Some(Call::PreCommit(PreCommitBatch { miner, sectors }))
}

fn write_pieces(pieces: &[PieceActivation]) -> Result<Vec<miner::PieceActivationManifest>, EncodeError> {
    let notification = |told: &Notification| {
        let payload = RawBytes::new(told.payload.clone());
        Ok(miner::DataActivationNotification { address: from_core(&told.receiver)?, payload })
    };
    let piece = |piece: &PieceActivation| {
        Ok(miner::PieceActivationManifest {
            cid: piece.piece.comm_p.cid(),
            size: ChainPieceSize(piece.piece.size.bytes()),
            verified_allocation_key: piece
                .allocation
                .map(|a| miner::VerifiedAllocationKey { client: a.client.0, id: a.id.0 }),
            notify: piece.notify.iter().map(notification).collect::<Result<_, EncodeError>>()?,
        })
    };
    pieces.iter().map(piece).collect()
}

fn read_pieces(pieces: Vec<miner::PieceActivationManifest>) -> Option<Vec<PieceActivation>> {
    let notification = |told: miner::DataActivationNotification| Notification {
        receiver: to_core(&told.address),
        payload: told.payload.into(),
    };
    let piece = |piece: miner::PieceActivationManifest| {
        let comm_p = CommP::from_cid(&piece.cid).ok()?;
        let size = PaddedPieceSize::try_from(piece.size.0).ok()?;
        let allocation = piece
            .verified_allocation_key
            .map(|key| Allocation { client: ActorId(key.client), id: AllocationId(key.id) });
        let notify = piece.notify.into_iter().map(notification).collect();
        Some(PieceActivation { piece: PieceInfo { comm_p, size }, allocation, notify })
    };
    pieces.into_iter().map(piece).collect()
}

fn manifest(number: SectorNumber, pieces: &[PieceActivation]) -> Result<miner::SectorActivationManifest, EncodeError> {
    Ok(miner::SectorActivationManifest { sector_number: number.0, pieces: write_pieces(pieces)? })
}

pub(super) fn prove_commit(call: &ProveCommit) -> Result<RawBytes, EncodeError> {
    limits::batch(call.sectors.iter().map(|s| s.number))?;
    for sector in &call.sectors {
        limits::count("bytes of proof", sector.proof.len(), &limits::PROOF_BYTES)?;
    }
    let manifests = call.sectors.iter().map(|s| manifest(s.number, &s.pieces));
    cbor(&miner::ProveCommitSectors3Params {
        sector_activations: manifests.collect::<Result<_, _>>()?,
        sector_proofs: call.sectors.iter().map(|s| RawBytes::new(s.proof.clone())).collect(),
        aggregate_proof: RawBytes::default(),
        aggregate_proof_type: None,
        require_activation_success: call.all_or_nothing,
        require_notification_success: false,
    })
}

pub(super) fn aggregate(call: &ProveCommitAggregate) -> Result<RawBytes, EncodeError> {
    limits::count("sectors in an aggregate", call.sectors.len(), &limits::AGGREGATED)?;
    limits::batch(call.sectors.iter().map(|s| s.number))?;
    limits::count("bytes of aggregated proof", call.proof.len(), &limits::AGGREGATE_BYTES)?;
    let manifests = call.sectors.iter().map(|s| manifest(s.number, &s.pieces));
    cbor(&miner::ProveCommitSectors3Params {
        sector_activations: manifests.collect::<Result<_, _>>()?,
        sector_proofs: Vec::new(),
        aggregate_proof: RawBytes::new(call.proof.clone()),
        aggregate_proof_type: Some(RegisteredAggregateProof::SnarkPackV2),
        require_activation_success: call.all_or_nothing,
        require_notification_success: false,
    })
}

pub(super) fn read_prove_commit(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ProveCommitSectors3Params = read(params)?;
    if params.require_notification_success {
        return None;
    }
    let all_or_nothing = params.require_activation_success;
    let manifests = params.sector_activations.into_iter();
    if params.aggregate_proof_type == Some(RegisteredAggregateProof::SnarkPackV2) && params.sector_proofs.is_empty() {
        let sector = |m: miner::SectorActivationManifest| {
            Some(SectorPieces { number: SectorNumber(m.sector_number), pieces: read_pieces(m.pieces)? })
        };
        let sectors = manifests.map(sector).collect::<Option<_>>()?;
        let proof = params.aggregate_proof.into();
        return Some(Call::ProveCommitAggregate(ProveCommitAggregate { miner, sectors, proof, all_or_nothing }));
    }
    let one_each = params.aggregate_proof.is_empty() && params.aggregate_proof_type.is_none();
    if !one_each || manifests.len() != params.sector_proofs.len() {
        return None;
    }
    let sector = |(m, proof): (miner::SectorActivationManifest, RawBytes)| {
        Some(SectorProof { number: SectorNumber(m.sector_number), proof: proof.into(), pieces: read_pieces(m.pieces)? })
    };
    let sectors = manifests.zip(params.sector_proofs).map(sector).collect::<Option<_>>()?;
    Some(Call::ProveCommit(ProveCommit { miner, sectors, all_or_nothing }))
}

const fn update_proof(size: SectorSize) -> RegisteredUpdateProof {
    match size {
        SectorSize::KiB2 => RegisteredUpdateProof::StackedDRG2KiBV1,
        SectorSize::MiB8 => RegisteredUpdateProof::StackedDRG8MiBV1,
        SectorSize::MiB512 => RegisteredUpdateProof::StackedDRG512MiBV1,
        SectorSize::GiB32 => RegisteredUpdateProof::StackedDRG32GiBV1,
        SectorSize::GiB64 => RegisteredUpdateProof::StackedDRG64GiBV1,
    }
}

pub(super) fn updates(call: &ProveReplicaUpdates) -> Result<RawBytes, EncodeError> {
    limits::batch(call.sectors.iter().map(|s| s.number))?;
    let mut updates = Vec::with_capacity(call.sectors.len());
    for sector in &call.sectors {
        limits::deadline(sector.deadline)?;
        limits::count("bytes of update proof", sector.proof.len(), &limits::UPDATE_BYTES)?;
        updates.push(miner::SectorUpdateManifest {
            sector: sector.number.0,
            deadline: sector.deadline.0,
            partition: sector.partition.0,
            new_sealed_cid: sector.comm_r.cid(),
            pieces: write_pieces(&sector.pieces)?,
        });
    }
    cbor(&miner::ProveReplicaUpdates3Params {
        sector_updates: updates,
        sector_proofs: call.sectors.iter().map(|s| RawBytes::new(s.proof.clone())).collect(),
        aggregate_proof: RawBytes::default(),
        update_proofs_type: update_proof(call.sector_size),
        aggregate_proof_type: None,
        require_activation_success: call.all_or_nothing,
        require_notification_success: false,
    })
}

pub(super) fn read_updates(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ProveReplicaUpdates3Params = read(params)?;
    let one_each = params.aggregate_proof.is_empty() && params.aggregate_proof_type.is_none();
    let same = params.sector_updates.len() == params.sector_proofs.len();
    if !one_each || !same || params.require_notification_success {
        return None;
    }
    let sector_size = SectorSize::ALL.into_iter().find(|size| update_proof(*size) == params.update_proofs_type)?;
    let sector = |(update, proof): (miner::SectorUpdateManifest, RawBytes)| {
        Some(SectorUpdate {
            number: SectorNumber(update.sector),
            deadline: DeadlineIndex(update.deadline),
            partition: PartitionIndex(update.partition),
            comm_r: CommR::from_cid(&update.new_sealed_cid).ok()?,
            proof: proof.into(),
            pieces: read_pieces(update.pieces)?,
        })
    };
    let sectors = params.sector_updates.into_iter().zip(params.sector_proofs).map(sector).collect::<Option<_>>()?;
    let all_or_nothing = params.require_activation_success;
    Some(Call::ProveReplicaUpdates(ProveReplicaUpdates { miner, sector_size, sectors, all_or_nothing }))
}

const fn ni_proof(size: SectorSize) -> RegisteredSealProof {
    match size {
        SectorSize::KiB2 => RegisteredSealProof::StackedDRG2KiBV1P2_Feat_NiPoRep,
        SectorSize::MiB8 => RegisteredSealProof::StackedDRG8MiBV1P2_Feat_NiPoRep,
        SectorSize::MiB512 => RegisteredSealProof::StackedDRG512MiBV1P2_Feat_NiPoRep,
        SectorSize::GiB32 => RegisteredSealProof::StackedDRG32GiBV1P2_Feat_NiPoRep,
        SectorSize::GiB64 => RegisteredSealProof::StackedDRG64GiBV1P2_Feat_NiPoRep,
    }
}

pub(super) fn non_interactive(call: &ProveCommitNi) -> Result<RawBytes, EncodeError> {
    limits::count("sectors in a non-interactive aggregate", call.sectors.len(), &limits::AGGREGATED_NI)?;
    limits::batch(call.sectors.iter().map(|s| s.number))?;
    limits::count("bytes of aggregated proof", call.proof.len(), &limits::AGGREGATE_BYTES)?;
    limits::deadline(call.deadline)?;
    let sector = |sector: &NiSector| miner::SectorNIActivationInfo {
        sealing_number: sector.number.0,
        sealer_id: call.miner.0,
        sealed_cid: sector.comm_r.cid(),
        sector_number: sector.number.0,
        seal_rand_epoch: sector.ticket_epoch.0,
        expiration: sector.expiration.0,
    };
    cbor(&miner::ProveCommitSectorsNIParams {
        sectors: call.sectors.iter().map(sector).collect(),
        aggregate_proof: RawBytes::new(call.proof.clone()),
        seal_proof_type: ni_proof(call.sector_size),
        aggregate_proof_type: RegisteredAggregateProof::SnarkPackV2,
        proving_deadline: call.deadline.0,
        require_activation_success: call.all_or_nothing,
    })
}

pub(super) fn read_non_interactive(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ProveCommitSectorsNIParams = read(params)?;
    if params.aggregate_proof_type != RegisteredAggregateProof::SnarkPackV2 {
        return None;
    }
    let sector_size = SectorSize::ALL.into_iter().find(|size| ni_proof(*size) == params.seal_proof_type)?;
    let sector = |info: miner::SectorNIActivationInfo| {
        let own = info.sealer_id == miner.0 && info.sealing_number == info.sector_number;
        own.then(|| CommR::from_cid(&info.sealed_cid).ok()).flatten().map(|comm_r| NiSector {
            number: SectorNumber(info.sector_number),
            comm_r,
            ticket_epoch: Epoch(info.seal_rand_epoch),
            expiration: Epoch(info.expiration),
        })
    };
    Some(Call::ProveCommitNi(ProveCommitNi {
        miner,
        sector_size,
        sectors: params.sectors.into_iter().map(sector).collect::<Option<_>>()?,
        proof: params.aggregate_proof.into(),
        deadline: DeadlineIndex(params.proving_deadline),
        all_or_nothing: params.require_activation_success,
    }))
}
