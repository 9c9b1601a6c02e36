//! Messages that wait for a block.

use super::{
    block::Executed,
    config::PoolLimits,
    fees,
    select::{self, Account},
    signed::SignedMessage,
};
use crate::lotus_json::text_of;
use cid::Cid;
use fvm_shared::{ActorID, bigint::BigInt, clock::ChainEpoch, econ::TokenAmount};
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;

/// Why a message is not taken. The texts are Lotus'.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("mpool message too large ({bytes}B): message too big")]
    TooBig { bytes: usize },
    #[error("message not valid for block inclusion: {reason}")]
    Invalid { reason: String },
    #[error("verify msg failed: message will not be included in a block: {reason}")]
    Excluded { reason: String },
    #[error("gas fee cap too low")]
    FeeCapTooLow,
    #[error("signature verification failed: {reason}")]
    Signature { reason: String },
    #[error("resolving sender {from}: actor not found")]
    Sender { from: String },
    #[error("minimum expected nonce is {expected}: message nonce too low")]
    NonceTooLow { expected: u64 },
    #[error(
        "failed to check balance: not enough funds (required: {required} FIL, balance: {balance} FIL): not enough funds \
         to execute transaction"
    )]
    Funds { required: TokenAmount, balance: TokenAmount },
    #[error(
        "failed to check balance: not enough funds including pending messages (required: {required} FIL, balance: \
         {balance} FIL): validation failure"
    )]
    FundsWithPending { required: TokenAmount, balance: TokenAmount },
    #[error(
        "failed to add locked: message from {from} with nonce {nonce} already in mpool: message with nonce already exists"
    )]
    Known { from: String, nonce: u64 },
    #[error(
        "failed to add locked: message from {from} with nonce {nonce} already in mpool, increase GasPremium to {least} \
         from {offered} to trigger replace by fee: replace by fee has too low GasPremium"
    )]
    PremiumTooLow { from: String, nonce: u64, least: BigInt, offered: BigInt },
    #[error(
        "failed to add locked: message nonce has too big a gap from expected nonce (Nonce: {nonce}, nextNonce: {next}): \
         unfulfilled nonce gap"
    )]
    Gap { nonce: u64, next: u64 },
    #[error(
        "failed to add locked: rejecting replace by fee because of nonce gap (Nonce: {nonce}, nextNonce: {next}): \
         unfulfilled nonce gap"
    )]
    ReplacementAfterGap { nonce: u64, next: u64 },
    #[error("failed to add locked: too many pending messages for actor")]
    TooMany,
    #[error("{0}")]
    Failed(String),
}

/// Whose message it is, as far as the pool cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Our own client's: any gap is taken, up to the sender's limit.
    Local,
    /// Anybody's.
    Untrusted,
}

/// The messages that wait, by sender and nonce.
#[derive(Clone, Debug, Default)]
pub(super) struct Mempool {
    pending: BTreeMap<ActorID, BTreeMap<u64, SignedMessage>>,
    count: usize,
    /// Messages that no block takes before an epoch.
    held: HashMap<Cid, ChainEpoch>,
}

impl Mempool {
    /// Takes a message that was checked, in the place of one with the same nonce.
    pub(super) fn insert(&mut self, from: ActorID, message: SignedMessage, limits: &PoolLimits) {
        self.put(from, message);
        if self.count > limits.max_messages {
            self.shrink(limits.kept_messages);
        }
    }

    fn put(&mut self, from: ActorID, message: SignedMessage) {
        let nonce = message.message.sequence;
        match self.pending.entry(from).or_default().insert(nonce, message) {
            Some(old) => {
                self.held.remove(&old.cid());
            }
            None => self.count += 1,
        }
    }

    /// Takes a message back that a fork threw out of the chain. One that waits with the same nonce stays.
    pub(super) fn give_back(&mut self, from: ActorID, message: SignedMessage, not_before: ChainEpoch) {
        if self.pending.get(&from).is_some_and(|set| set.contains_key(&message.message.sequence)) {
            return;
        }
        self.held.insert(message.cid(), not_before);
        self.put(from, message);
    }

