//! Keys, signatures and who holds them.

mod error;
mod key;
mod keystore;
mod node;
mod request;
mod verify;

pub use error::{SignerError, SignerErrorKind};
pub use key::{KeyKind, PrivateKey};
pub use keystore::Keystore;
pub use node::NodeWallet;
pub(crate) use request::is_message_cid;
pub use request::{MsgMeta, Purpose, SignRequest};
pub use verify::verify;

use crate::lotus_json::from_core;
use async_trait::async_trait;
use damocles_core::Address;
use fvm_shared::crypto::signature::Signature;
use std::fmt;

/// Whoever holds keys.
///
/// # Contract
///
/// - `sign` signs [`SignRequest::to_sign`] as the chain checks it: secp256k1 over its BLAKE2b-256, BLS over itself. It
///   may look at what is asked and refuse.
/// - A key that a signer lists stays usable until an operator removes it.
/// - Nothing secret is in an error or in `Debug`.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync + 'static {
    /// The key addresses that it signs for.
    async fn addresses(&self) -> Result<Vec<Address>, SignerError>;

    /// Whether it signs for a key address, whatever its network prefix.
    async fn has(&self, address: &Address) -> Result<bool, SignerError> {
        let wanted = from_core(address);
        Ok(self.addresses().await?.iter().any(|held| wanted.is_ok() && from_core(held) == wanted))
    }

    /// Signs.
    async fn sign(&self, address: &Address, request: &SignRequest) -> Result<Signature, SignerError>;

    /// Whether its keys are kept well enough for this network; asked before the first signature.
    fn suits(&self, network: &str) -> Result<(), SignerError>;
}
