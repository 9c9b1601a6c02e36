//! A node in memory, with one account.

use crate::{
    lotus_json::{SignedMessage, signed_message_cid},
    outbox::{
        Account, Found, Located, Node, OnChain, Push, Search, Simulated,
        lookup::same_call,
        pricing::{Estimate, least_premium},
    },
};
use async_trait::async_trait;
use cid::Cid;
use damocles_core::{
    CommP, Epoch, Recovery,
    chain::{Call, ChainError, ChainErrorKind, TipsetKey, TipsetRef},
};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};
use tokio::task::yield_now;

#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) height: i64,
    pub(super) nonce: u64,
    pub(super) pool: BTreeMap<u64, SignedMessage>,
    pub(super) landed: Vec<(i64, SignedMessage)>,
    /// What was ever taken: of anything else a node cannot say whether it is on chain.
    pub(super) known: HashSet<Cid>,
    /// The nonces of all pushes, in order.
    pub(super) pushes: Vec<u64>,
    pub(super) refuse: Option<&'static str>,
    pub(super) cannot_search: bool,
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) balance: TokenAmount,
    /// Who has nothing.
    pub(super) poor: HashSet<Address>,
    pub(super) base_fee: TokenAmount,
    pub(super) premium: TokenAmount,
    /// The exit code of a trial; none where there are no trials.
    pub(super) would_exit: Option<i64>,
    /// What messages need beyond 1,000.
    pub(super) more_gas: u64,
    /// What messages need is refused to be said.
    pub(super) cannot_run: bool,
    /// What messages need is not measured.
    pub(super) guesses: bool,
    /// What is answered instead of the next nonce.
    pub(super) next_nonce: Option<u64>,
    /// What is answered instead of the account's nonce.
    pub(super) account_nonce: Option<u64>,
    /// The pool is shown to nobody.
    pub(super) hides_pool: bool,
    /// The call for whose price nobody waits long enough.
    pub(super) slow: Option<Call>,
    /// Messages that are known and denied to be on chain.
    pub(super) denied: HashSet<Cid>,
    /// What is answered instead of where a message is.
    pub(super) found: Option<Search>,
    /// Who waits for ever for a price.
    pub(super) hangs: Option<Address>,
    pub(super) hanging: bool,
    pub(super) searches: usize,
    /// The number of this branch, which is in the names of its tipsets above a height.
    pub(super) branch: (i64, u8),
}

impl Chain {
    fn tipset(&self, height: i64) -> TipsetRef {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&height.to_le_bytes());
        digest[8] = if height > self.branch.0 { self.branch.1 } else { 0 };
        TipsetRef { epoch: Epoch(height), key: TipsetKey(vec![CommP(digest).cid()]) }
    }

    fn found(&self, epoch: i64, message: &SignedMessage) -> Found {
        Found {
            message: signed_message_cid(message),
            exit_code: 0,
            returned: Vec::new(),
            epoch,
            tipset: self.tipset(epoch).key,
        }
    }

    /// Reverts everything above a height, and forgets the messages there.
    pub(super) fn revert(&mut self, height: i64) {
        self.landed.retain(|(at, _)| *at <= height);
        self.nonce = self.landed.len().try_into().unwrap();
        self.branch = (height, self.branch.1 + 1);
    }
}

/// A node with one account, that yields before and after everything it does.
#[derive(Debug, Default)]
pub(super) struct FakeNode {
    pub(super) chain: Mutex<Chain>,
}

impl FakeNode {
    pub(super) fn new() -> Arc<Self> {
        let chain = Chain {
            height: 1000,
            name: "devnet-test",
            version: 28,
            balance: TokenAmount::from_whole(100),
            ..Chain::default()
        };
        Arc::new(Self { chain: Mutex::new(chain) })
    }

    pub(super) fn head(&self) -> TipsetRef {
        let chain = self.chain.lock();
        chain.tipset(chain.height)
    }

