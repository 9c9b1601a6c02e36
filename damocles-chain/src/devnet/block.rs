//! Blocks and tipsets. Every tipset has one block.

use super::{
    fees::{self, GasOutputs},
    randomness::{Oracle, TicketId},
    signed::SignedMessage,
    store::Overlay,
    vm::Applied,
};
use cid::Cid;
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_amt::Amtv0;
use fvm_ipld_encoding::{
    CborStore, strict_bytes,
    tuple::{Deserialize_tuple, Serialize_tuple},
};
use fvm_shared::{
    ActorID,
    address::Address,
    bigint::{BigInt, bigint_ser},
    clock::ChainEpoch,
    crypto::signature::{Signature, SignatureType},
    econ::TokenAmount,
    receipt::Receipt,
    sector::PoStProof,
};
use multihash_codetable::Code;
use serde::{Deserialize, Serialize};

/// When genesis was, in seconds. A constant, so that no wall time gets into the state.
pub(super) const GENESIS_TIMESTAMP: u64 = 1_700_000_000;

/// The seconds between epochs that the devnet claims.
pub(super) const BLOCK_DELAY_SECS: u64 = 1;

#[derive(Clone, Debug, Serialize_tuple, Deserialize_tuple)]
pub(super) struct Ticket {
    #[serde(with = "strict_bytes")]
    pub(super) vrf_proof: Vec<u8>,
}

#[derive(Clone, Debug, Serialize_tuple, Deserialize_tuple)]
pub(super) struct ElectionProof {
    pub(super) win_count: i64,
    #[serde(with = "strict_bytes")]
    pub(super) vrf_proof: Vec<u8>,
}

#[derive(Clone, Debug, Serialize_tuple, Deserialize_tuple)]
pub(super) struct BeaconEntry {
    pub(super) round: u64,
    #[serde(with = "strict_bytes")]
    pub(super) data: Vec<u8>,
}

/// How often the one block of a tipset wins if it is paid for: as often as all blocks of a tipset do in the mean.
const WINS: i64 = 5;

/// A block header in the chain's encoding.
#[derive(Clone, Debug, Serialize_tuple, Deserialize_tuple)]
pub(super) struct Header {
    pub(super) miner: Address,
    pub(super) ticket: Option<Ticket>,
    pub(super) election_proof: Option<ElectionProof>,
    pub(super) beacon_entries: Vec<BeaconEntry>,
    pub(super) win_post_proof: Vec<PoStProof>,
    pub(super) parents: Vec<Cid>,
    #[serde(with = "bigint_ser")]
    pub(super) parent_weight: BigInt,
    pub(super) height: ChainEpoch,
    pub(super) parent_state_root: Cid,
    pub(super) parent_message_receipts: Cid,
    pub(super) messages: Cid,
    pub(super) bls_aggregate: Option<Signature>,
    pub(super) timestamp: u64,
    pub(super) block_sig: Option<Signature>,
    pub(super) fork_signaling: u64,
    pub(super) parent_base_fee: TokenAmount,
}

#[derive(Clone, Debug, Serialize_tuple, Deserialize_tuple)]
struct MessageMeta {
    bls: Cid,
    secp: Cid,
}

/// A message that a tipset holds, with what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Executed {
    /// By which the chain knows it.
    pub(super) cid: Cid,
    /// Without its signature.
    pub(super) unsigned: Cid,
    pub(super) from: ActorID,
    pub(super) nonce: u64,
    pub(super) receipt: Receipt,
    pub(super) error: String,
    /// What the sender paid.
    pub(super) fee: TokenAmount,
    /// How that divides.
    #[serde(default)]
    pub(super) gas: GasOutputs,
    #[serde(default)]
    pub(super) gas_limit: u64,
    /// What it offered on top of the base fee.
    #[serde(default)]
    pub(super) premium: TokenAmount,
}

/// A tipset, with the state that it leads to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tipset {
    pub(super) cid: Cid,
    pub(super) height: ChainEpoch,
    /// The height of its parent; its own for genesis.
    pub(super) parent: ChainEpoch,
    /// The state that reads at this tipset see: that before its messages.
    pub(super) parent_state: Cid,
    /// The state after its messages and cron.
    pub(super) state: Cid,
    /// The receipts of its messages.
    pub(super) receipts: Cid,
    pub(super) messages: Vec<Executed>,
    /// Its parent; none for genesis, and in records of a devnet that could not fork.
    #[serde(default)]
    pub(super) parent_key: Option<Cid>,
    /// The branch that it was mined on.
    #[serde(default)]
    pub(super) branch: u64,
    /// The base fee of its messages.
    #[serde(default = "fees::minimum_base_fee")]
    pub(super) base_fee: TokenAmount,
}

