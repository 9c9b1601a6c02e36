//! Tipsets, blocks, objects and randomness.

use super::{
    args::{Args, RpcFault, lotus, plain},
    view::{block_json, tipset, tipset_json},
};
use crate::{
    devnet::{
        actors::load,
        block::{Executed, Header, Tipset},
        node::Devnet,
        randomness::draw,
        signed::SignedMessage,
    },
    lotus_json::{Lotus, MessageReceipt},
};
use cid::Cid;
use fvm_ipld_encoding::from_slice;
use fvm_shared::{bigint::BigInt, clock::ChainEpoch, message::Message};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn head(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    let head = devnet.chain.read().head();
    plain(&tipset_json(devnet, &head)?)
}

pub(super) fn genesis(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    let found = devnet.chain.read().at_or_before(0);
    tipset_at(devnet, found, 0)
}

pub(super) fn tipset_get(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let found = tipset(devnet, args, 0)?;
    plain(&tipset_json(devnet, &found)?)
}

fn tipset_at(devnet: &Devnet, found: Option<Arc<Tipset>>, height: ChainEpoch) -> Result<Value, RpcFault> {
    let found = found.ok_or_else(|| RpcFault::new(format!("no tipset at height {height}")))?;
    plain(&tipset_json(devnet, &found)?)
}

/// Refuses heights above the tipset that the caller looks from.
fn not_above(top: &Tipset, height: ChainEpoch) -> Result<(), RpcFault> {
    if height > top.height {
        return Err(RpcFault::new("looking for tipset with height greater than start point"));
    }
    Ok(())
}

pub(super) fn tipset_by_height(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let height: ChainEpoch = args.get(0)?;
    let top = tipset(devnet, args, 1)?;
    not_above(&top, height)?;
    let found = devnet.chain.read().ancestor(&top, height);
    tipset_at(devnet, found, height)
}

pub(super) fn tipset_after_height(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let height: ChainEpoch = args.get(0)?;
    let top = tipset(devnet, args, 1)?;
    not_above(&top, height)?;
    let found = devnet.chain.read().descendant(&top, height);
    tipset_at(devnet, found, height)
}

fn tipset_of_block(devnet: &Devnet, cid: &Cid) -> Result<Arc<Tipset>, RpcFault> {
    devnet.chain.read().by_cid(cid).ok_or_else(|| RpcFault::new(format!("block not found: ipld: could not find {cid}")))
}

pub(super) fn block(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let cid: Cid = args.lotus(0)?;
    tipset_of_block(devnet, &cid)?;
    plain(&block_json(load::<_, Header>(&devnet.store, &cid)?))
}

/// A message in the store, in either form.
pub(super) fn stored_message(devnet: &Devnet, cid: &Cid) -> Result<Message, RpcFault> {
    let cid = match devnet.chain.read().message(cid) {
        Some((_, executed)) => executed.cid,
        None => *cid,
    };
    let missing = || RpcFault::new(format!("ipld: could not find {cid}"));
    let bytes = devnet.store.read(&cid)?.ok_or_else(missing)?;
    from_slice::<SignedMessage>(&bytes)
        .map(|signed| signed.message)
        .or_else(|_| from_slice(&bytes))
        .map_err(|_| RpcFault::new(format!("{cid} is not a message")))
}

pub(super) fn message(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    lotus(stored_message(devnet, &args.lotus(0)?)?)
}

pub(super) fn receipt_json(executed: &Executed) -> MessageReceipt {
    MessageReceipt {
        exit_code: i64::from(executed.receipt.exit_code.value()),
        r#return: executed.receipt.return_data.to_vec(),
        gas_used: i64::try_from(executed.receipt.gas_used).unwrap_or(i64::MAX),
        events_root: executed.receipt.events_root,
    }
}

fn parent(devnet: &Devnet, args: &Args) -> Result<Arc<Tipset>, RpcFault> {
    let block = tipset_of_block(devnet, &args.lotus(0)?)?;
    let found = block.parent_key.and_then(|parent| devnet.chain.read().by_cid(&parent));
    found.ok_or_else(|| RpcFault::new("genesis has no parents"))
}

