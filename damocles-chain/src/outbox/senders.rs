//! Who sends what.

use crate::{
    lotus_json::{from_core, to_core},
    rpc::RpcClient,
    signer::{Purpose, SignRequest, Signer, SignerErrorKind, verify},
};
use damocles_core::{
    Address,
    chain::{Call, CallKind, ChainError, ChainErrorKind},
};
use fvm_shared::address::{Address as ChainAddress, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;

/// The senders of messages, by class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Senders {
    /// Who sends what no other sender is named for.
    pub default: Address,
    /// Who sends proofs of spacetime, faults and recoveries.
    #[serde(default)]
    pub post: Option<Address>,
    /// Who sends pre-commits and prove-commits.
    #[serde(default)]
    pub commit: Option<Address>,
    /// Who makes miners; the new miner's owner if none is named.
    #[serde(default)]
    pub create_miner: Option<Address>,
}

impl Senders {
    /// One sender for everything.
    pub fn all(sender: Address) -> Self {
        Self { default: sender, post: None, commit: None, create_miner: None }
    }
}

/// Senders whose keys were seen.
#[derive(Clone, Debug)]
pub(crate) struct CheckedSenders {
    default: ChainAddress,
    post: Option<ChainAddress>,
    commit: Option<ChainAddress>,
    create_miner: Option<ChainAddress>,
    keys: BTreeSet<ChainAddress>,
}

fn no_sender(address: &Address) -> ChainError {
    ChainError::new(ChainErrorKind::NoSender, "find sender")
        .with("sender", address)
        .hint_with("import the sender's key, or name a sender whose key is there")
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
    let signature = asked.map_err(|e| {
        let hint = e.hint().unwrap_or("import the sender's key again").to_owned();
        unusable().hint_with(hint).because(e)
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
        let held = held.map_err(|e| ChainError::new(ChainErrorKind::NoSender, "list keys").because(e))?;
        let keys: BTreeSet<_> = held.iter().filter_map(|a| from_core(a).ok()).collect();
        let key_of = async |address: &Address| -> Result<ChainAddress, ChainError> {
            let mut key = from_core(address).map_err(|e| no_sender(address).because(e))?;
            if key.protocol() == Protocol::ID {
                key = rpc.call_form("StateAccountKey", json!([address, []])).await?;
            }
            if !keys.contains(&key) {
                return Err(no_sender(address));
            }
            probe(signer, address, &key).await?;
            Ok(key)
        };
        let maybe = async |address: &Option<Address>| match address {
            Some(address) => key_of(address).await.map(Some),
            None => Ok(None),
        };
        Ok(Self {
            default: key_of(&senders.default).await?,
            post: maybe(&senders.post).await?,
            commit: maybe(&senders.commit).await?,
            create_miner: maybe(&senders.create_miner).await?,
            keys,
        })
    }

    #[cfg(test)]
    pub(crate) fn unchecked(sender: ChainAddress) -> Self {
        let keys = BTreeSet::from([sender]);
        Self { default: sender, post: None, commit: None, create_miner: None, keys }
    }

    #[cfg(test)]
    pub(crate) fn with_post(mut self, sender: ChainAddress) -> Self {
        self.keys.insert(sender);
        self.post = Some(sender);
        self
    }

    /// The keys that are held here.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ChainAddress> + '_ {
        self.keys.iter().copied()
    }

    /// Those that are named for some class.
    pub(crate) fn used(&self) -> BTreeSet<ChainAddress> {
        [Some(self.default), self.post, self.commit, self.create_miner].into_iter().flatten().collect()
    }

    /// Whether this one sends proofs of spacetime.
    pub(crate) fn proves(&self, sender: &ChainAddress) -> bool {
        self.post.as_ref().unwrap_or(&self.default) == sender
    }

    /// Who sends a call.
    pub(crate) fn of(&self, call: &Call) -> Result<ChainAddress, ChainError> {
        let named = match call.kind() {
            CallKind::CreateMiner => self.create_miner,
            CallKind::PreCommit | CallKind::ProveCommit => self.commit,
            CallKind::PoSt => self.post,
            _ => None,
        };
        // Whose money moves, or who agrees, is said by the call; of a new miner only as long as nobody is named for it.
        let own = call.sender().filter(|_| call.kind() != CallKind::CreateMiner || named.is_none());
        let Some(own) = own else { return Ok(named.unwrap_or(self.default)) };
        let sender = from_core(own).map_err(|e| no_sender(own).because(e))?;
        if self.keys.contains(&sender) { Ok(sender) } else { Err(no_sender(&to_core(&sender))) }
    }
}