    /// Mines epochs; each takes the next message if its fee cap is not below the base fee.
    pub(super) fn mine(&self, epochs: i64) {
        for _ in 0..epochs {
            let mut chain = self.chain.lock();
            chain.height += 1;
            let nonce = chain.nonce;
            let pays = chain.pool.get(&nonce).is_some_and(|m| m.message.gas_fee_cap >= chain.base_fee);
            if !pays {
                continue;
            }
            if let Some(message) = chain.pool.remove(&nonce) {
                chain.nonce += 1;
                let height = chain.height;
                chain.landed.push((height, message));
            }
        }
    }

    pub(super) fn landed(&self) -> Vec<u64> {
        self.chain.lock().landed.iter().map(|(_, m)| m.message.sequence).collect()
    }
}

#[async_trait]
impl Node for FakeNode {
    async fn network_name(&self) -> Result<String, ChainError> {
        Ok(self.chain.lock().name.to_owned())
    }

    async fn network_version(&self, _: &TipsetRef) -> Result<u32, ChainError> {
        Ok(self.chain.lock().version)
    }

    async fn base_fee(&self, _: &TipsetRef) -> Result<TokenAmount, ChainError> {
        yield_now().await;
        Ok(self.chain.lock().base_fee.clone())
    }

    async fn tipset_at(&self, _: &TipsetRef, height: i64) -> Result<TipsetRef, ChainError> {
        yield_now().await;
        let mut chain = self.chain.lock();
        chain.searches += 1;
        if chain.cannot_search {
            return Err(ChainError::new(ChainErrorKind::Unavailable, "search"));
        }
        // After null rounds, the one before them.
        Ok(chain.tipset(height.min(chain.height)))
    }

    async fn next_nonce(&self, _: &Address) -> Result<u64, ChainError> {
        yield_now().await;
        let chain = self.chain.lock();
        if let Some(next) = chain.next_nonce {
            return Ok(next);
        }
        let mut next = chain.nonce;
        while chain.pool.contains_key(&next) {
            next += 1;
        }
        Ok(next)
    }

    async fn nonce_before(&self, head: &TipsetRef, epochs: i64, _: &Address) -> Result<Option<u64>, ChainError> {
        let chain = self.chain.lock();
        let old = head.epoch.0 - epochs;
        let after = chain.landed.iter().filter(|(h, _)| *h <= old).map(|(_, m)| m.message.sequence + 1).max();
        Ok(Some(after.unwrap_or(0)))
    }

    async fn account(&self, _: &TipsetRef, sender: &Address) -> Result<Account, ChainError> {
        yield_now().await;
        let chain = self.chain.lock();
        let balance = if chain.poor.contains(sender) { TokenAmount::default() } else { chain.balance.clone() };
        Ok(Account { nonce: chain.account_nonce.unwrap_or(chain.nonce), balance })
    }

    async fn pooled(&self, _: &Address) -> Result<BTreeMap<u64, Option<Cid>>, ChainError> {
        yield_now().await;
        let chain = self.chain.lock();
        if chain.hides_pool {
            return Err(ChainError::new(ChainErrorKind::Unavailable, "read pool"));
        }
        Ok(chain.pool.iter().map(|(nonce, m)| (*nonce, Some(signed_message_cid(m)))).collect())
    }

    async fn value(&self, _: &TipsetRef, _: &Call) -> Result<TokenAmount, ChainError> {
        yield_now().await;
        Ok(TokenAmount::from_atto(1))
    }

    async fn estimate(&self, call: Option<&Call>, message: Message) -> Result<Estimate, ChainError> {
        yield_now().await;
        if call.is_some() && call == self.chain.lock().slow.as_ref() {
            return Err(ChainError::new(ChainErrorKind::Unavailable, "price message"));
        }
        if self.chain.lock().hangs == Some(message.from) {
            self.chain.lock().hanging = true;
            std::future::pending::<()>().await;
        }
        let chain = self.chain.lock();
        let is_asked = message.gas_limit == 0;
        if is_asked && chain.cannot_run {
            return Err(ChainError::new(ChainErrorKind::Rejected, "price message"));
        }
        let limit = if is_asked { 1000 + chain.more_gas } else { message.gas_limit };
        Ok(Estimate { limit, is_guess: is_asked && chain.guesses, premium: chain.premium.clone() })
    }

