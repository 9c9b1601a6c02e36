//! Keys, signatures and who holds them.

mod error;
mod key;
mod keystore;
mod verify;

pub use error::{SignerError, SignerErrorKind};
pub use key::{KeyKind, PrivateKey};
pub use keystore::Keystore;
pub use verify::verify;

use async_trait::async_trait;
use damocles_core::Address;
use fvm_shared::crypto::signature::Signature;
use std::fmt;

/// Whoever holds keys.
///
/// # Contract
///
/// - `sign` signs the bytes as the chain checks them: secp256k1 over their BLAKE2b-256, BLS over themselves.
/// - A key that a signer lists stays usable until an operator removes it.
/// - Nothing secret is in an error or in `Debug`.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync + 'static {
    /// The key addresses that it signs for.
    async fn addresses(&self) -> Result<Vec<Address>, SignerError>;

    /// Signs.
    async fn sign(&self, address: &Address, bytes: &[u8]) -> Result<Signature, SignerError>;

    /// Whether its keys are kept well enough for this network; asked before the first signature.
    fn suits(&self, network: &str) -> Result<(), SignerError>;
}
