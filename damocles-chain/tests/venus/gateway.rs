//! Proofs and signatures through a gateway.

use crate::setup::TOKEN;
use async_trait::async_trait;
use damocles_chain::{
    lotus_json::{Lotus, PoStProof, from_core},
    signer::{KeyKind, Keystore, MsgMeta, Purpose, SignRequest, Signer, SignerError, SignerErrorKind, verify},
    venus::{
        gateway::{GatewayConfig, GatewayLink, WinningProver, WinningRequest},
        testing::{FakeGateway, Fault},
    },
    wallet::{KdfParams, Password, Policy, Wallet, WalletOptions},
};
use damocles_core::{
    ActorId, Address, CancellationToken, CommR, Context, Timestamp,
    post::{PoStError, PoStErrorKind},
    testing::FakeClock,
};
use fvm_shared::{address::Address as ChainAddress, crypto::signature::Signature, econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

#[derive(Debug, Default)]
struct Prover {
    asked: Mutex<Vec<WinningRequest>>,
    /// Proofs wait for this, if it is set.
    held: Mutex<Option<Arc<Notify>>>,
    stopped: Arc<AtomicUsize>,
    fails: bool,
}

#[async_trait]
impl WinningProver for Prover {
    async fn prove(&self, request: &WinningRequest, cx: &Context) -> Result<Vec<PoStProof>, PoStError> {
        self.asked.lock().push(request.clone());
        if self.fails {
            return Err(PoStError::new(PoStErrorKind::Read, "read challenges"));
        }
        let held = self.held.lock().clone();
        if let Some(held) = held {
            let (stops, stopped) = (cx.cancel.clone(), Arc::clone(&self.stopped));
            // A prover on a thread of its own sees only the token.
            let on_thread = tokio::spawn(async move {
                if stops.run_until_cancelled(held.notified()).await.is_none() {
                    stopped.fetch_add(1, Ordering::SeqCst);
                }
            });
            on_thread.await.unwrap();
        }
        Ok(vec![PoStProof { post_proof: 0, proof_bytes: vec![request.height.0.try_into().unwrap(); 3] }])
    }
}

fn link(gateway: &FakeGateway, change: impl FnOnce(&mut GatewayConfig)) -> Arc<GatewayLink> {
    let mut config =
        GatewayConfig::new(gateway.url().parse::<damocles_chain::rpc::Endpoint>().unwrap().with_token(TOKEN));
    change(&mut config);
    GatewayLink::new(config).unwrap()
}

fn serve(link: &Arc<GatewayLink>, miner: u64, prover: &Arc<Prover>) -> DropGuard {
    let cancel = CancellationToken::new();
    let (link, prover, token) = (Arc::clone(link), Arc::clone(prover), cancel.clone());
    tokio::spawn(async move { link.serve_proofs(ActorId(miner), prover, token).await });
    cancel.drop_guard()
}

async fn stopped(prover: &Prover) {
    while prover.stopped.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn request(height: u8) -> Value {
    json!({
        "SectorInfos": [{
            "SealProof": 5, "SectorNumber": 7, "SectorKey": null,
            "SealedCID": {"/": CommR([1; 32]).cid().to_string()}
        }],
        "Rand": Lotus(vec![7_u8; 32]), "Height": height, "NWVersion": 28
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_miners_are_served_by_a_channel_each() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    let link = link(&gateway, |_| {});
    let provers = [Arc::new(Prover::default()), Arc::new(Prover::default())];
    let _serving = [serve(&link, 1000, &provers[0]), serve(&link, 1001, &provers[1])];
    gateway.until(|gateway| gateway.miners().len() == 2).await;
    for (miner, prover, height) in [("t01000", &provers[0], 1_u8), ("t01001", &provers[1], 2)] {
        let proofs = gateway.compute_proof(miner, &request(height)).await.unwrap();
        assert_eq!(proofs, json!([{"PoStProof": 0, "ProofBytes": Lotus(vec![height; 3])}]));
        let asked = prover.asked.lock().clone();
        assert_eq!((asked.len(), asked[0].height.0), (1, i64::from(height)));
        assert_eq!(asked[0].miner.to_string(), miner.trim_start_matches("t0"));
    }
    insta::assert_snapshot!(wire(&gateway));
    assert!(gateway.compute_proof("t01002", &request(1)).await.is_err());
}

/// What came, without what is random.
fn wire(gateway: &FakeGateway) -> String {
    let mut lines: Vec<String> = Vec::new();
    for method in
        ["ListenProofEvent", "ResponseProofEvent", "ListenWalletEvent", "ResponseWalletEvent", "AddNewAddress"]
    {
        for mut params in gateway.called(method) {
            for field in ["Id", "SignBytes"] {
                if let Some(value) = params[0].get_mut(field) {
                    *value = json!("..");
                }
            }
            lines.push(format!("{method} {params}"));
        }
    }
    lines.sort();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proven_is_answered_with_why() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    let prover = Arc::new(Prover { fails: true, ..Prover::default() });
    let _serving = serve(&link(&gateway, |_| {}), 1000, &prover);
    gateway.until(|gateway| gateway.miners().len() == 1).await;
    let failed = gateway.compute_proof("t01000", &request(1)).await.unwrap_err();
    assert!(failed.contains("read challenges"), "{failed}");
    for bad in [json!({}), json!(7), json!({"SectorInfos": [], "Rand": "AA=="}), json!("<html>")] {
        let refused = gateway.compute_proof("t01000", &bad).await.unwrap_err();
        assert!(refused.contains("read request"), "{refused}");
    }
    assert_eq!(prover.asked.lock().len(), 1, "rubbish reaches no prover");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_has_a_deadline_and_the_prover_is_stopped_at_it() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    let prover = Arc::new(Prover::default());
    *prover.held.lock() = Some(Arc::new(Notify::new()));
    let _serving = serve(&link(&gateway, |config| config.prove_within = Duration::from_millis(50)), 1000, &prover);
    gateway.until(|gateway| gateway.miners().len() == 1).await;
    let late = gateway.compute_proof("t01000", &request(1)).await.unwrap_err();
    assert!(late.contains("not made within"), "{late}");
    stopped(&prover).await;
    *prover.held.lock() = None;
    assert!(gateway.compute_proof("t01000", &request(2)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_channel_is_opened_again_and_what_was_asked_on_it_is_cancelled() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    let prover = Arc::new(Prover::default());
    *prover.held.lock() = Some(Arc::new(Notify::new()));
    let _serving = serve(&link(&gateway, |_| {}), 1000, &prover);
    gateway.until(|gateway| gateway.miners().len() == 1).await;
    let first = request(1);
    let (asked, ()) = tokio::join!(gateway.compute_proof("t01000", &first), async {
        while prover.asked.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gateway.cut();
    });
    assert_eq!(asked.unwrap_err(), "channel closed");
    stopped(&prover).await;
    *prover.held.lock() = None;
    gateway.until(|gateway| gateway.miners().len() == 1).await;
    assert!(gateway.compute_proof("t01000", &request(2)).await.is_ok());
    assert_eq!(gateway.late(), 0, "nothing of the old channel is answered on the new one");
    assert_eq!(gateway.called("ListenProofEvent").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_the_channel_stops_nothing_and_a_refusal_is_waited_out() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    gateway.strike("ListenProofEvent", &Fault::Refuse("check user x: not found".into()), 1);
    gateway.strike("ListenProofEvent", &Fault::Say("<html>".into()), 1);
    gateway.strike("ListenProofEvent", &Fault::DropRequest, 1);
    let prover = Arc::new(Prover::default());
    let _serving = serve(&link(&gateway, |_| {}), 1000, &prover);
    gateway.until(|gateway| gateway.miners().len() == 1).await;
    assert_eq!(gateway.called("ListenProofEvent").len(), 4);
    for rubbish in [
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!({"Id": 5, "Method": "ComputeProof"}),
        json!({"Id": "x", "Method": "ComputeProof", "Payload": "!"}),
        json!({"Id": "x", "Method": "Unheard", "Payload": null}),
    ] {
        gateway.say(&rubbish);
    }
    assert!(gateway.compute_proof("t01000", &request(3)).await.is_ok());
    assert_eq!(gateway.called("ListenProofEvent").len(), 4, "on the same channel");
    // More than anybody can answer at once is at worst a lost connection.
    for _ in 0..5_000 {
        gateway.say(&json!(null));
    }
    let mut proven = false;
    for _ in 0..2_000 {
        proven = gateway.compute_proof("t01000", &request(4)).await.is_ok();
        if proven {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(proven);
    let listened = gateway.called("ListenProofEvent").len();
    // A number that cannot be read makes the channel useless.
    gateway.say(&json!({"Id": "x", "Method": "InitConnect", "Payload": "AAAA"}));
    gateway.until(|gateway| gateway.called("ListenProofEvent").len() > listened && gateway.miners().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_asks_without_end_and_takes_no_answers_loses_the_channel() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    gateway.strike("ResponseProofEvent", &Fault::Delay(Duration::from_secs(3600)), 1000);
    let prover = Arc::new(Prover::default());
    let _serving = serve(&link(&gateway, |_| {}), 1000, &prover);
    gateway.until(|gateway| gateway.miners().len() == 1).await;
    let first = request(1);
    let asked = futures::future::join_all((0..100).map(|_| gateway.compute_proof("t01000", &first))).await;
    assert!(asked.iter().all(Result::is_err), "all are told at once, and not after an hour");
    assert!(prover.asked.lock().len() <= 32);
    gateway.until(|gateway| gateway.miners().len() == 1).await;
    assert_eq!(gateway.called("ListenProofEvent").len(), 2);
}

/// A signer that refuses what is not a challenge.
#[derive(Debug)]
struct Strict(Keystore);

#[async_trait]
impl Signer for Strict {
    async fn addresses(&self) -> Result<Vec<Address>, SignerError> {
        self.0.addresses().await
    }

    async fn sign(&self, address: &Address, request: &SignRequest) -> Result<Signature, SignerError> {
        match request {
            SignRequest::Bytes { purpose, .. } if *purpose == Purpose::VERIFY_ADDRESS => {
                self.0.sign(address, request).await
            }
            _ => Err(SignerError::new(SignerErrorKind::Refused, "sign").with("what", "this method is not allowed")),
        }
    }

    fn suits(&self, _: &str) -> Result<(), SignerError> {
        Ok(())
    }
}

fn keys() -> (tempfile::TempDir, Keystore, Address) {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keystore::open(dir.path().join("keystore")).unwrap();
    let key = keys.create(KeyKind::Secp256k1).unwrap();
    (dir, keys, key)
}

fn message(from: &Address) -> SignRequest {
    SignRequest::message(Message {
        version: 0,
        from: from_core(from).unwrap(),
        to: from_core(from).unwrap(),
        sequence: 3,
        value: TokenAmount::from_atto(1),
        method_num: 0,
        params: Default::default(),
        gas_limit: 1,
        gas_fee_cap: TokenAmount::from_atto(1),
        gas_premium: TokenAmount::from_atto(1),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_checked_by_a_challenge_and_sign_what_comes_whole() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    let (_dir, keys, key) = keys();
    let wallet = Arc::new(link(&gateway, |_| {}).wallet(Arc::new(keys.clone()), vec!["miners".into()]));
    assert!(wallet.add_addresses(std::slice::from_ref(&key)).await.is_err(), "there is no channel yet");
    let cancel = CancellationToken::new();
    let _ends = cancel.clone().drop_guard();
    let running = Arc::clone(&wallet);
    tokio::spawn(async move { running.run(cancel).await });
    wallet.ready().await;
    let address = from_core(&key).unwrap();
    assert_eq!(gateway.wallets(), [(vec!["miners".to_owned()], vec![address])]);

    let (to_sign, meta) = message(&key).to_lotus();
    let signature = gateway.wallet_sign(address, &to_sign, &meta).await.unwrap();
    assert!(verify(&address, &signature, &to_sign));
    let block = MsgMeta { r#type: Purpose::BLOCK, extra: vec![1, 2, 3] };
    let refused = gateway.wallet_sign(address, b"a block", &block).await.unwrap_err();
    assert!(refused.contains("`block`"), "what is shown cannot be checked: {refused}");
    let entropy = MsgMeta { r#type: Purpose::DRAW_RANDOM, extra: b"entropy".to_vec() };
    let refused = gateway.wallet_sign(address, b"entropy", &entropy).await.unwrap_err();
    assert!(refused.contains("are not signed here"), "{refused}");

    // Another message than the one that is shown; a message in disguise; a challenge that is none.
    let mut other = meta.clone();
    other.extra[10] ^= 1;
    let refused = gateway.wallet_sign(address, &to_sign, &other).await.unwrap_err();
    assert!(refused.contains("not the CID"), "{refused}");
    for r#type in [Purpose::UNKNOWN, Purpose::BLOCK] {
        let disguised = MsgMeta { r#type, extra: meta.extra.clone() };
        let refused = gateway.wallet_sign(address, &to_sign, &disguised).await.unwrap_err();
        assert!(refused.contains("are not signed here"), "{refused}");
    }
    let forged = MsgMeta { r#type: Purpose::VERIFY_ADDRESS, extra: vec![1; 32] };
    let refused = gateway.wallet_sign(address, &[9; 32], &forged).await.unwrap_err();
    assert!(refused.contains("not the challenge"), "{refused}");

    // Keys and accounts come and go; a new channel has what was said on the old one.
    let second = keys.create(KeyKind::Bls).unwrap();
    wallet.add_addresses(std::slice::from_ref(&second)).await.unwrap();
    wallet.support_account("others").await.unwrap();
    assert_eq!(gateway.wallets()[0].1, [address, from_core(&second).unwrap()]);
    wallet.remove_addresses(std::slice::from_ref(&second)).await.unwrap();
    assert_eq!(gateway.wallets()[0].1, [address]);
    gateway.cut();
    gateway.until(|gateway| gateway.wallets().iter().any(|(_, keys)| keys.len() == 2)).await;
    assert_eq!(gateway.wallets()[0].0, ["miners", "others"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_come_and_go_are_told_of() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let password = Password::new("correct horse battery staple");
    let options = WalletOptions::default().with_kdf(KdfParams::try_new(8, 1, 1).unwrap());
    let clock = Arc::new(FakeClock::at(Timestamp(1_780_000_000_000)));
    let keys = Wallet::create(dir.path().join("wallet"), &password, options, clock).unwrap();
    let first = from_core(&keys.generate(KeyKind::Bls).unwrap()).unwrap();
    keys.lock();
    let wallet = Arc::new(link(&gateway, |_| {}).wallet(Arc::new(keys.clone()), vec!["miners".into()]));
    let cancel = CancellationToken::new();
    let _ends = cancel.clone().drop_guard();
    let running = Arc::clone(&wallet);
    tokio::spawn(async move { running.run(cancel).await });
    let known = async |wanted: &[ChainAddress]| {
        wallet.keys_changed();
        let holds = |gateway: &FakeGateway| {
            gateway.wallets().first().is_some_and(|(_, known)| {
                known.len() == wanted.len() && wanted.iter().all(|address| known.contains(address))
            })
        };
        tokio::time::timeout(Duration::from_secs(60), gateway.until(holds)).await.unwrap();
    };
    // A locked wallet is there, without keys.
    known(&[]).await;
    keys.unlock(&password).unwrap();
    known(&[first]).await;
    let second = keys.generate(KeyKind::Secp256k1).unwrap();
    let address = from_core(&second).unwrap();
    known(&[first, address]).await;
    // One that may not sign the challenge would cost the others their channel.
    keys.set_policy(&second, Some(Policy::messages())).unwrap();
    known(&[first]).await;
    gateway.cut();
    wallet.ready().await;
    known(&[first]).await;
    keys.set_policy(&second, None).unwrap();
    // A gateway that takes nothing for a while is told later.
    gateway.strike("AddNewAddress", &Fault::DropRequest, 1);
    known(&[first, address]).await;
    keys.delete(&second).unwrap();
    known(&[first]).await;
    keys.lock();
    known(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_refuses_is_not_signed() {
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    let (_dir, keys, key) = keys();
    let wallet = link(&gateway, |_| {}).wallet(Arc::new(Strict(keys)), Vec::new());
    let cancel = CancellationToken::new();
    let serving = wallet.run(cancel.clone());
    let asking = async {
        wallet.ready().await;
        let address = from_core(&key).unwrap();
        let (to_sign, meta) = message(&key).to_lotus();
        let refused = gateway.wallet_sign(address, &to_sign, &meta).await.unwrap_err();
        assert!(refused.contains("not allowed"), "{refused}");
        let responses = gateway.called("ResponseWalletEvent");
        assert!(responses.last().unwrap()[0]["Payload"].is_null(), "no signature leaves");
        cancel.cancel();
    };
    tokio::join!(serving, asking);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_opens_no_channel() {
    let gateway = FakeGateway::start("another").await.unwrap();
    let prover = Arc::new(Prover::default());
    let _serving = serve(&link(&gateway, |_| {}), 1000, &prover);
    while gateway.called("ListenProofEvent").len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(gateway.miners().is_empty());
}
