//! Signatures for a cluster.

use super::{
    GatewayLink,
    link::{Channel, Work},
};
use crate::{
    lotus_json::{Lotus, form, from_core, to_core},
    signer::{MsgMeta, Purpose, SignRequest, Signer},
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
use tokio::sync::watch;

/// A signer that is offered to a cluster.
///
/// - The gateway is told which keys there are and has each sign a challenge: the SHA-256 of its random bytes and ours.
///   Nothing else is signed as a challenge.
/// - A message is signed only if it comes whole and its CID is what is to be signed.
/// - Nothing else is signed, whatever it is said to be: what comes with other bytes does not show what a signature over
///   them would agree to.
/// - Whatever is left of that is asked of the signer, whose policy has the last word.
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
        };
        Self { link, work: Arc::new(work) }
    }

    /// Serves signatures until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        self.link.serve(Arc::clone(&self.work), cancel).await;
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
        self.tell("AddNewAddress", addresses_param(addresses)?).await
    }

    /// Tells the gateway that keys are gone.
    ///
    /// # Errors
    ///
    /// There is no channel, or the gateway does not answer or refuses.
    pub async fn remove_addresses(&self, addresses: &[Address]) -> Result<(), ChainError> {
        self.tell("RemoveAddress", addresses_param(addresses)?).await
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
        let held = self.signer.addresses().await.map_err(|e| e.to_string())?;
        let known: Vec<_> = held.iter().filter_map(|address| from_core(address).ok()).map(Lotus).collect();
        Ok(json!(known))
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
