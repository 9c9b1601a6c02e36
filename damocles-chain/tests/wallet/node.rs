//! The keys of a node.

use crate::{
    server::{self, Server},
    setup::{Desk, send},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use damocles_chain::{
    lotus_json::{Lotus, SignedMessage, text_of},
    rpc::RpcClient,
    signer::{KeyKind, NodeWallet, PrivateKey, Purpose, SignRequest, Signer as _, SignerErrorKind},
};
use damocles_core::Address;
use fvm_shared::message::Message;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A node with one key, as Lotus answers. An old one does not know `WalletSignMessage`.
async fn node(key: PrivateKey, old: Arc<AtomicBool>) -> Server {
    Server::tcp(server::scripted(move |body| {
        let request: Value = serde_json::from_str(body).unwrap();
        let params = &request["params"];
        let address = text_of(&key.address());
        let refuse = |code: i64, message: &str| (500, json!({"id": 1, "error": {"code": code, "message": message}}));
        let answer = |result: Value| (200, json!({"jsonrpc": "2.0", "id": 1, "result": result}));
        let (status, body) = match request["method"].as_str().unwrap() {
            "Filecoin.WalletList" => answer(json!([address, "f410fkkld55ioe7qg24wvt7fu6pbknb56ht7pt4zamxa", "f01000"])),
            "Filecoin.WalletHas" => answer(json!(params[0] == json!(address))),
            _ if params[0] != json!(address) => refuse(1, "signing: key not found"),
            "Filecoin.WalletSignMessage" if old.load(Ordering::SeqCst) => refuse(-32601, "method not found"),
            "Filecoin.WalletSignMessage" => {
                let Lotus(message): Lotus<Message> = serde_json::from_value(params[1].clone()).unwrap();
                let signature = key.sign(&SignRequest::message(message.clone()).to_sign());
                answer(json!(SignedMessage { message, signature }))
            }
            "Filecoin.WalletSign" => {
                let bytes = STANDARD.decode(params[1].as_str().unwrap()).unwrap();
                answer(json!(Lotus(key.sign(&bytes))))
            }
            other => refuse(-32601, other),
        };
        (status, body.to_string())
    }))
    .await
}

#[tokio::test]
async fn a_node_signs() {
    let desk = Desk::new();
    let wallet = desk.create();
    for kind in [KeyKind::Secp256k1, KeyKind::Bls] {
        let key = PrivateKey::generate(kind);
        let old = Arc::new(AtomicBool::new(false));
        let server = node(key.clone(), Arc::clone(&old)).await;
        let node = NodeWallet::new(Arc::new(RpcClient::new(server.url.parse().unwrap()).unwrap()));
        let address: Address = text_of(&key.address()).parse().unwrap();
        assert_eq!(
            node.addresses().await.unwrap(),
            std::slice::from_ref(&address),
            "only keys that can be signed with"
        );
        assert!(node.has(&address).await.unwrap());

        wallet.import(&hex::encode(key.to_lotus().as_slice())).unwrap();
        let message = SignRequest::message(send(&address, 1000, 3, 1));
        let expected = wallet.sign(&address, &message).await.unwrap();
        assert_eq!(node.sign(&address, &message).await.unwrap(), expected);
        old.store(true, Ordering::SeqCst);
        assert_eq!(node.sign(&address, &message).await.unwrap(), expected);
        let text = SignRequest::bytes(Purpose::UNKNOWN, *b"text");
        assert_eq!(node.sign(&address, &text).await.unwrap(), wallet.sign(&address, &text).await.unwrap());

        let stranger: Address = "t1gsu7dkdufuygtbcclhmjcao7vg7cap46l6ij2ri".parse().unwrap();
        assert!(!node.has(&stranger).await.unwrap());
        let error = node.sign(&stranger, &text).await.unwrap_err();
        assert_eq!(error.kind(), SignerErrorKind::NoKey);
        drop(server);
        assert_eq!(node.addresses().await.unwrap_err().kind(), SignerErrorKind::Unreachable);
    }
}

#[tokio::test]
async fn a_signature_of_another_key_is_not_taken() {
    let (asked, used) = (PrivateKey::generate(KeyKind::Bls), PrivateKey::generate(KeyKind::Bls));
    let server = Server::tcp(server::scripted(move |_| {
        (200, json!({"jsonrpc": "2.0", "id": 1, "result": Lotus(used.sign(b"text"))}).to_string())
    }))
    .await;
    let node = NodeWallet::new(Arc::new(RpcClient::new(server.url.parse().unwrap()).unwrap()));
    let address: Address = text_of(&asked.address()).parse().unwrap();
    let error = node.sign(&address, &SignRequest::bytes(Purpose::UNKNOWN, *b"text")).await.unwrap_err();
    assert_eq!(error.kind(), SignerErrorKind::Answer);
}
