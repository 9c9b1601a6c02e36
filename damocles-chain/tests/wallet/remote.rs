//! Keys on another machine.

use crate::{
    server::{self, Server},
    setup::{Desk, send},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use damocles_chain::{
    lotus_json::from_core,
    rpc::Endpoint,
    signer::{KeyKind, Purpose, SignRequest, Signer, SignerErrorKind, verify},
    wallet::{LockState, Password, Policy, RPC_METHODS, RemoteWallet, Wallet, WalletCaller, WalletRpc},
};
use damocles_core::{Recovery, TokenAmount};
use serde_json::{Value, json};
use std::time::Duration;

const TOKEN: &str = "a-token-of-the-wallet";

async fn ask(rpc: &WalletRpc, caller: &WalletCaller, method: &str, params: Value) -> Value {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    serde_json::from_str(&rpc.handle(caller, &request).await.unwrap()).unwrap()
}

fn remote(bearer: Option<&str>) -> WalletCaller {
    WalletCaller::Remote { bearer: bearer.map(str::to_owned) }
}

fn client(server: &Server, token: &str) -> RemoteWallet {
    RemoteWallet::new(server.url.parse::<Endpoint>().unwrap().with_token(token)).unwrap()
}

#[tokio::test]
async fn keys_are_used_over_the_network() {
    let desk = Desk::new();
    let wallet = desk.create();
    let keys = [wallet.generate(KeyKind::Secp256k1).unwrap(), wallet.generate(KeyKind::Bls).unwrap()];
    let gone = wallet.generate(KeyKind::Bls).unwrap();
    wallet.delete(&gone).unwrap();
    let server = Server::tcp(server::wallet(WalletRpc::new(wallet.clone(), TOKEN))).await;
    let remote = client(&server, TOKEN);
    let mut held = remote.addresses().await.unwrap();
    held.sort();
    let mut wanted = keys.to_vec();
    wanted.sort();
    assert_eq!(held, wanted);
    for key in &keys {
        assert!(remote.has(key).await.unwrap());
        for request in [
            SignRequest::message(send(key, 1000, 0, 1)),
            SignRequest::bytes(Purpose::BLOCK, vec![7; 300]),
            SignRequest::bytes(Purpose::UNKNOWN, Vec::new()),
        ] {
            let signature = remote.sign(key, &request).await.unwrap();
            assert!(verify(&from_core(key).unwrap(), &signature, &request.to_sign()));
            assert_eq!(signature, wallet.sign(key, &request).await.unwrap());
        }
    }
    assert!(!remote.has(&gone).await.unwrap());
    let text = SignRequest::bytes(Purpose::UNKNOWN, *b"text");
    assert_eq!(remote.sign(&gone, &text).await.unwrap_err().kind(), SignerErrorKind::NoKey);

    // What the wallet says is what the manager learns.
    let policy = Policy::messages().with_daily(TokenAmount::from_fil(1)).unwrap();
    wallet.set_policy(&keys[0], Some(policy)).unwrap();
    let error = remote.sign(&keys[0], &SignRequest::message(send(&keys[0], 1000, 0, 2))).await.unwrap_err();
    assert_eq!((error.kind(), error.recovery()), (SignerErrorKind::Refused, Recovery::RETRY), "tomorrow it may");
    let error = remote.sign(&keys[0], &text).await.unwrap_err();
    assert_eq!((error.kind(), error.recovery()), (SignerErrorKind::Refused, Recovery::Park));
    wallet.lock();
    for error in [remote.addresses().await.map(|_| ()), remote.sign(&keys[1], &text).await.map(|_| ())] {
        assert_eq!(error.unwrap_err().kind(), SignerErrorKind::Locked);
    }
    let held: std::sync::Arc<dyn Signer> = std::sync::Arc::new(remote);
    assert!(held.suits("mainnet").is_ok());
}

#[tokio::test]
async fn only_the_token_lets_in_and_only_the_socket_unlocks() {
    let desk = Desk::new();
    let wallet = desk.create();
    let key = wallet.generate(KeyKind::Bls).unwrap();
    let rpc = WalletRpc::new(wallet.clone(), TOKEN);
    for caller in [remote(None), remote(Some("")), remote(Some("a-token-of-the-wallet2"))] {
        for method in RPC_METHODS {
            let answer = ask(&rpc, &caller, method, json!([])).await;
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("missing permission"), "{method}: {answer}");
        }
    }
    for method in ["Filecoin.Lock", "Filecoin.Unlock", "Filecoin.LockState"] {
        let answer = ask(&rpc, &remote(Some(TOKEN)), method, json!(["x"])).await;
        assert!(answer["error"]["message"].as_str().unwrap().contains("the wallet's socket"), "{answer}");
    }
    for method in ["Filecoin.WalletExport", "Filecoin.WalletNew", "Filecoin.WalletDelete", "Filecoin.WalletImport"] {
        let answer = ask(&rpc, &WalletCaller::Owner, method, json!([key])).await;
        assert_eq!(answer["error"]["code"], -32601, "{method} is not served");
    }

    let socket = desk.dir.path().join("wallet.sock");
    let _server = Server::unix(&socket, server::owned(rpc)).await;
    let owner = RemoteWallet::at_socket(&socket).unwrap();
    assert_eq!(owner.state().await.unwrap(), LockState::Unlocked { until: None });
    owner.lock().await.unwrap();
    assert_eq!(wallet.state(), LockState::Locked);
    assert_eq!(owner.state().await.unwrap(), LockState::Locked);
    let error = owner.unlock(&Password::new("a wrong one")).await.unwrap_err();
    assert_eq!(error.kind(), SignerErrorKind::Locked);
    let error = owner.unlock(&Desk::password()).await.unwrap_err();
    let wait = Recovery::Retry { after: Some(Duration::from_secs(1)) };
    assert_eq!((error.recovery(), error.hint().is_some()), (wait, true));
    desk.wait(1);
    owner.unlock(&Desk::password()).await.unwrap();
    let text = SignRequest::bytes(Purpose::UNKNOWN, *b"text");
    owner.sign(&key, &text).await.unwrap();

    let server = Server::tcp(server::wallet(WalletRpc::new(wallet, TOKEN))).await;
    let error = client(&server, "another").addresses().await.unwrap_err();
    assert_eq!((error.kind(), error.recovery()), (SignerErrorKind::Denied, Recovery::Park));
}

