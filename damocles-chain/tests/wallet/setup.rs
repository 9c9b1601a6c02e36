//! Wallets in temporary directories, with cheap passwords and a clock that stands.

use damocles_chain::{
    lotus_json::from_core,
    wallet::{KdfParams, Password, Wallet, WalletOptions},
};
use damocles_core::{Address, Timestamp, testing::FakeClock};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{address::Address as ChainAddress, econ::TokenAmount, message::Message};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

pub(crate) struct Desk {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<FakeClock>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(FakeClock::at(Timestamp(1_780_000_000_000)));
        Self { dir: tempfile::tempdir().unwrap(), clock }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("wallet")
    }

    pub(crate) fn password() -> Password {
        Password::new(PASSWORD)
    }

    pub(crate) fn options() -> WalletOptions {
        WalletOptions::default().with_kdf(KdfParams::try_new(8, 1, 1).unwrap())
    }

    pub(crate) fn create(&self) -> Wallet {
        Wallet::create(self.path(), &Self::password(), Self::options(), self.clock.clone()).unwrap()
    }

    /// The wallet as another process sees it, unlocked.
    pub(crate) fn reopen(&self) -> Wallet {
        let wallet = Wallet::open(self.path(), Self::options(), self.clock.clone()).unwrap();
        wallet.unlock(&Self::password()).unwrap();
        wallet
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// A message that sends FIL, without gas.
pub(crate) fn send(from: &Address, to: u64, nonce: u64, fil: u64) -> Message {
    Message {
        version: 0,
        from: from_core(from).unwrap(),
        to: ChainAddress::new_id(to),
        sequence: nonce,
        value: TokenAmount::from_whole(fil),
        method_num: 0,
        params: RawBytes::default(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
    }
}
