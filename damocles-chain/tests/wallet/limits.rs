//! What keys may sign, through the signer.

use crate::setup::{Desk, send};
use damocles_chain::{
    signer::{KeyKind, Purpose, SignRequest, Signer as _, SignerErrorKind},
    wallet::{Method, Policy, WalletErrorKind},
};
use damocles_core::{Recovery, TokenAmount};

#[tokio::test]
async fn a_policy_holds_for_its_key() {
    let desk = Desk::new();
    let wallet = desk.create();
    let (bound, free) = (wallet.generate(KeyKind::Bls).unwrap(), wallet.generate(KeyKind::Bls).unwrap());
    let policy = Policy::messages().with_method(Method::number(0)).with_receiver(&"t01000".parse().unwrap()).unwrap();
    wallet.set_policy(&bound, Some(policy.clone())).unwrap();
    let wallet = desk.reopen();
    let record = wallet.keys().unwrap().into_iter().find(|key| key.address == bound).unwrap();
    assert_eq!(record.policy, Some(policy));

    let message = |key, to| SignRequest::message(send(key, to, 0, 1));
    wallet.sign(&bound, &message(&bound, 1000)).await.unwrap();
    let error = wallet.sign(&bound, &message(&bound, 1001)).await.unwrap_err();
    assert_eq!((error.kind(), error.recovery()), (SignerErrorKind::Refused, Recovery::Park));
    assert!(error.chain().contains("receiver") && error.hint().is_some(), "{}", error.chain());
    wallet.sign(&free, &message(&free, 1001)).await.unwrap();

    let text = SignRequest::bytes(Purpose::UNKNOWN, *b"text");
    assert!(wallet.sign(&bound, &text).await.is_err());
    wallet.sign(&free, &text).await.unwrap();
    // The CID alone is how one would ask around the policy.
    let alone = SignRequest::bytes(Purpose::UNKNOWN, message(&bound, 1001).to_sign());
    assert!(wallet.sign(&bound, &alone).await.is_err());

    wallet.set_policy(&bound, None).unwrap();
    wallet.sign(&bound, &message(&bound, 1001)).await.unwrap();
    let stranger = "t1gsu7dkdufuygtbcclhmjcao7vg7cap46l6ij2ri".parse().unwrap();
    assert_eq!(wallet.sign(&stranger, &text).await.unwrap_err().kind(), SignerErrorKind::NoKey);
    assert!(wallet.has(&bound).await.unwrap() && !wallet.has(&stranger).await.unwrap());
}

#[test]
fn a_daily_limit_survives_restarts_and_a_second_process() {
    let desk = Desk::new();
    let wallet = desk.create();
    let key = wallet.generate(KeyKind::Secp256k1).unwrap();
    let ten = TokenAmount::from_fil(10);
    wallet.set_policy(&key, Some(Policy::messages().with_daily(ten).unwrap())).unwrap();
    let ask = |wallet: &damocles_chain::wallet::Wallet, nonce, fil| {
        wallet.sign_now(&key, &SignRequest::message(send(&key, 1000, nonce, fil))).map(|_| ()).map_err(|e| e.kind())
    };
    ask(&wallet, 0, 4).unwrap();
    let other = desk.reopen();
    ask(&other, 1, 4).unwrap();
    assert_eq!(ask(&wallet, 2, 4), Err(WalletErrorKind::OverLimit));
    ask(&desk.reopen(), 2, 2).unwrap();
    assert_eq!(desk.reopen().spent_today(&key).unwrap(), ten);
    // Nor does another policy with a limit, or the key's way through the trash, forget the day.
    wallet.set_policy(&key, Some(Policy::messages().with_daily(TokenAmount::from_fil(11)).unwrap())).unwrap();
    let export = wallet.export(&key).unwrap();
    wallet.delete(&key).unwrap();
    wallet.import(&export).unwrap();
    assert_eq!(ask(&wallet, 3, 2), Err(WalletErrorKind::OverLimit));
    ask(&wallet, 3, 1).unwrap();

    desk.wait(86_400);
    assert_eq!(wallet.spent_today(&key).unwrap(), TokenAmount::ZERO);
    ask(&wallet, 4, 11).unwrap();

    fs_err::remove_file(desk.dir.path().join("wallet.spent")).unwrap();
    assert_eq!(ask(&wallet, 5, 0), Err(WalletErrorKind::Corrupt), "without the record nothing is signed");
    wallet.set_policy(&key, Some(Policy::messages().with_daily(ten).unwrap())).unwrap();
    ask(&wallet, 5, 1).unwrap();
}

#[test]
fn gas_counts_into_the_day() {
    let desk = Desk::new();
    let wallet = desk.create();
    let key = wallet.generate(KeyKind::Secp256k1).unwrap();
    wallet.set_policy(&key, Some(Policy::messages().with_daily(TokenAmount::from_fil(1)).unwrap())).unwrap();
    let mut message = send(&key, 1000, 0, 0);
    message.gas_limit = 1_000_000_000;
    message.gas_fee_cap = fvm_shared::econ::TokenAmount::from_atto(600_000_000);
    wallet.sign_now(&key, &SignRequest::message(message.clone())).unwrap();
    message.sequence = 1;
    let error = wallet.sign_now(&key, &SignRequest::message(message)).unwrap_err();
    assert_eq!(error.kind(), WalletErrorKind::OverLimit);
    assert!(error.to_string().contains("0.6 FIL"), "{error}");
}

#[test]
fn two_processes_cannot_sign_away_more_than_one() {
    let desk = Desk::new();
    let wallet = desk.create();
    let key = wallet.generate(KeyKind::Secp256k1).unwrap();
    wallet.set_policy(&key, Some(Policy::messages().with_daily(TokenAmount::from_fil(25)).unwrap())).unwrap();
    let signed = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (desk, key, signed) = (&desk, &key, &signed);
            scope.spawn(move || {
                let wallet = desk.reopen();
                for nonce in 0..10 {
                    let request = SignRequest::message(send(key, 1000, part * 10 + nonce, 1));
                    match wallet.sign_now(key, &request) {
                        Ok(_) => _ = signed.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
                        Err(e) => assert_eq!(e.kind(), WalletErrorKind::OverLimit),
                    }
                }
            });
        }
    });
    assert_eq!(signed.into_inner(), 25);
}