    async fn simulate(&self, _: &TipsetRef, _: &Message) -> Result<Option<Simulated>, ChainError> {
        let exit = self.chain.lock().would_exit;
        let error = "no such sector".to_owned();
        Ok(exit.map(|exit_code| Simulated { exit_code, returned: Vec::new(), gas_used: 5, error }))
    }

    async fn push(&self, messages: &[&SignedMessage]) -> Vec<Result<Push, ChainError>> {
        let mut out = Vec::new();
        for message in messages {
            yield_now().await;
            out.push(self.chain.lock().take(message));
        }
        yield_now().await;
        out
    }

    async fn search(&self, head: &TipsetRef, signed: &SignedMessage, cid: &Cid) -> Result<Search, ChainError> {
        yield_now().await;
        let mut chain = self.chain.lock();
        chain.searches += 1;
        if chain.cannot_search {
            return Err(ChainError::new(ChainErrorKind::Unavailable, "search"));
        }
        if let Some(found) = &chain.found {
            return Ok(found.clone());
        }
        if chain.denied.contains(cid) {
            return Ok(Search::Absent);
        }
        if !chain.known.contains(cid) {
            return Ok(Search::Unknown);
        }
        let mut landed = chain.landed.iter().filter(|(h, _)| *h < head.epoch.0);
        let Some((epoch, found)) = landed.find(|(_, m)| m.message.sequence == signed.message.sequence) else {
            return Ok(Search::Absent);
        };
        if !same_call(&found.message, &signed.message) {
            return Ok(Search::Taken);
        }
        Ok(Search::Landed(chain.found(*epoch, found)))
    }

    async fn locate(&self, head: &TipsetRef, since: i64, _: &Address, nonces: &BTreeSet<u64>) -> Located {
        yield_now().await;
        let mut chain = self.chain.lock();
        chain.searches += 1;
        if chain.cannot_search {
            let broken_off = Some(ChainError::new(ChainErrorKind::Unavailable, "search"));
            return Located { broken_off, ..Located::default() };
        }
        let there = chain.landed.iter().filter(|(h, _)| *h < head.epoch.0 && *h >= since);
        let wanted = there.filter(|(_, m)| nonces.contains(&m.message.sequence));
        let on_chain = |(h, m): &(i64, SignedMessage)| {
            let on_chain = OnChain { found: chain.found(*h, m), message: m.message.clone() };
            (m.message.sequence, on_chain)
        };
        Located { found: wanted.map(on_chain).collect(), broken_off: None }
    }

    async fn said(&self, _: &Cid) -> Option<String> {
        None
    }
}

impl Chain {
    /// Takes a message into the pool, as Lotus does.
    fn take(&mut self, message: &SignedMessage) -> Result<Push, ChainError> {
        let nonce = message.message.sequence;
        self.pushes.push(nonce);
        let refused = |reason: &'static str| {
            ChainError::new(ChainErrorKind::Rejected, "push").recover_by(Recovery::RETRY).because(reason)
        };
        if let Some(reason) = self.refuse {
            return Err(refused(reason));
        }
        if nonce < self.nonce {
            return Ok(Push::NonceUsed);
        }
        if let Some(there) = self.pool.get(&nonce) {
            if there == message {
                return Ok(Push::Known);
            }
            if message.message.gas_premium < least_premium(&there.message.gas_premium) {
                return Err(refused("replace by fee has too low GasPremium"));
            }
        }
        self.known.insert(signed_message_cid(message));
        self.pool.insert(nonce, message.clone());
        Ok(Push::Accepted)
    }
}