pub(super) fn parent_messages(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let block: Cid = args.lotus(0)?;
    if tipset_of_block(devnet, &block)?.height == 0 {
        return Ok(json!([]));
    }
    let mut out = Vec::new();
    for executed in &parent(devnet, args)?.messages {
        let message = stored_message(devnet, &executed.cid)?;
        out.push(json!({"Cid": plain(&Lotus(executed.cid))?, "Message": plain(&Lotus(message))?}));
    }
    Ok(Value::Array(out))
}

pub(super) fn parent_receipts(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let receipts: Vec<MessageReceipt> = parent(devnet, args)?.messages.iter().map(receipt_json).collect();
    plain(&receipts)
}

pub(super) fn block_messages(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let block = tipset_of_block(devnet, &args.lotus(0)?)?;
    let (mut bls, mut secp, mut cids) = (Vec::new(), Vec::new(), Vec::new());
    for executed in &block.messages {
        cids.push(plain(&Lotus(executed.cid))?);
        let bytes = devnet.store.read(&executed.cid)?.unwrap_or_default();
        match from_slice::<SignedMessage>(&bytes) {
            Ok(signed) => secp.push(plain(&crate::lotus_json::SignedMessage::from(signed))?),
            Err(_) => bls.push(plain(&Lotus(stored_message(devnet, &executed.cid)?))?),
        }
    }
    Ok(json!({"BlsMessages": bls, "SecpkMessages": secp, "Cids": cids}))
}

pub(super) fn read_object(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let cid: Cid = args.lotus(0)?;
    let bytes = devnet.store.read(&cid)?;
    lotus(bytes.ok_or_else(|| RpcFault::new(format!("blockstore get: ipld: could not find {cid}")))?)
}

pub(super) fn has_object(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    plain(&devnet.store.contains(&args.lotus::<Cid>(0)?))
}

pub(super) fn weight(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    lotus(BigInt::from(tipset(devnet, args, 0)?.height) + BigInt::from(1))
}

/// Refuses to draw what is not known yet.
fn not_future(top: &Tipset, epoch: ChainEpoch) -> Result<(), RpcFault> {
    if epoch > top.height {
        return Err(RpcFault::new("cannot draw randomness from the future"));
    }
    if epoch < 0 {
        return Err(RpcFault::new(format!("cannot draw randomness at the negative epoch {epoch}")));
    }
    Ok(())
}

fn digest_of_tickets(devnet: &Devnet, top: &Arc<Tipset>, epoch: ChainEpoch) -> [u8; 32] {
    let found = devnet.chain.read().ancestor(top, epoch);
    devnet.oracle.ticket_digest(found.map(|t| t.ticket()).unwrap_or_default())
}

pub(super) fn ticket_randomness(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let (tag, epoch, entropy): (i64, ChainEpoch, Vec<u8>) = (args.get(0)?, args.get(1)?, args.lotus(2)?);
    let top = tipset(devnet, args, 3)?;
    not_future(&top, epoch)?;
    lotus(draw(&digest_of_tickets(devnet, &top, epoch), tag, epoch, &entropy).to_vec())
}

pub(super) fn beacon_randomness(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let (tag, epoch, entropy): (i64, ChainEpoch, Vec<u8>) = (args.get(0)?, args.get(1)?, args.lotus(2)?);
    not_future(&*tipset(devnet, args, 3)?, epoch)?;
    lotus(draw(&devnet.oracle.beacon_digest(epoch), tag, epoch, &entropy).to_vec())
}

pub(super) fn ticket_digest(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let epoch = args.get(0)?;
    let top = tipset(devnet, args, 1)?;
    not_future(&top, epoch)?;
    lotus(digest_of_tickets(devnet, &top, epoch).to_vec())
}

pub(super) fn beacon_digest(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let epoch = args.get(0)?;
    not_future(&*tipset(devnet, args, 1)?, epoch)?;
    lotus(devnet.oracle.beacon_digest(epoch).to_vec())
}

pub(super) fn beacon_entry(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let epoch: ChainEpoch = args.get(0)?;
    let data = plain(&Lotus(devnet.oracle.beacon(epoch)))?;
    Ok(json!({"Round": u64::try_from(epoch).unwrap_or_default(), "Data": data}))
}