    /// Whether a message may be taken from a sender whose next nonce on chain is `state_nonce`.
    pub(super) fn check(
        &self,
        from: ActorID,
        state_nonce: u64,
        message: &SignedMessage,
        trust: Trust,
        limits: &PoolLimits,
    ) -> Result<(), Refusal> {
        let nonce = message.message.sequence;
        let next = self.next_nonce(from, state_nonce);
        let strict = trust == Trust::Untrusted;
        if strict && nonce > next.saturating_add(limits.max_nonce_gap) {
            return Err(Refusal::Gap { nonce, next });
        }
        let set = self.pending.get(&from);
        let Some(old) = set.and_then(|set| set.get(&nonce)) else {
            let most = if strict { limits.max_per_untrusted_sender } else { limits.max_per_sender };
            return if set.map_or(0, BTreeMap::len) >= most { Err(Refusal::TooMany) } else { Ok(()) };
        };
        if strict && nonce > next {
            return Err(Refusal::ReplacementAfterGap { nonce, next });
        }
        let sender = text_of(&message.message.from);
        if old.cid() == message.cid() {
            return Err(Refusal::Known { from: sender, nonce });
        }
        let least = replacement_premium(&old.message.gas_premium);
        let offered = &message.message.gas_premium;
        if offered < &least {
            let (least, offered) = (least.atto().clone(), offered.atto().clone());
            return Err(Refusal::PremiumTooLow { from: sender, nonce, least, offered });
        }
        Ok(())
    }

    /// What the waiting messages of a sender put up for gas, but for the one with a nonce.
    pub(super) fn deposits(&self, from: ActorID, but: u64) -> TokenAmount {
        self.of(from).filter(|m| m.message.sequence != but).map(|m| fees::deposit(&m.message)).sum()
    }

    /// All that wait.
    pub(super) fn all(&self) -> impl Iterator<Item = &SignedMessage> {
        self.pending.values().flat_map(BTreeMap::values)
    }

    /// Those of one sender, by nonce.
    pub(super) fn of(&self, from: ActorID) -> impl Iterator<Item = &SignedMessage> {
        self.pending.get(&from).into_iter().flat_map(BTreeMap::values)
    }

    /// The nonce after the last message that would land without a gap.
    pub(super) fn next_nonce(&self, from: ActorID, state_nonce: u64) -> u64 {
        let mut next = state_nonce;
        while self.pending.get(&from).is_some_and(|set| set.contains_key(&next)) {
            next += 1;
        }
        next
    }

    /// The messages of a block at `height`.
    pub(super) fn select(
        &self,
        height: ChainEpoch,
        base_fee: &TokenAmount,
        account: impl Fn(ActorID) -> Option<Account>,
    ) -> Vec<(SignedMessage, ActorID)> {
        let free = |message: &SignedMessage| {
            self.held.is_empty() || self.held.get(&message.cid()).is_none_or(|from| *from <= height)
        };
        let senders = self.pending.iter().filter_map(|(from, set)| Some((*from, account(*from)?, set)));
        select::block(senders, base_fee, free)
    }

    /// Drops what has landed, and what it took the place of.
    pub(super) fn prune(&mut self, landed: &[Executed]) {
        for message in landed {
            let Some(set) = self.pending.get_mut(&message.from) else { continue };
            let waiting = set.split_off(&(message.nonce + 1));
            for old in std::mem::replace(set, waiting).into_values() {
                self.count -= 1;
                self.held.remove(&old.cid());
            }
            if set.is_empty() {
                self.pending.remove(&message.from);
            }
        }
    }

    /// Makes room: of each sender only the last message can go, and the one that offers least goes first.
    fn shrink(&mut self, to: usize) {
        let mut last: Vec<_> =
            self.pending.iter().filter_map(|(from, set)| Some(tail(*from, set.values().next_back()?))).collect();
        last.sort_unstable_by(|a, b| b.cmp(a));
        while self.count > to {
            let Some((_, from)) = last.pop() else { break };
            let Some(set) = self.pending.get_mut(&from) else { continue };
            if let Some((_, old)) = set.pop_last() {
                self.count -= 1;
                self.held.remove(&old.cid());
            }
            match set.values().next_back() {
                Some(next) => {
                    let next = tail(from, next);
                    last.insert(last.partition_point(|t| t > &next), next);
                }
                None => {
                    self.pending.remove(&from);
                }
            }
        }
    }
}

fn tail(from: ActorID, message: &SignedMessage) -> (TokenAmount, ActorID) {
    (message.message.gas_premium.clone(), from)
}

