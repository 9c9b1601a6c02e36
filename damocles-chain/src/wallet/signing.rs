//! The wallet as a signer.

use super::{Wallet, WalletError, error::of_signer, files::FileLock};
use crate::signer::{SignRequest, Signer, SignerError, SignerErrorKind};
use async_trait::async_trait;
use damocles_core::Address;
use fvm_shared::crypto::signature::Signature;

impl Wallet {
    /// Signs what the key's policy allows. A key with a daily limit signs only after the count lies on the disk.
    ///
    /// # Errors
    ///
    /// The wallet is locked or has no such key, or the policy does not allow it.
    pub fn sign_now(&self, address: &Address, request: &SignRequest) -> Result<Signature, WalletError> {
        const OP: &str = "sign";
        let now = self.now();
        self.used(OP, |open| {
            let (address, entry) = open.contents.live(address)?;
            let (address, key, policy) = (address.clone(), entry.key.clone(), entry.policy.clone());
            if let Some(policy) = policy {
                let cost = policy.check(&key.address(), request)?;
                if let (Some(cost), Some(most)) = (cost, policy.daily()) {
                    let _held = FileLock::take(OP, self.path())?;
                    open.ledger(self.path())?.charge(&address, cost, most, now)?;
                }
            }
            Ok(key.sign(&request.to_sign()))
        })
    }

    /// Runs what works on files where it may wait.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Self) -> Result<T, WalletError> + Send + 'static,
    ) -> Result<T, SignerError> {
        let wallet = self.clone();
        let done = tokio::task::spawn_blocking(move || f(&wallet)).await;
        done.map_err(|e| SignerError::new(SignerErrorKind::Io, "use wallet").because(e))?.map_err(of_signer)
    }
}

#[async_trait]
impl Signer for Wallet {
    async fn addresses(&self) -> Result<Vec<Address>, SignerError> {
        let keys = self.blocking(Self::keys).await?;
        Ok(keys.into_iter().filter(|key| key.deleted.is_none()).map(|key| key.address).collect())
    }

    async fn sign(&self, address: &Address, request: &SignRequest) -> Result<Signature, SignerError> {
        let (address, request) = (address.clone(), request.clone());
        self.blocking(move |wallet| wallet.sign_now(&address, &request)).await
    }

    fn suits(&self, _: &str) -> Result<(), SignerError> {
        Ok(())
    }
}
