//! Calls that make a miner and change whom it belongs to and where it is found, and back.

use super::{
    encode::{EncodeError, amount, cbor},
    limits::{self, LimitError},
    read::{amount_of, read},
};
use crate::lotus_json::{from_core, to_core};
use damocles_core::{
    ActorId, Epoch, PoStProofType, TokenAmount,
    chain::{
        Call, ChangeBeneficiary, ChangeMultiaddrs, ChangeOwner, ChangePeerId, ChangeWorker, CreateMiner, Multiaddr,
        PeerId,
    },
};
use fil_actor_miner_state::v18 as miner;
use fil_actor_power_state::v18 as power;
use fvm_ipld_encoding::{BytesDe, RawBytes};
use fvm_shared::{address::Protocol, sector::RegisteredPoStProof};

pub(super) fn create(call: &CreateMiner) -> Result<RawBytes, EncodeError> {
    let proof = PoStProofType::window(call.sector_size);
    cbor(&power::CreateMinerParams {
        owner: from_core(&call.owner)?,
        worker: from_core(&call.worker)?,
        window_post_proof_type: RegisteredPoStProof::from(proof.number()),
        peer: write_peer(call.peer_id.as_ref())?,
        multiaddrs: write_multiaddrs(&call.multiaddrs)?,
    })
}

pub(super) fn read_create(params: &[u8]) -> Option<Call> {
    let params: power::CreateMinerParams = read(params)?;
    let proof = PoStProofType::try_from(i64::from(params.window_post_proof_type)).ok()?;
    let PoStProofType::Window(sector_size) = proof else { return None };
    Some(Call::CreateMiner(CreateMiner {
        owner: to_core(&params.owner),
        worker: to_core(&params.worker),
        sector_size,
        peer_id: read_peer(&params.peer)?,
        multiaddrs: read_multiaddrs(params.multiaddrs)?,
    }))
}

pub(super) fn worker(call: &ChangeWorker) -> Result<RawBytes, EncodeError> {
    limits::count("control addresses", call.control.len(), &limits::CONTROL)?;
    cbor(&miner::ChangeWorkerAddressParams {
        new_worker: from_core(&call.worker)?,
        new_control_addresses: call.control.iter().map(from_core).collect::<Result<_, _>>()?,
    })
}

pub(super) fn read_worker(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ChangeWorkerAddressParams = read(params)?;
    let control = params.new_control_addresses.iter().map(to_core).collect();
    Some(Call::ChangeWorker(ChangeWorker { miner, worker: to_core(&params.new_worker), control, from: None }))
}

pub(super) fn owner(call: &ChangeOwner) -> Result<RawBytes, EncodeError> {
    let new_owner = from_core(&call.owner)?;
    if new_owner.protocol() != Protocol::ID {
        return Err(LimitError::OwnerById { owner: call.owner.to_string() }.into());
    }
    cbor(&miner::ChangeOwnerAddressParams { new_owner })
}

pub(super) fn read_owner(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ChangeOwnerAddressParams = read(params)?;
    Some(Call::ChangeOwner(ChangeOwner { miner, owner: to_core(&params.new_owner), from: None }))
}

pub(super) fn beneficiary(call: &ChangeBeneficiary) -> Result<RawBytes, EncodeError> {
    limits::amount("quota", call.quota)?;
    if call.quota == TokenAmount::ZERO && call.expiration != Epoch(0) {
        return Err(LimitError::TermWithoutQuota { expiration: call.expiration.0 }.into());
    }
    cbor(&miner::ChangeBeneficiaryParams {
        new_beneficiary: from_core(&call.beneficiary)?,
        new_quota: amount(call.quota),
        new_expiration: call.expiration.0,
    })
}

pub(super) fn read_beneficiary(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ChangeBeneficiaryParams = read(params)?;
    Some(Call::ChangeBeneficiary(ChangeBeneficiary {
        miner,
        beneficiary: to_core(&params.new_beneficiary),
        quota: amount_of(&params.new_quota)?,
        expiration: Epoch(params.new_expiration),
        from: None,
    }))
}

pub(super) fn peer_id(call: &ChangePeerId) -> Result<RawBytes, EncodeError> {
    cbor(&miner::ChangePeerIDParams { new_id: write_peer(call.peer_id.as_ref())? })
}

pub(super) fn read_peer_id(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ChangePeerIDParams = read(params)?;
    Some(Call::ChangePeerId(ChangePeerId { miner, peer_id: read_peer(&params.new_id)? }))
}

pub(super) fn multiaddrs(call: &ChangeMultiaddrs) -> Result<RawBytes, EncodeError> {
    cbor(&miner::ChangeMultiaddrsParams { new_multi_addrs: write_multiaddrs(&call.multiaddrs)? })
}

pub(super) fn read_change_multiaddrs(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ChangeMultiaddrsParams = read(params)?;
    let multiaddrs = read_multiaddrs(params.new_multi_addrs)?;
    Some(Call::ChangeMultiaddrs(ChangeMultiaddrs { miner, multiaddrs }))
}

/// The bytes of a peer ID; none at all if there is none.
fn write_peer(peer: Option<&PeerId>) -> Result<Vec<u8>, EncodeError> {
    let Some(peer) = peer else { return Ok(Vec::new()) };
    let parsed: multiaddr::PeerId = peer.as_str().parse().map_err(|_| EncodeError::PeerId(peer.to_string()))?;
    let bytes = parsed.to_bytes();
    limits::count("bytes of peer ID", bytes.len(), &limits::PEER_ID_BYTES)?;
    Ok(bytes)
}

fn read_peer(bytes: &[u8]) -> Option<Option<PeerId>> {
    if bytes.is_empty() {
        return Some(None);
    }
    multiaddr::PeerId::from_bytes(bytes).ok()?.to_base58().parse().ok().map(Some)
}

fn write_multiaddrs(multiaddrs: &[Multiaddr]) -> Result<Vec<BytesDe>, EncodeError> {
    let mut written = Vec::with_capacity(multiaddrs.len());
    for address in multiaddrs {
        let parsed: Result<multiaddr::Multiaddr, _> = address.as_str().parse();
        let bytes = parsed.map_err(|_| EncodeError::Multiaddr(address.to_string()))?.to_vec();
        written.push(BytesDe(bytes));
    }
    let sum = written.iter().map(|bytes| bytes.0.len()).sum();
    limits::count("bytes of multiaddresses", sum, &limits::MULTIADDR_BYTES)?;
    Ok(written)
}

fn read_multiaddrs(multiaddrs: Vec<BytesDe>) -> Option<Vec<Multiaddr>> {
    let read = |bytes: BytesDe| {
        let parsed = multiaddr::Multiaddr::try_from(bytes.0).ok()?;
        parsed.to_string().parse().ok()
    };
    multiaddrs.into_iter().map(read).collect()
}
