//! Signatures for a cluster.

use super::{
    GatewayLink,
    link::{Channel, FIRST_DELAY, LAST_DELAY, Work},
};
use crate::{
    lotus_json::{Lotus, form, from_core, to_core},
    signer::{MsgMeta, Purpose, SignRequest, Signer, SignerError, SignerErrorKind},
};
use async_trait::async_trait;
use damocles_core::{
    Address, CancellationToken,
    chain::{ChainError, ChainErrorKind},
};
use fvm_shared::address::Address as ChainAddress;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::{info, warn};

/// A signer that is offered to a cluster.
///
/// - The gateway is told which keys there are and has each sign a challenge: the SHA-256 of its random bytes and ours.
///   Nothing else is signed as a challenge.
/// - A message is signed only if it comes whole and its CID is what is to be signed.
/// - Nothing else is signed, whatever it is said to be: what comes with other bytes does not show what a signature over
///   them would agree to.
/// - Whatever is left of that is asked of the signer, whose policy has the last word.
/// - A key whose policy does not let it sign the challenge is not offered: a gateway closes the channel of a wallet of
///   which one key fails. A wallet that is locked offers none until it is unlocked.
/// - Keys that come and go are told to the gateway by [`WalletLink::run`] as soon as [`WalletLink::keys_changed`] was
///   called.
#[derive(Debug)]
pub struct WalletLink {
    link: Arc<GatewayLink>,
    work: Arc<WalletWork>,
}

impl WalletLink {
    pub(super) fn new(link: Arc<GatewayLink>, signer: Arc<dyn Signer>, accounts: Vec<String>) -> Self {
        let sign_within = link.config.sign_within;
        let work = WalletWork {
            signer,
            accounts: Mutex::new(accounts.into_iter().collect()),
            ours: rand::random(),
            sign_within,
            channel: watch::Sender::new(None),
            told: Mutex::default(),
            news: Notify::new(),
        };
        Self { link, work: Arc::new(work) }
    }

    /// Serves signatures until cancelled, and tells the gateway of keys that come and go.
    pub async fn run(&self, cancel: CancellationToken) {
        let serving = self.link.serve(Arc::clone(&self.work), cancel.clone());
        tokio::join!(serving, cancel.run_until_cancelled(self.announce()));
    }

    /// Says that the signer may have other keys than before, or may be locked or unlocked now.
    pub fn keys_changed(&self) {
        self.work.news.notify_one();
    }

    async fn announce(&self) {
        let mut channel = self.work.channel.subscribe();
        let mut delay = None;
        loop {
            let again = async {
                match delay {
                    Some(delay) => sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The other end lives as long as this value. What came while a channel was opened is told then.
                _ = channel.changed() => {}
                () = self.work.news.notified() => {}
                () = again => {}
            }
            // The next channel begins with all keys.
            if channel.borrow_and_update().is_none() {
                delay = None;
                continue;
            }
            delay = match self.tell_changes().await {
                Ok(()) => None,
                Err(error) => {
                    warn!(error, "the gateway cannot be told which keys there are now");
                    Some(delay.map_or(FIRST_DELAY, |before: Duration| LAST_DELAY.min(before * 2)))
                }
            };
        }
    }

    /// Tells the gateway what is different from what it was told last.
    async fn tell_changes(&self) -> Result<(), String> {
        let now = self.work.offered().await.map_err(|e| e.to_string())?;
        let told = self.work.told.lock().clone();
        let gone: Vec<Address> = told.difference(&now).cloned().collect();
        if !gone.is_empty() {
            self.remove_addresses(&gone).await.map_err(|e| e.chain())?;
            info!(keys = gone.len(), "the gateway was told that keys are gone");
        }
        for new in now.difference(&told) {
            // One at a time: a gateway that does not take one takes none of those that came with it.
            match self.add_addresses(std::slice::from_ref(new)).await {
                Ok(()) => info!(key = %new, "the gateway was told of a key"),
                Err(e) if e.kind() == ChainErrorKind::Unavailable => return Err(e.chain()),
                Err(e) => warn!(key = %new, error = e.chain(), "the gateway does not take a key"),
            }
        }
        Ok(())
    }

    /// Waits until the gateway has checked the keys and says that the channel is ready.
    pub async fn ready(&self) {
        // The other end lives as long as this value.
        let _ = self.work.channel.subscribe().wait_for(Option::is_some).await;
    }

    /// Tells the gateway of new keys, which it has sign a challenge at once.
    ///
    /// # Errors
    ///
    /// There is no channel, or the gateway does not answer or refuses.
    pub async fn add_addresses(&self, addresses: &[Address]) -> Result<(), ChainError> {
        self.tell("AddNewAddress", addresses_param(addresses)?).await?;
        self.work.told.lock().extend(addresses.iter().cloned());
        Ok(())
    }

    /// Tells the gateway that keys are gone.
    ///
    /// # Errors
    ///
    /// There is no channel, or the gateway does not answer or refuses.
    pub async fn remove_addresses(&self, addresses: &[Address]) -> Result<(), ChainError> {
        self.tell("RemoveAddress", addresses_param(addresses)?).await?;
        self.work.told.lock().retain(|told| !addresses.contains(told));
        Ok(())
    }

    /// Serves one more account of the cluster, on this channel and those that follow it.
    ///
    /// # Errors
    ///
    /// There is no channel, or the gateway does not answer or refuses.
    pub async fn support_account(&self, account: &str) -> Result<(), ChainError> {
        self.tell("SupportNewAccount", json!(account)).await?;
        self.work.accounts.lock().insert(account.to_owned());
        Ok(())
    }

    async fn tell(&self, method: &'static str, what: Value) -> Result<(), ChainError> {
        let channel = self.work.channel.borrow().clone();
        let channel = channel.ok_or_else(|| {
            ChainError::new(ChainErrorKind::Unavailable, "tell gateway")
                .with("endpoint", self.link.service.endpoint())
                .with("method", method)
                .hint_with("wait until the gateway's channel is ready")
        })?;
        let params = json!([channel.id, what]);
        let told = self.link.service.call_on(&channel.open, method, &params, self.link.config.timeout).await;
        told.map(drop).map_err(|e| e.with("endpoint", self.link.service.endpoint()).with("method", method))
    }
}

fn addresses_param(addresses: &[Address]) -> Result<Value, ChainError> {
    let form = |address: &Address| {
        from_core(address)
            .map(Lotus)
            .map_err(|e| ChainError::new(ChainErrorKind::Rejected, "tell gateway").with("address", address).because(e))
    };
    Ok(json!(addresses.iter().map(form).collect::<Result<Vec<_>, _>>()?))
}

struct WalletWork {
    signer: Arc<dyn Signer>,
    accounts: Mutex<BTreeSet<String>>,
    /// Our part of the challenge.
    ours: [u8; 32],
    sign_within: Duration,
    channel: watch::Sender<Option<Channel>>,
    /// The keys that the gateway was told of on the present channel.
    told: Mutex<BTreeSet<Address>>,
    news: Notify,
}

impl fmt::Debug for WalletWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalletWork")
            .field("signer", &self.signer)
            .field("accounts", &self.accounts)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WalletSign {
    #[serde(with = "form")]
    signer: ChainAddress,
    #[serde(with = "form")]
    to_sign: Vec<u8>,
    #[serde(default)]
    meta: MsgMeta,
}

impl WalletWork {
    async fn list(&self) -> Result<Value, String> {
        let offered = self.offered().await.map_err(|e| e.to_string())?;
        let known: Vec<_> = offered.iter().filter_map(|address| from_core(address).ok()).map(Lotus).collect();
        *self.told.lock() = offered;
        Ok(json!(known))
    }

