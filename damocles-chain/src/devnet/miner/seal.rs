//! What proofs of sectors are about, in the words of the verifier.

use super::invocation::Invocation;
use cid::Cid;
use damocles_core::{
    ActorId, AggregationType, CommD, CommR, SealProofType, SectorId, SectorNumber, SectorSize,
    verify::{
        AggregateSealStatement, AggregatedSeal, NiSeal, NiSealStatement, Randomness, SealStatement, UpdateStatement,
        VerifyError,
    },
};
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_shared::sector::RegisteredSealProof;
use std::fmt::Display;

/// The public inputs of the proof of one sector.
#[derive(Clone)]
pub(super) struct SealInput {
    pub(super) number: u64,
    pub(super) sealed: Cid,
    pub(super) data: Cid,
    pub(super) ticket: [u8; 32],
    pub(super) seed: [u8; 32],
}

fn wrong<'w>(what: &'w str) -> impl Fn(&dyn Display) -> ActorError + 'w {
    move |e| actor_error_v18!(illegal_argument, "{}: {}", what, e)
}

fn failed(e: &VerifyError) -> ActorError {
    actor_error_v18!(illegal_state, "proof verifier: {}", e.chain())
}

fn proof_type(proof: RegisteredSealProof) -> Result<SealProofType, ActorError> {
    SealProofType::try_from(i64::from(proof)).map_err(|e| wrong("seal proof type")(&e))
}

fn sealed(cid: &Cid) -> Result<CommR, ActorError> {
    CommR::from_cid(cid).map_err(|e| wrong("sealed CID")(&e))
}

fn data(cid: &Cid) -> Result<CommD, ActorError> {
    CommD::from_cid(cid).map_err(|e| wrong("unsealed CID")(&e))
}

/// Whether one proof holds for one sector.
pub(super) fn verify_one(
    call: &Invocation<'_, '_>,
    proof: RegisteredSealProof,
    input: &SealInput,
    bytes: &[u8],
) -> Result<bool, ActorError> {
    let statement = SealStatement {
        sector: SectorId::new(ActorId(call.miner), SectorNumber(input.number)),
        proof_type: proof_type(proof)?,
        comm_r: sealed(&input.sealed)?,
        comm_d: data(&input.data)?,
        ticket: Randomness(input.ticket),
        seed: Randomness(input.seed),
    };
    call.world.verifier.verify_seal(&statement, bytes).map_err(|e| failed(&e))
}

/// Whether one proof holds for many interactive sectors.
pub(super) fn verify_aggregate(
    call: &Invocation<'_, '_>,
    proof: RegisteredSealProof,
    inputs: &[SealInput],
    bytes: &[u8],
) -> Result<bool, ActorError> {
    let of = |input: &SealInput| -> Result<AggregatedSeal, ActorError> {
        Ok(AggregatedSeal {
            number: SectorNumber(input.number),
            comm_r: sealed(&input.sealed)?,
            comm_d: data(&input.data)?,
            ticket: Randomness(input.ticket),
            seed: Randomness(input.seed),
        })
    };
    let statement = AggregateSealStatement {
        miner: ActorId(call.miner),
        proof_type: proof_type(proof)?,
        aggregation: AggregationType::SnarkPackV2,
        sectors: inputs.iter().map(of).collect::<Result<_, _>>()?,
    };
    call.world.verifier.verify_aggregate_seals(&statement, bytes).map_err(|e| failed(&e))
}

/// Whether one proof holds for non-interactive sectors, one or many.
pub(super) fn verify_ni(
    call: &Invocation<'_, '_>,
    proof: RegisteredSealProof,
    inputs: &[SealInput],
    bytes: &[u8],
) -> Result<bool, ActorError> {
    let of = |input: &SealInput| -> Result<NiSeal, ActorError> {
        Ok(NiSeal {
            number: SectorNumber(input.number),
            comm_r: sealed(&input.sealed)?,
            comm_d: data(&input.data)?,
            ticket: Randomness(input.ticket),
        })
    };
    let statement = NiSealStatement {
        miner: ActorId(call.miner),
        sector_size: proof_type(proof)?.sector_size(),
        sectors: inputs.iter().map(of).collect::<Result<_, _>>()?,
    };
    call.world.verifier.verify_ni_seals(&statement, bytes).map_err(|e| failed(&e))
}

/// Whether a sector's replica was changed for another that holds this data.
pub(super) fn verify_update(
    call: &Invocation<'_, '_>,
    sector_size: SectorSize,
    (old, new): (&Cid, &Cid),
    new_data: &Cid,
    bytes: &[u8],
) -> Result<bool, ActorError> {
    let statement = UpdateStatement {
        sector_size,
        old_comm_r: sealed(old)?,
        new_comm_r: sealed(new)?,
        new_comm_d: data(new_data)?,
    };
    call.world.verifier.verify_replica_update(&statement, bytes).map_err(|e| failed(&e))
}

/// The size of the sectors of a proof.
pub(super) fn sector_size(proof: RegisteredSealProof) -> Result<SectorSize, ActorError> {
    Ok(proof_type(proof)?.sector_size())
}