impl Tipset {
    /// Which ticket its block has.
    pub(super) const fn ticket(&self) -> TicketId {
        TicketId { height: self.height, branch: self.branch }
    }

    /// The base fee that its messages lead to.
    pub(super) fn next_base_fee(&self) -> TokenAmount {
        let offers = self.messages.iter().map(|m| (m.premium.clone(), m.gas_limit)).collect();
        fees::next_base_fee(&self.base_fee, &fees::percentile_premium(offers))
    }
}

/// What a new block is made of.
pub(super) struct Draft<'a> {
    pub(super) oracle: &'a Oracle,
    pub(super) parent: Option<&'a Tipset>,
    pub(super) ticket: TicketId,
    pub(super) base_fee: TokenAmount,
    pub(super) parent_state: Cid,
    pub(super) state: Cid,
    pub(super) messages: Vec<(SignedMessage, ActorID, Applied)>,
    /// The miner that made it and was paid for it.
    pub(super) winner: Option<ActorID>,
}

impl Draft<'_> {
    /// Stores block, messages and receipts.
    pub(super) fn seal(self, store: &Overlay<'_>) -> Result<Tipset, ActorError> {
        let height = self.ticket.height;
        let fail = |e: &dyn std::fmt::Display| actor_error_v18!(illegal_state, "failed to store a block: {}", e);
        let mut bls = Vec::new();
        let mut secp = Vec::new();
        let mut executed = Vec::with_capacity(self.messages.len());
        // The chain's order: BLS messages first.
        let (of_bls, of_secp): (Vec<_>, Vec<_>) =
            self.messages.into_iter().partition(|(m, ..)| m.signature.sig_type == SignatureType::BLS);
        for (message, from, applied) in of_bls.into_iter().chain(of_secp) {
            let cid = match message.signature.sig_type {
                SignatureType::BLS => store.put_cbor(&message.message, Code::Blake2b256),
                SignatureType::Secp256k1 => store.put_cbor(&message, Code::Blake2b256),
            }
            .map_err(|e| fail(&e))?;
            match message.signature.sig_type {
                SignatureType::BLS => bls.push(cid),
                SignatureType::Secp256k1 => secp.push(cid),
            }
            executed.push(Executed {
                cid,
                unsigned: super::signed::message_cid(&message.message),
                from,
                nonce: message.message.sequence,
                receipt: applied.receipt,
                error: applied.error,
                fee: applied.gas.total(),
                gas: applied.gas,
                gas_limit: message.message.gas_limit,
                premium: fees::effective_premium(&message.message, &self.base_fee),
            });
        }
        let list = |cids: Vec<Cid>| Amtv0::new_from_iter(store, cids).map_err(|e| fail(&e));
        let meta = MessageMeta { bls: list(bls)?, secp: list(secp)? };
        let messages = store.put_cbor(&meta, Code::Blake2b256).map_err(|e| fail(&e))?;
        let receipts = Amtv0::new_from_iter(store, executed.iter().map(|m| m.receipt.clone())).map_err(|e| fail(&e))?;
        let no_receipts = match self.parent {
            Some(parent) => parent.receipts,
            None => Amtv0::new_from_iter(store, Vec::<Receipt>::new()).map_err(|e| fail(&e))?,
        };
        let header = Header {
            miner: Address::new_id(self.winner.unwrap_or_default()),
            ticket: Some(Ticket { vrf_proof: self.oracle.ticket(self.ticket) }),
            election_proof: Some(ElectionProof {
                win_count: self.winner.map_or(1, |_| WINS),
                vrf_proof: self.oracle.ticket(self.ticket),
            }),
            beacon_entries: vec![BeaconEntry {
                round: u64::try_from(height).unwrap_or_default(),
                data: self.oracle.beacon(height),
            }],
            win_post_proof: Vec::new(),
            parents: self.parent.map(|p| p.cid).into_iter().collect(),
            parent_weight: BigInt::from(height),
            height,
            parent_state_root: self.parent_state,
            parent_message_receipts: no_receipts,
            messages,
            bls_aggregate: None,
            timestamp: GENESIS_TIMESTAMP + u64::try_from(height).unwrap_or_default() * BLOCK_DELAY_SECS,
            block_sig: None,
            fork_signaling: 0,
            parent_base_fee: self.base_fee.clone(),
        };
        let cid = store.put_cbor(&header, Code::Blake2b256).map_err(|e| fail(&e))?;
        Ok(Tipset {
            cid,
            height,
            parent: self.parent.map_or(height, |p| p.height),
            parent_key: self.parent.map(|p| p.cid),
            branch: self.ticket.branch,
            base_fee: self.base_fee,
            parent_state: self.parent_state,
            state: self.state,
            receipts,
            messages: executed,
        })
    }
}
