//! The file.

use crate::setup::{Desk, PASSWORD};
use base64::{Engine as _, engine::general_purpose};
use damocles_chain::{
    signer::{KeyKind, Keystore, PrivateKey, SignerErrorKind},
    wallet::{KdfParams, Password, Policy, Wallet, WalletErrorKind, WalletOptions},
};
use damocles_core::TokenAmount;
use std::os::unix::fs::PermissionsExt as _;

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// All that can be looked for of a secret.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let reversed: Vec<u8> = secret.iter().rev().copied().collect();
    let mut forms = Vec::new();
    for bytes in [secret.to_vec(), reversed] {
        forms.push(hex::encode(&bytes).into_bytes());
        forms.push(hex::encode_upper(&bytes).into_bytes());
        forms.push(general_purpose::STANDARD_NO_PAD.encode(&bytes).into_bytes());
        forms.push(general_purpose::URL_SAFE_NO_PAD.encode(&bytes).into_bytes());
        // A part of a key is enough to find it.
        forms.push(bytes[..8].to_vec());
        forms.push(bytes[bytes.len() - 8..].to_vec());
        forms.push(bytes);
    }
    forms
}

#[test]
fn no_file_tells_a_key_or_the_password() {
    let desk = Desk::new();
    let wallet = desk.create();
    let mut secrets = vec![PASSWORD.as_bytes().to_vec()];
    for kind in [KeyKind::Bls, KeyKind::Secp256k1] {
        let key = PrivateKey::generate(kind);
        let export = hex::encode(key.to_lotus().as_slice());
        let address = wallet.import(&export).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&key.to_lotus()).unwrap();
        secrets.push(general_purpose::STANDARD.decode(json["PrivateKey"].as_str().unwrap()).unwrap());
        secrets.push(export.into_bytes());
        let limit = Policy::messages().with_daily(TokenAmount::from_fil(1)).unwrap();
        wallet.set_policy(&address, Some(limit)).unwrap();
        if kind == KeyKind::Bls {
            wallet.delete(&address).unwrap();
        }
    }
    let again = Wallet::open(desk.path(), Desk::options(), desk.clock.clone()).unwrap();
    assert!(again.unlock(&Password::new("a wrong password")).is_err());

    let mut looked = 0;
    for entry in fs_err::read_dir(desk.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs_err::read(&path).unwrap();
        for form in secrets.iter().flat_map(|secret| forms(secret)) {
            assert!(!contains(&bytes, &form), "{}", path.display());
        }
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        looked += 1;
    }
    assert_eq!(looked, 4, "the wallet, its lock, the wrong passwords, the record of what was signed away");
    assert!(!format!("{wallet:?}").contains("horse"));
}

#[test]
fn every_flipped_byte_is_a_typed_error() {
    let desk = Desk::new();
    desk.create().generate(KeyKind::Secp256k1).unwrap();
    let good = fs_err::read(desk.path()).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    for at in 0..good.len() {
        for corrected in [false, true] {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            if corrected && at < good.len() - 32 {
                // Whoever means harm corrects the check sum too.
                let end = bad.len() - 32;
                let check = blake2b_simd::Params::new().hash_length(32).hash(&bad[..end]);
                bad[end..].copy_from_slice(check.as_bytes());
            }
            fs_err::write(desk.path(), &bad).unwrap();
            fs_err::set_permissions(desk.path(), private.clone()).unwrap();
            desk.wait(1_000);
            let opened = Wallet::open(desk.path(), Desk::options(), desk.clock.clone());
            let error = opened.and_then(|wallet| wallet.unlock(&Desk::password())).unwrap_err();
            let known = match error.kind() {
                WalletErrorKind::Corrupt => true,
                WalletErrorKind::Newer => (8..10).contains(&at),
                WalletErrorKind::WrongPassword => corrected,
                _ => false,
            };
            assert!(known, "byte {at}: {error}");
            assert!(error.to_string().contains(&desk.path().display().to_string()) && error.hint().is_some());
        }
    }
    fs_err::write(desk.path(), &good).unwrap();
    desk.wait(1_000);
    assert_eq!(desk.reopen().keys().unwrap().len(), 1);
}