/// The least premium of a replacement: 1.10 times the old one, rounded down, and one more (Lotus' `ComputeMinRBF`).
pub(super) fn replacement_premium(old: &TokenAmount) -> TokenAmount {
    let raised: BigInt = old.atto() * BigInt::from(110);
    TokenAmount::from_atto(raised / BigInt::from(100) + BigInt::from(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_shared::{address::Address, crypto::signature::Signature, message::Message};

    fn signed(nonce: u64, premium: i64) -> SignedMessage {
        let message = Message {
            version: 0,
            from: Address::new_id(100),
            to: Address::new_id(101),
            sequence: nonce,
            value: TokenAmount::default(),
            method_num: 0,
            params: Default::default(),
            gas_limit: 1_000_000,
            gas_fee_cap: TokenAmount::from_atto(1_000_000),
            gas_premium: TokenAmount::from_atto(premium),
        };
        SignedMessage { message, signature: Signature::new_bls(vec![0; 96]) }
    }

    #[test]
    fn a_replacement_pays_a_tenth_more_and_one() {
        for (old, least) in [(0, 1), (1, 2), (9, 10), (10, 12), (100, 111), (105, 116), (100_000, 110_001)] {
            let atto = TokenAmount::from_atto;
            assert_eq!(replacement_premium(&atto(old)), atto(least), "{old}");
        }
    }

    #[test]
    fn gaps_are_for_those_who_are_trusted() {
        let limits = PoolLimits::default();
        let mut pool = Mempool::default();
        let check = |pool: &Mempool, nonce, trust| pool.check(7, 5, &signed(nonce, 10), trust, &limits);
        assert!(check(&pool, 9, Trust::Untrusted).is_ok(), "a gap of four");
        assert!(matches!(check(&pool, 10, Trust::Untrusted), Err(Refusal::Gap { nonce: 10, next: 5 })));
        assert!(check(&pool, 500, Trust::Local).is_ok());
        pool.insert(7, signed(5, 10), &limits);
        assert!(check(&pool, 10, Trust::Untrusted).is_ok());
        pool.insert(7, signed(8, 10), &limits);
        let dearer = pool.check(7, 5, &signed(8, 100), Trust::Untrusted, &limits);
        assert!(matches!(dearer, Err(Refusal::ReplacementAfterGap { nonce: 8, next: 6 })));
        assert!(pool.check(7, 5, &signed(8, 100), Trust::Local, &limits).is_ok());
    }

    #[test]
    fn limits_hold_for_senders_and_for_the_pool() {
        let limits = PoolLimits {
            max_messages: 6,
            kept_messages: 4,
            max_per_sender: 3,
            max_per_untrusted_sender: 2,
            ..PoolLimits::default()
        };
        let mut pool = Mempool::default();
        for nonce in 0..3 {
            pool.insert(1, signed(nonce, 50), &limits);
        }
        assert!(matches!(pool.check(1, 0, &signed(3, 1), Trust::Local, &limits), Err(Refusal::TooMany)));
        assert!(matches!(pool.check(1, 0, &signed(3, 1), Trust::Untrusted, &limits), Err(Refusal::TooMany)));
        assert!(pool.check(1, 0, &signed(2, 90), Trust::Local, &limits).is_ok(), "a replacement needs no room");
        for nonce in 0..4 {
            pool.insert(2, signed(nonce, 40 - i64::try_from(nonce).unwrap()), &limits);
        }
        let left: Vec<(u64, i64)> =
            pool.all().map(|m| (m.message.sequence, m.message.gas_premium.atto().try_into().unwrap())).collect();
        assert_eq!(left, [(0, 50), (1, 50), (2, 50), (0, 40)], "the cheapest tails went");
        assert_eq!(pool.count, 4);
    }

    #[test]
    fn what_a_fork_gave_back_waits_its_time() {
        let mut pool = Mempool::default();
        pool.give_back(7, signed(0, 10), 20);
        let account = |_| Some(Account { nonce: 0, balance: TokenAmount::from_whole(1) });
        let at = |pool: &Mempool, height| pool.select(height, &fees::minimum_base_fee(), account).len();
        assert_eq!((at(&pool, 19), at(&pool, 20)), (0, 1));
        pool.insert(7, signed(0, 12), &PoolLimits::default());
        assert_eq!(at(&pool, 1), 1, "its replacement waits for nothing");
    }
}