    /// The keys that can sign the gateway's challenge as things are.
    async fn offered(&self) -> Result<BTreeSet<Address>, SignerError> {
        let held = match self.signer.addresses().await {
            Err(e) if e.kind() == SignerErrorKind::Locked => return Ok(BTreeSet::new()),
            held => held?,
        };
        let probe = SignRequest::bytes(Purpose::VERIFY_ADDRESS, self.ours);
        let mut offered = BTreeSet::new();
        for key in held {
            match self.signer.sign(&key, &probe).await {
                Ok(_) => drop(offered.insert(key)),
                Err(e) if e.kind() == SignerErrorKind::Locked => return Ok(BTreeSet::new()),
                // Whoever holds them all cannot be asked: that says nothing of this key.
                Err(e) if matches!(e.kind(), SignerErrorKind::Io | SignerErrorKind::Unreachable) => return Err(e),
                Err(e) => warn!(%key, error = e.chain(), "a key is not offered to the gateway"),
            }
        }
        Ok(offered)
    }

    async fn sign(&self, payload: &[u8]) -> Result<Value, String> {
        let WalletSign { signer, to_sign, meta } =
            serde_json::from_slice(payload).map_err(|e| format!("read request to sign: {e}"))?;
        let request = self.checked(to_sign, &meta)?;
        let signature = self.signer.sign(&to_core(&signer), &request).await.map_err(|e| e.to_string())?;
        Ok(json!(Lotus(signature)))
    }

    fn checked(&self, to_sign: Vec<u8>, meta: &MsgMeta) -> Result<SignRequest, String> {
        if meta.r#type == Purpose::VERIFY_ADDRESS {
            let expected = Sha256::new().chain_update(&meta.extra).chain_update(self.ours).finalize();
            if expected.as_slice() != to_sign {
                return Err("what is to be signed is not the challenge: the SHA-256 of both sides' bytes".to_owned());
            }
        }
        let request = SignRequest::from_lotus(to_sign, meta).map_err(|e| e.to_string())?;
        match &request {
            SignRequest::Message(_) => Ok(request),
            SignRequest::Bytes { purpose, .. } if *purpose == Purpose::VERIFY_ADDRESS => Ok(request),
            SignRequest::Bytes { purpose, .. } => Err(format!(
                "bytes of type `{purpose}` are not signed here: nothing shows that they are what they are said to be"
            )),
        }
    }
}

#[async_trait]
impl Work for WalletWork {
    const LISTEN: &'static str = "ListenWalletEvent";
    const RESPOND: &'static str = "ResponseWalletEvent";

    fn policy(&self) -> Value {
        json!({"SupportAccounts": *self.accounts.lock(), "SignBytes": Lotus(self.ours.to_vec())})
    }

    fn connected(&self, channel: Option<Channel>) {
        self.channel.send_replace(channel);
    }

    async fn answer(&self, method: &str, payload: &[u8], _: &CancellationToken) -> Result<Value, String> {
        let working = async {
            match method {
                "WalletList" => self.list().await,
                "WalletSign" => self.sign(payload).await,
                other => Err(format!("unexpected wallet event type {other}")),
            }
        };
        let timed = tokio::time::timeout(self.sign_within, working).await;
        timed.unwrap_or_else(|_| Err(format!("{method} took more than {} s", self.sign_within.as_secs())))
    }
}
