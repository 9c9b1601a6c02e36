//! The keys of a node.

use super::{SignRequest, Signer, SignerError, SignerErrorKind, verify};
use crate::{
    lotus_json::{Lotus, SignedMessage, from_core, to_core},
    rpc::{RpcClient, is_unknown_method},
};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use damocles_core::{
    Address,
    chain::{ChainError, ChainErrorKind},
};
use fvm_shared::{
    address::{Address as ChainAddress, Protocol},
    crypto::signature::Signature,
    message::Message,
};
use serde_json::json;
use std::sync::Arc;

/// The wallet of a Lotus-compatible node. The node's token must allow signing.
///
/// A message goes to the node whole (`WalletSignMessage`), so that a wallet behind the node sees it too; other bytes go
/// as `WalletSign`. Only the signature is taken from the answer, and it is checked.
#[derive(Clone, Debug)]
pub struct NodeWallet {
    rpc: Arc<RpcClient>,
}

impl NodeWallet {
    /// The wallet of the node behind `rpc`.
    pub fn new(rpc: Arc<RpcClient>) -> Self {
        Self { rpc }
    }

    async fn sign_message(&self, address: &Address, message: &Message) -> Result<Signature, ChainError> {
        let params = json!([address, Lotus(message.clone())]);
        match self.rpc.call::<SignedMessage>("WalletSignMessage", params).await {
            Ok(signed) => Ok(signed.signature),
            Err(e) if is_unknown_method(&e) => {
                let to_sign = SignRequest::message(message.clone()).to_sign();
                self.sign_bytes(address, &to_sign).await
            }
            Err(e) => Err(e),
        }
    }

    async fn sign_bytes(&self, address: &Address, bytes: &[u8]) -> Result<Signature, ChainError> {
        self.rpc.call_form("WalletSign", json!([address, STANDARD.encode(bytes)])).await
    }

    fn failed(&self, op: &'static str, error: ChainError) -> SignerError {
        let kind = match error.kind() {
            ChainErrorKind::NotFound => SignerErrorKind::NoKey,
            ChainErrorKind::Malformed => SignerErrorKind::Answer,
            ChainErrorKind::Rejected => SignerErrorKind::Refused,
            _ => SignerErrorKind::Unreachable,
        };
        let recovery = error.recovery();
        let hint = error.hint().map(str::to_owned);
        let failed = SignerError::new(kind, op).with("node", self.rpc.endpoint()).recover_by(recovery).because(error);
        match hint {
            Some(hint) => failed.hint_with(hint),
            None => failed,
        }
    }
}

#[async_trait]
impl Signer for NodeWallet {
    async fn addresses(&self) -> Result<Vec<Address>, SignerError> {
        let all: Vec<Lotus<ChainAddress>> = match self.rpc.call("WalletList", json!([])).await {
            Ok(all) => all,
            Err(e) => return Err(self.failed("list keys", e)),
        };
        let ours = all.iter().filter(|a| matches!(a.0.protocol(), Protocol::Secp256k1 | Protocol::BLS));
        Ok(ours.map(|a| to_core(&a.0)).collect())
    }

    async fn has(&self, address: &Address) -> Result<bool, SignerError> {
        self.rpc.call("WalletHas", json!([address])).await.map_err(|e| self.failed("look for key", e))
    }

    async fn sign(&self, address: &Address, request: &SignRequest) -> Result<Signature, SignerError> {
        let signed = match request {
            SignRequest::Message(message) => self.sign_message(address, message).await,
            SignRequest::Bytes { bytes, .. } => self.sign_bytes(address, bytes).await,
        };
        let signature = signed.map_err(|e| self.failed("sign", e))?;
        if from_core(address).is_ok_and(|key| verify(&key, &signature, &request.to_sign())) {
            return Ok(signature);
        }
        Err(SignerError::new(SignerErrorKind::Answer, "sign")
            .with("node", self.rpc.endpoint())
            .with("address", address)
            .with("what", "the signature is not the key's"))
    }

    fn suits(&self, _: &str) -> Result<(), SignerError> {
        Ok(())
    }
}
