//! Messages that wait for a block.

use super::{block::Executed, gas, signed::SignedMessage};
use cid::Cid;
use fvm_shared::{ActorID, bigint::BigInt, econ::TokenAmount};
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;

/// What one sender may have in the pool.
const MAX_PENDING_PER_SENDER: usize = 1000;

/// Why a message is not taken. The texts are Lotus'.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("minimum expected nonce is {expected}: message nonce too low")]
    NonceTooLow { expected: u64 },
    #[error("message from {from} with nonce {nonce} already in mpool")]
    Known { from: String, nonce: u64 },
    #[error(
        "message from {from} with nonce {nonce} already in mpool, increase GasPremium to {least} from {offered} to \
         trigger replace by fee: replace by fee has too low GasPremium"
    )]
    PremiumTooLow { from: String, nonce: u64, least: TokenAmount, offered: TokenAmount },
    #[error(
        "mpool push: not enough funds (required: {required}, balance: {balance}): not enough funds to execute transaction"
    )]
    Funds { required: TokenAmount, balance: TokenAmount },
    #[error("message will not be included in a block: {reason}")]
    Invalid { reason: String },
    #[error("signature verification failed: {reason}")]
    Signature { reason: String },
    #[error("resolving sender {from}: actor not found")]
    Sender { from: String },
    #[error("too many pending messages for actor {from}")]
    TooMany { from: String },
    #[error("{0}")]
    Failed(String),
}

/// The messages that wait, by sender and nonce.
#[derive(Debug, Default)]
pub(super) struct Mempool {
    pending: BTreeMap<ActorID, BTreeMap<u64, SignedMessage>>,
    by_cid: HashMap<Cid, (ActorID, u64)>,
}

impl Mempool {
    /// Takes a message that was checked, in the place of one with the same nonce if it pays enough.
    pub(super) fn insert(&mut self, from: ActorID, message: SignedMessage) -> Result<Cid, Refusal> {
        let cid = self.check(from, &message)?;
        let nonce = message.message.sequence;
        if let Some(old) = self.pending.entry(from).or_default().insert(nonce, message) {
            self.by_cid.remove(&old.cid());
        }
        self.by_cid.insert(cid, (from, nonce));
        Ok(cid)
    }

    /// Whether a message may be taken. Returns its CID.
    pub(super) fn check(&self, from: ActorID, message: &SignedMessage) -> Result<Cid, Refusal> {
        let cid = message.cid();
        let nonce = message.message.sequence;
        let sender = crate::lotus_json::text_of(&message.message.from);
        let Some(set) = self.pending.get(&from) else { return Ok(cid) };
        if let Some(old) = set.get(&nonce) {
            if old.cid() == cid {
                return Err(Refusal::Known { from: sender, nonce });
            }
            let least = replacement_premium(&old.message.gas_premium);
            if message.message.gas_premium < least {
                return Err(Refusal::PremiumTooLow {
                    from: sender,
                    nonce,
                    least,
                    offered: message.message.gas_premium.clone(),
                });
            }
        } else if set.len() >= MAX_PENDING_PER_SENDER {
            return Err(Refusal::TooMany { from: sender });
        }
        Ok(cid)
    }

    /// All that wait.
    pub(super) fn all(&self) -> impl Iterator<Item = &SignedMessage> {
        self.pending.values().flat_map(BTreeMap::values)
    }

    /// The nonce after the last message that would land without a gap.
    pub(super) fn next_nonce(&self, from: ActorID, state_nonce: u64) -> u64 {
        let mut next = state_nonce;
        while self.pending.get(&from).is_some_and(|set| set.contains_key(&next)) {
            next += 1;
        }
        next
    }

    /// The messages of the next block: for each sender those without a gap that it can pay for.
    pub(super) fn select(
        &self,
        account: impl Fn(ActorID) -> Option<(u64, TokenAmount)>,
    ) -> Vec<(SignedMessage, ActorID)> {
        let mut chosen = Vec::new();
        let mut gas_left = gas::BLOCK_GAS_LIMIT;
        for (from, set) in &self.pending {
            let Some((mut nonce, mut balance)) = account(*from) else { continue };
            while let Some(message) = set.get(&nonce) {
                let cost = gas::worst_case(&message.message);
                let limit = message.message.gas_limit;
                if balance < cost || limit > gas_left || message.message.gas_fee_cap < gas::base_fee() {
                    break;
                }
                balance -= cost + &message.message.value;
                gas_left -= limit;
                nonce += 1;
                chosen.push((message.clone(), *from));
            }
        }
        chosen
    }

    /// Drops what has landed, and what it took the place of.
    pub(super) fn prune(&mut self, landed: &[Executed]) {
        for message in landed {
            let Some(set) = self.pending.get_mut(&message.from) else { continue };
            let waiting = set.split_off(&(message.nonce + 1));
            for old in std::mem::replace(set, waiting).into_values() {
                self.by_cid.remove(&old.cid());
            }
        }
        self.pending.retain(|_, set| !set.is_empty());
    }
}

/// The least premium of a replacement: 1.10 times the old one, and one more.
fn replacement_premium(old: &TokenAmount) -> TokenAmount {
    let raised: BigInt = old.atto() * BigInt::from(110);
    TokenAmount::from_atto(raised / BigInt::from(100) + BigInt::from(1))
}