#[tokio::test]
async fn the_wire_is_lotus() {
    let desk = Desk::new();
    let wallet = desk.create();
    let key = wallet
        .import("7b2254797065223a22736563703235366b31222c22507269766174654b6579223a226b35507976337148327349586343595a58594f5775453149326e32554539436861556b6c4e36695a5763453d227d")
        .unwrap();
    let rpc = WalletRpc::new(wallet, TOKEN);
    let caller = remote(Some(TOKEN));
    let list = ask(&rpc, &caller, "Filecoin.WalletList", json!([])).await;
    assert_eq!(list, json!({"jsonrpc": "2.0", "id": 1, "result": ["t1fib3pv7jua2ockdugtz7viz3cyy6lkhh7rfx3sa"]}));
    let f_key = format!("f{}", &key.as_str()[1..]);
    assert_eq!(ask(&rpc, &caller, "Filecoin.WalletHas", json!([f_key])).await["result"], true);
    assert_eq!(ask(&rpc, &caller, "Filecoin.WalletDefaultAddress", json!([])).await["result"], key.as_str());

    // `lotus wallet sign` of the bytes "DUKE".
    let signature = "A7/yhvE3HBpM6OM8KdaiDutT8XlwGQ0SxaHA/EvppW52YlDVqC3aIXn6kK4pdpbR36qe6o8vgz2gz4e5JylOtwA=";
    let meta = json!({"Type": "unknown", "Extra": null});
    for params in [json!([f_key, "RFVLRQ==", meta]), json!([f_key, "RFVLRQ=="]), json!([f_key, "RFVLRQ==", null])] {
        let answer = ask(&rpc, &caller, "Filecoin.WalletSign", params).await;
        assert_eq!(answer["result"], json!({"Type": 1, "Data": signature}), "{answer}");
    }

    // A message is signed only with the message whose CID it is.
    let message = |fil| SignRequest::message(send(&key, 1000, 0, fil));
    let (cid, shown) = message(1).to_lotus();
    let cid = STANDARD.encode(cid);
    let answer = ask(&rpc, &caller, "Filecoin.WalletSign", json!([key, cid, shown])).await;
    assert_eq!(answer["result"]["Type"], 1);
    let (_, other) = message(2).to_lotus();
    let answer = ask(&rpc, &caller, "Filecoin.WalletSign", json!([key, cid, other])).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("not the CID of the message"), "{answer}");
    let bare = json!({"Type": "message", "Extra": null});
    assert!(ask(&rpc, &caller, "Filecoin.WalletSign", json!([key, cid, bare])).await["error"].is_object());
}

