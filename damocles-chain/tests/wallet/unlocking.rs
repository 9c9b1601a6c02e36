//! Locks and passwords.

use crate::setup::Desk;
use damocles_chain::{
    signer::{KeyKind, Purpose, SignRequest, Signer as _, SignerErrorKind},
    wallet::{LockState, Password, Wallet, WalletErrorKind},
};
use damocles_core::{Clock as _, Recovery};
use std::time::Duration;

#[tokio::test]
async fn a_locked_wallet_does_nothing() {
    let desk = Desk::new();
    let wallet = desk.create();
    let address = wallet.generate(KeyKind::Bls).unwrap();
    let text = SignRequest::bytes(Purpose::UNKNOWN, *b"text");
    wallet.sign(&address, &text).await.unwrap();
    wallet.lock();
    assert_eq!(wallet.state(), LockState::Locked);
    for error in [
        wallet.keys().map(|_| ()).unwrap_err(),
        wallet.generate(KeyKind::Bls).map(|_| ()).unwrap_err(),
        wallet.export(&address).map(|_| ()).unwrap_err(),
        wallet.delete(&address).unwrap_err(),
        wallet.sign_now(&address, &text).map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), WalletErrorKind::Locked);
        assert!(error.hint().unwrap().contains("unlock"));
    }
    let error = wallet.sign(&address, &text).await.unwrap_err();
    assert_eq!(error.kind(), SignerErrorKind::Locked);
    assert_eq!(error.recovery(), Recovery::RETRY, "an operator will unlock it");
    wallet.unlock(&Desk::password()).unwrap();
    assert_eq!(wallet.state(), LockState::Unlocked { until: None });
    wallet.sign(&address, &text).await.unwrap();
}

#[test]
fn wrong_passwords_are_slowed_down_over_restarts() {
    let desk = Desk::new();
    desk.create();
    let wrong = Password::new("incorrect horse");
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let wallet = Wallet::open(desk.path(), Desk::options(), desk.clock.clone()).unwrap();
        let error = wallet.unlock(&wrong).unwrap_err();
        assert_eq!(error.kind(), WalletErrorKind::WrongPassword);
        let error = wallet.unlock(&Desk::password()).unwrap_err();
        assert_eq!(error.kind(), WalletErrorKind::RateLimited, "the right one has to wait too");
        let Recovery::Retry { after: Some(after) } = error.recovery() else { panic!("{error}") };
        pauses.push(after.as_secs());
        desk.wait(after.as_secs() - 1);
        assert_eq!(wallet.unlock(&wrong).unwrap_err().kind(), WalletErrorKind::RateLimited);
        desk.wait(1);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16]);
    let wallet = desk.reopen();
    // The right one ends it; a wrong one begins anew.
    assert_eq!(wallet.unlock(&wrong).unwrap_err().kind(), WalletErrorKind::WrongPassword);
    assert!(matches!(wallet.state(), LockState::Unlocked { .. }), "what is open stays open");
    let error = wallet.change_password(&wrong, &Password::new("long enough")).unwrap_err();
    assert_eq!(error.kind(), WalletErrorKind::RateLimited);
    desk.wait(1);
    let error = wallet.change_password(&Desk::password(), &Password::new("short")).unwrap_err();
    assert_eq!(error.kind(), WalletErrorKind::WeakPassword);
}

#[test]
fn an_idle_wallet_locks_itself() {
    let desk = Desk::new();
    let address = desk.create().generate(KeyKind::Secp256k1).unwrap();
    let options = Desk::options().with_auto_lock(Duration::from_secs(60));
    let wallet = Wallet::open(desk.path(), options, desk.clock.clone()).unwrap();
    wallet.unlock(&Desk::password()).unwrap();
    let until = |seconds| LockState::Unlocked { until: Some(desk.clock.now().plus(Duration::from_secs(seconds))) };
    assert_eq!(wallet.state(), until(60));
    desk.wait(59);
    wallet.sign_now(&address, &SignRequest::bytes(Purpose::UNKNOWN, *b"text")).unwrap();
    desk.wait(59);
    wallet.keys().unwrap();
    assert_eq!(wallet.state(), until(1), "a look is not a use");
    desk.wait(1);
    assert_eq!(wallet.state(), LockState::Locked);
    assert_eq!(wallet.keys().unwrap_err().kind(), WalletErrorKind::Locked);
}

#[test]
fn wallets_over_one_file_see_each_other() {
    let desk = Desk::new();
    let here = desk.create();
    let there = desk.reopen();
    let address = here.generate(KeyKind::Bls).unwrap();
    assert_eq!(there.default_address().unwrap(), Some(address.clone()));
    there.delete(&address).unwrap();
    assert_eq!(here.export(&address).unwrap_err().kind(), WalletErrorKind::UnknownAddress);
    fs_err::remove_file(desk.path()).unwrap();
    assert_eq!(here.keys().unwrap_err().kind(), WalletErrorKind::NotFound);
    assert_eq!(here.state(), LockState::Locked);
}

#[test]
fn no_change_is_lost_between_threads() {
    let desk = Desk::new();
    desk.create();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let wallet = Wallet::open(desk.path(), Desk::options(), desk.clock.clone()).unwrap();
                wallet.unlock(&Desk::password()).unwrap();
                for _ in 0..5 {
                    wallet.generate(KeyKind::Secp256k1).unwrap();
                }
            });
        }
    });
    assert_eq!(desk.reopen().keys().unwrap().len(), 20);
}
