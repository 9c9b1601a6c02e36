//! Who sends what.

use super::lanes::{Lanes, pick};
use crate::{
    lotus_json::{from_core, to_core},
    rpc::RpcClient,
    signer::{Purpose, SignRequest, Signer, SignerError, SignerErrorKind, verify},
};
use damocles_core::{
    Address,
    chain::{Call, CallKind, ChainError, ChainErrorKind, SubmitKey},
};
use fvm_shared::address::{Address as ChainAddress, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeSet, slice};

/// The senders of messages, by class. Where a class has several, they share its messages: each key has one of them, and
/// keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Senders {
    /// Who sends what no other sender is named for.
    pub default: Lanes,
    /// Who sends proofs of spacetime, faults and recoveries.
    #[serde(default)]
    pub post: Option<Lanes>,
    /// Who sends pre-commits and prove-commits.
    #[serde(default)]
    pub commit: Option<Lanes>,
    /// Who makes miners; the new miner's owner if none is named.
    #[serde(default)]
    pub create_miner: Option<Lanes>,
}

impl Senders {
    /// One sender for everything.
    pub fn all(sender: Address) -> Self {
        Self { default: sender.into(), post: None, commit: None, create_miner: None }
    }

    /// Everybody who is named, once.
    pub fn everybody(&self) -> Vec<Address> {
        self.named().cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Everybody who is named, some perhaps more than once.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Address> {
        let more = [&self.post, &self.commit, &self.create_miner].into_iter().flatten();
        std::iter::once(&self.default).chain(more).flat_map(Lanes::all)
    }

    /// Those who send proofs of spacetime.
    fn provers(&self) -> Vec<ChainAddress> {
        self.post.as_ref().unwrap_or(&self.default).all().iter().filter_map(|a| from_core(a).ok()).collect()
    }

    /// Those who may send a call. What is no proof keeps out of the way of proofs where it has another lane: in one lane a
    /// proof lands after all that got its nonce before.
    fn of(&self, call: &Call) -> Result<Vec<ChainAddress>, ChainError> {
        let named = match call.kind() {
            CallKind::CreateMiner => self.create_miner.as_ref(),
            CallKind::PreCommit | CallKind::ProveCommit => self.commit.as_ref(),
            CallKind::PoSt => self.post.as_ref(),
            _ => None,
        };
        // Whose money moves, or who agrees, is said by the call; of a new miner only as long as nobody is named for it.
        let own = call.sender().filter(|_| call.kind() != CallKind::CreateMiner || named.is_none());
        let all = own.map_or_else(|| named.unwrap_or(&self.default).all(), slice::from_ref);
        let read = |address: &Address| from_core(address).map_err(|e| no_sender(address).because(e));
        let all: Vec<ChainAddress> = all.iter().map(read).collect::<Result<_, _>>()?;
        if call.kind() == CallKind::PoSt {
            return Ok(all);
        }
        let provers = self.provers();
        let apart: Vec<_> = all.iter().filter(|sender| !provers.contains(sender)).copied().collect();
        Ok(if apart.is_empty() { all } else { apart })
    }

    /// Who sends the call of a new key as long as nobody is short of money or stuck: for whoever has no outbox to ask.
    ///
    /// # Errors
    ///
    /// A sender that cannot be.
    pub fn pick_plain(&self, key: &SubmitKey, call: &Call) -> Result<Address, ChainError> {
        self.pick(key, call, |_| true).map(|sender| to_core(&sender))
    }

    /// Who sends the call of a new key. It follows from the key and the senders, and not from their order. Of several,
    /// those for whom `is_fit` does not hold are passed over as long as there are others.
    pub(crate) fn pick(
        &self,
        key: &SubmitKey,
        call: &Call,
        is_fit: impl Fn(&ChainAddress) -> bool,
    ) -> Result<ChainAddress, ChainError> {
        let all = self.of(call)?;
        let fit: Vec<ChainAddress> = all.iter().filter(|address| is_fit(address)).copied().collect();
        // A role has at least one sender.
        pick(key, &fit).or_else(|| pick(key, &all)).ok_or_else(|| no_sender(self.default.first()))
    }
}

/// Senders whose keys were seen.
#[derive(Clone, Debug)]
pub(crate) struct CheckedSenders {
    /// By the addresses of their keys.
    senders: Senders,
    keys: BTreeSet<ChainAddress>,
}

fn no_sender(address: &Address) -> ChainError {
    ChainError::new(ChainErrorKind::NoSender, "find sender")
        .with("sender", address)
        .hint_with("import the sender's key, or name a sender whose key is there")
}

/// An error of whoever holds the keys. One that is away for the moment is no key that is missing: it is asked again.
pub(super) fn of_signer(op: &'static str, error: SignerError) -> ChainError {
    let kind = match error.kind() {
        SignerErrorKind::Unreachable | SignerErrorKind::Answer => ChainErrorKind::Wallet,
        _ => ChainErrorKind::NoSender,
    };
    let hint = match (kind, error.hint()) {
        (_, Some(hint)) => Some(hint.to_owned()),
        (ChainErrorKind::Wallet, None) => {
            Some("start the wallet, or correct its address in the configuration".to_owned())
        }
        (_, None) => None,
    };
    let failed = ChainError::new(kind, op).because(error);
    match hint {
        Some(hint) => failed.hint_with(hint),
        None => failed,
    }
}

/// Signs what is no message with a key: one whose file is unusable is better known before its messages are due.
async fn probe(signer: &dyn Signer, address: &Address, key: &ChainAddress) -> Result<(), ChainError> {
    const PROBE: &[u8] = b"damocles: a key that signs";
    let unusable = || ChainError::new(ChainErrorKind::NoSender, "try key").with("sender", address);
    let request = SignRequest::bytes(Purpose::VERIFY_ADDRESS, PROBE);
    let asked = signer.sign(&to_core(key), &request).await;
    // A wallet whose policy allows nothing but messages holds the key all the same.
    if asked.as_ref().is_err_and(|e| e.kind() == SignerErrorKind::Refused) {
        return Ok(());
    }
    let signature = asked.map_err(|e| match of_signer("try key", e) {
        away if away.kind() == ChainErrorKind::Wallet => away.with("sender", address),
        unusable => {
            let hint = unusable.hint().unwrap_or("import the sender's key again").to_owned();
            unusable.with("sender", address).hint_with(hint)
        }
    })?;
    if verify(key, &signature, PROBE) {
        Ok(())
    } else {
        Err(unusable().with("what", "the signature is not the sender's"))
    }
}

impl CheckedSenders {
    /// Checks that there is a key for each sender and that it signs. An ID address is looked up at the node.
    pub(crate) async fn check(senders: &Senders, signer: &dyn Signer, rpc: &RpcClient) -> Result<Self, ChainError> {
        let held = signer.addresses().await;
        let held = held.map_err(|e| of_signer("list keys", e))?;
        let keys: BTreeSet<_> = held.iter().filter_map(|a| from_core(a).ok()).collect();
        let key_of = async |address: &Address| -> Result<Address, ChainError> {
            let mut key = from_core(address).map_err(|e| no_sender(address).because(e))?;
            if key.protocol() == Protocol::ID {
                key = rpc.call_form("StateAccountKey", json!([address, []])).await?;
            }
            if !keys.contains(&key) {
                return Err(no_sender(address));
            }
            probe(signer, address, &key).await?;
            Ok(to_core(&key))
        };
        let keys_of = async |lanes: &Lanes| -> Result<Lanes, ChainError> {
            let mut all = Vec::new();
            for address in lanes.all() {
                all.push(key_of(address).await?);
            }
            // Two addresses can be one key's.
            Lanes::new(all)
        };
        let maybe = async |lanes: &Option<Lanes>| match lanes {
            Some(lanes) => keys_of(lanes).await.map(Some),
            None => Ok(None),
        };
        let senders = Senders {
            default: keys_of(&senders.default).await?,
            post: maybe(&senders.post).await?,
            commit: maybe(&senders.commit).await?,
            create_miner: maybe(&senders.create_miner).await?,
        };
        Ok(Self { senders, keys })
    }