#[tokio::test]
async fn rubbish_is_answered_with_errors() {
    let desk = Desk::new();
    let rpc = WalletRpc::new(desk.create(), TOKEN);
    for text in ["", "[", "{}", "null", "\u{0}", "[[[[", r#"{"jsonrpc":"2.0","method":5}"#, &"x".repeat(2 << 20)] {
        let answer: Value = serde_json::from_str(&rpc.handle(&WalletCaller::Owner, text).await.unwrap()).unwrap();
        assert!(answer["error"]["code"].as_i64().unwrap() < 0, "{answer}");
    }
    for params in [
        json!([]),
        json!(["t1abc"]),
        json!({"address": 1}),
        json!(["t01000", 5]),
        json!(["t01000", "!", {}]),
        json!(["t01000", "AQID", {"Type": "a b"}]),
        json!(["t01000", "AQID", {}, 1]),
        json!(["t1gsu7dkdufuygtbcclhmjcao7vg7cap46l6ij2ri", "AQID", {}]),
    ] {
        let answer = ask(&rpc, &WalletCaller::Owner, "Filecoin.WalletSign", params.clone()).await;
        assert!(answer["error"]["code"].is_i64(), "{params}: {answer}");
    }
}

#[tokio::test]
async fn a_server_that_lies_is_found_out() {
    let desk = Desk::new();
    let wallet = desk.create();
    let key = wallet.generate(KeyKind::Secp256k1).unwrap();
    let text = SignRequest::bytes(Purpose::UNKNOWN, *b"text");
    let other: Wallet = desk.reopen();
    let of_other_text = other.sign(&key, &SignRequest::bytes(Purpose::UNKNOWN, *b"other")).await.unwrap();
    let lie = json!({"Type": 1, "Data": STANDARD.encode(of_other_text.bytes)});
    let ok = |result: Value| json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string();
    let error = |code: i64, message: &str| json!({"id": 1, "error": {"code": code, "message": message}}).to_string();
    for (status, body, kind) in [
        (200, ok(lie), SignerErrorKind::Answer),
        (200, ok(json!({"Type": 1, "Data": "AQID"})), SignerErrorKind::Answer),
        (200, ok(json!({"Type": 3, "Data": "AQID"})), SignerErrorKind::Answer),
        (200, ok(Value::Null), SignerErrorKind::Answer),
        (200, "<html>".to_owned(), SignerErrorKind::Answer),
        (200, String::new(), SignerErrorKind::Answer),
        (500, error(1, "key not found"), SignerErrorKind::NoKey),
        (500, error(1, "wallet is locked"), SignerErrorKind::Locked),
        (500, error(1, "no"), SignerErrorKind::Refused),
        (500, error(7007, "no"), SignerErrorKind::Refused),
        (200, error(i64::MAX, "no"), SignerErrorKind::Refused),
        (200, error(i64::MIN, "missing permission to invoke"), SignerErrorKind::Denied),
    ] {
        let answer = body.clone();
        let handler = server::scripted(move |_| (status, answer.clone()));
        let server = Server::tcp(std::sync::Arc::clone(&handler)).await;
        let found = client(&server, TOKEN).sign(&key, &text).await.unwrap_err();
        assert_eq!(found.kind(), kind, "{body}: {}", found.chain());
        let path = desk.dir.path().join(format!("{status}{}.sock", body.len()));
        let _unix = Server::unix(&path, handler).await;
        let found = RemoteWallet::at_socket(&path).unwrap().sign(&key, &text).await.unwrap_err();
        assert_eq!(found.kind(), kind, "{body}: {}", found.chain());
        assert!(found.to_string().contains("sock"));
        fs_err::remove_file(path).unwrap();
    }
    let nobody = RemoteWallet::at_socket(&desk.dir.path().join("nobody.sock")).unwrap();
    let found = nobody.addresses().await.unwrap_err();
    assert_eq!(found.kind(), SignerErrorKind::Unreachable);
    assert!(found.hint().unwrap().contains("wallet run"));
    let nobody = RemoteWallet::new("http://127.0.0.1:1".parse().unwrap()).unwrap();
    assert_eq!(nobody.addresses().await.unwrap_err().kind(), SignerErrorKind::Unreachable);
}