#[test]
fn files_that_are_no_wallet() {
    let desk = Desk::new();
    let open = || Wallet::open(desk.path(), Desk::options(), desk.clock.clone()).map(|_| ()).unwrap_err();
    assert_eq!(open().kind(), WalletErrorKind::NotFound);
    desk.create();
    for mode in [0o644, 0o660, 0o601] {
        fs_err::set_permissions(desk.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let error = open();
        assert_eq!(error.kind(), WalletErrorKind::Exposed);
        assert!(error.to_string().contains(&format!("{mode:o}")) && error.hint().unwrap().contains("chmod 600"));
    }
    let private = std::fs::Permissions::from_mode(0o600);
    for (bytes, kind) in [
        (&b""[..], WalletErrorKind::Corrupt),
        (b"{\"Type\":\"bls\"}", WalletErrorKind::Corrupt),
        (b"DMCLSWLT\x00\x02 anything that comes later", WalletErrorKind::Newer),
    ] {
        fs_err::write(desk.path(), bytes).unwrap();
        fs_err::set_permissions(desk.path(), private.clone()).unwrap();
        assert_eq!(open().kind(), kind);
    }
}

#[test]
fn a_wallet_is_never_overwritten_and_a_torn_write_changes_nothing() {
    let desk = Desk::new();
    let wallet = desk.create();
    let address = wallet.generate(KeyKind::Bls).unwrap();
    let again = Wallet::create(desk.path(), &Desk::password(), Desk::options(), desk.clock.clone());
    assert_eq!(again.unwrap_err().kind(), WalletErrorKind::Exists);
    // A process that was killed while it wrote leaves this.
    fs_err::write(desk.dir.path().join("wallet.new"), b"half a wal").unwrap();
    assert_eq!(desk.reopen().default_address().unwrap(), Some(address));
    wallet.generate(KeyKind::Secp256k1).unwrap();
    assert_eq!(desk.reopen().keys().unwrap().len(), 2);
    let short = Wallet::create(desk.dir.path().join("w"), &Password::new("short"), Desk::options(), desk.clock.clone());
    assert_eq!(short.unwrap_err().kind(), WalletErrorKind::WeakPassword);
}

#[test]
fn a_lotus_keystore_is_taken_over() {
    let desk = Desk::new();
    let wallet = desk.create();
    let dir = desk.dir.path().join("keystore");
    let lotus = Keystore::open(&dir).unwrap();
    let (owner, worker) = (lotus.create(KeyKind::Secp256k1).unwrap(), lotus.create(KeyKind::Bls).unwrap());
    // Lotus keeps more than wallets there.
    fs_err::write(dir.join("MF2XI2BNORXWWZLO"), b"token").unwrap();
    wallet.import(&lotus.export(&owner).unwrap()).unwrap();
    let imported = wallet.import_keystore(&dir).unwrap();
    assert_eq!(imported.iter().filter(|key| key.new).map(|key| &key.address).collect::<Vec<_>>(), [&worker]);
    assert_eq!(imported.len(), 2);
    assert_eq!(wallet.export(&worker).unwrap(), lotus.export(&worker).unwrap());

    let file = fs_err::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
    for path in file {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert_eq!(wallet.import_keystore(&dir).unwrap_err().kind(), WalletErrorKind::Exposed);
    let nowhere = desk.dir.path().join("nowhere");
    assert_eq!(wallet.import_keystore(&nowhere).unwrap_err().kind(), WalletErrorKind::NotFound);
    assert!(!nowhere.exists(), "a directory that is only read is not made");
    assert_eq!(wallet.import("7b7d").unwrap_err().kind(), WalletErrorKind::BadKey);
}

#[test]
fn the_trash_is_in_the_file() {
    let desk = Desk::new();
    let wallet = desk.create();
    let (kept, gone) = (wallet.generate(KeyKind::Bls).unwrap(), wallet.generate(KeyKind::Bls).unwrap());
    let export = wallet.export(&gone).unwrap();
    wallet.set_default(&gone).unwrap();
    wallet.delete(&gone).unwrap();
    let wallet = desk.reopen();
    assert_eq!(wallet.default_address().unwrap(), None);
    for error in [
        wallet.export(&gone).map(|_| ()).unwrap_err(),
        wallet.delete(&gone).unwrap_err(),
        wallet.set_default(&gone).unwrap_err(),
        wallet.restore(&kept).unwrap_err(),
    ] {
        assert_eq!(error.kind(), WalletErrorKind::UnknownAddress);
    }
    let trashed: Vec<_> = wallet.keys().unwrap().into_iter().filter(|key| key.deleted.is_some()).collect();
    assert_eq!(trashed.len(), 1);
    wallet.restore(&gone).unwrap();
    assert_eq!(desk.reopen().export(&gone).unwrap(), export);
}

#[test]
fn other_costs_come_with_the_next_password() {
    let desk = Desk::new();
    let wallet = desk.create();
    let address = wallet.generate(KeyKind::Bls).unwrap();
    let dearer = WalletOptions::default().with_kdf(KdfParams::try_new(64, 2, 1).unwrap());
    let other = Wallet::open(desk.path(), dearer, desk.clock.clone()).unwrap();
    other.change_password(&Desk::password(), &Password::new("another password")).unwrap();
    let header = fs_err::read(desk.path()).unwrap();
    assert_eq!(header[10..22], [0, 0, 0, 64, 0, 0, 0, 2, 0, 0, 0, 1]);
    // The wallet that was unlocked with the old password is locked now.
    assert_eq!(wallet.export(&address).unwrap_err().kind(), WalletErrorKind::Locked);
    assert_eq!(wallet.unlock(&Desk::password()).unwrap_err().kind(), WalletErrorKind::WrongPassword);
    desk.wait(1);
    wallet.unlock(&Password::new("another password")).unwrap();
    wallet.export(&address).unwrap();
    assert_eq!(SignerErrorKind::Locked.to_string(), "the wallet is locked");
}