    #[cfg(test)]
    pub(crate) fn unchecked(sender: ChainAddress) -> Self {
        Self { senders: Senders::all(to_core(&sender)), keys: BTreeSet::from([sender]) }
    }

    #[cfg(test)]
    pub(crate) fn with_post(mut self, senders: &[ChainAddress]) -> Self {
        self.keys.extend(senders);
        self.senders.post = Some(Lanes::new(senders.iter().map(to_core).collect()).unwrap());
        self
    }

    #[cfg(test)]
    pub(crate) fn with_commit(mut self, senders: &[ChainAddress]) -> Self {
        self.keys.extend(senders);
        self.senders.commit = Some(Lanes::new(senders.iter().map(to_core).collect()).unwrap());
        self
    }

    /// The keys that are held here.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ChainAddress> + '_ {
        self.keys.iter().copied()
    }

    /// Those that are named for some class.
    pub(crate) fn used(&self) -> BTreeSet<ChainAddress> {
        self.senders.named().filter_map(|address| from_core(address).ok()).collect()
    }

    /// Whether this one sends proofs of spacetime.
    pub(crate) fn proves(&self, sender: &ChainAddress) -> bool {
        self.senders.provers().contains(sender)
    }

    /// Who sends the call of a key. One that has a sender keeps it whatever is configured since, as long as the key is
    /// here: without it the call would never be sent, and nothing was ever signed for it.
    pub(crate) fn of(
        &self,
        key: &SubmitKey,
        call: &Call,
        recorded: Option<ChainAddress>,
        is_fit: impl Fn(&ChainAddress) -> bool,
    ) -> Result<ChainAddress, ChainError> {
        if let Some(sender) = recorded.filter(|sender| self.keys.contains(sender)) {
            return Ok(sender);
        }
        let sender = self.senders.pick(key, call, is_fit)?;
        if self.keys.contains(&sender) { Ok(sender) } else { Err(no_sender(&to_core(&sender))) }
    }
}
