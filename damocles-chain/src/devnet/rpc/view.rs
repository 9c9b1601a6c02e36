//! The state that reads at a tipset see.

use super::args::{Args, RpcFault};
use crate::{
    devnet::{
        actors::{Actor, Actors, code, load, load_actors},
        block::{Header, Tipset},
        node::Devnet,
    },
    lotus_json,
};
use fil_actor_init_state::v18 as init;
use fil_actor_miner_state::v18 as miner;
use fil_actors_shared::v18::INIT_ACTOR_ID;
use fvm_shared::{ActorID, address::Address, clock::ChainEpoch};
use std::sync::Arc;

/// The state before a tipset's own messages, as Lotus reads it.
pub(super) struct View<'d> {
    pub(super) devnet: &'d Devnet,
    pub(super) tipset: Arc<Tipset>,
    pub(super) actors: Actors,
}

/// The tipset that a key names.
pub(super) fn tipset(devnet: &Devnet, args: &Args, index: usize) -> Result<Arc<Tipset>, RpcFault> {
    let chain = devnet.chain.read();
    match args.key(index)? {
        None => Ok(chain.head()),
        Some(cid) => chain.by_cid(&cid).ok_or_else(|| {
            RpcFault::new(format!("loading tipset {{{cid}}}: block not found: ipld: could not find {cid}"))
        }),
    }
}

impl<'d> View<'d> {
    pub(super) fn of(devnet: &'d Devnet, args: &Args, index: usize) -> Result<Self, RpcFault> {
        let tipset = tipset(devnet, args, index)?;
        let actors = load_actors(&devnet.store, &tipset.parent_state)?;
        Ok(Self { devnet, tipset, actors })
    }

    pub(super) fn epoch(&self) -> ChainEpoch {
        self.tipset.height
    }

    /// The ID behind an address.
    pub(super) fn resolve(&self, address: &Address) -> Result<ActorID, RpcFault> {
        if let Ok(id) = address.id() {
            return Ok(id);
        }
        let text = lotus_json::text_of(address);
        let missing = || RpcFault::no_actor(&format!("resolve address {text}"));
        let init = self.actors.get(&INIT_ACTOR_ID).ok_or_else(missing)?;
        let state: init::State = load(&self.devnet.store, &init.state)?;
        state.resolve_address(&self.devnet.store, address)?.and_then(|a| a.id().ok()).ok_or_else(missing)
    }

    pub(super) fn actor(&self, address: &Address) -> Result<(ActorID, &Actor), RpcFault> {
        let id = self.resolve(address)?;
        let missing = || RpcFault::no_actor(&format!("load state tree: {}", lotus_json::text_of(address)));
        Ok((id, self.actors.get(&id).ok_or_else(missing)?))
    }

    pub(super) fn miner(&self, address: &Address) -> Result<(ActorID, miner::State), RpcFault> {
        let (id, actor) = self.actor(address)?;
        if actor.code != code::of(code::MINER) {
            let text = lotus_json::text_of(address);
            return Err(RpcFault::new(format!("failed to load miner actor {text}: unknown actor code {}", actor.code)));
        }
        Ok((id, load(&self.devnet.store, &actor.state)?))
    }
}

/// A tipset with its block.
pub(super) fn tipset_json(devnet: &Devnet, tipset: &Tipset) -> Result<lotus_json::TipSet, RpcFault> {
    let header: Header = load(&devnet.store, &tipset.cid)?;
    Ok(lotus_json::TipSet { cids: vec![tipset.cid], blocks: vec![block_json(header)], height: tipset.height })
}

/// A block.
pub(super) fn block_json(header: Header) -> lotus_json::BlockHeader {
    lotus_json::BlockHeader {
        miner: header.miner,
        ticket: header.ticket.map(|t| lotus_json::Ticket { vrf_proof: t.vrf_proof }),
        election_proof: header
            .election_proof
            .map(|p| lotus_json::ElectionProof { win_count: p.win_count, vrf_proof: p.vrf_proof }),
        beacon_entries: header
            .beacon_entries
            .into_iter()
            .map(|e| lotus_json::BeaconEntry { round: e.round, data: e.data })
            .collect(),
        win_post_proof: Vec::new(),
        parents: header.parents,
        parent_weight: header.parent_weight,
        height: header.height,
        parent_state_root: Some(header.parent_state_root),
        parent_message_receipts: Some(header.parent_message_receipts),
        messages: Some(header.messages),
        bls_aggregate: None,
        timestamp: header.timestamp,
        block_sig: None,
        fork_signaling: header.fork_signaling,
        parent_base_fee: header.parent_base_fee,
    }
}
