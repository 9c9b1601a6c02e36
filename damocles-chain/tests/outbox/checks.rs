//! What has to hold at the end of a run.

use crate::{
    home::Home,
    hostile::{Plan, amount, fails, key},
};
use damocles_chain::{FeePolicy, LotusClient, OutboxEntry, OutboxState, VersionPurpose, lotus_json};
use fvm_shared::{econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Every message that was ever handed to the node.
#[derive(Default)]
pub(crate) struct Wire {
    pushed: Mutex<HashMap<String, Message>>,
}

impl Wire {
    pub(crate) fn see(&self, body: &str) {
        if !body.contains("Filecoin.MpoolPush") && !body.contains("Filecoin.MpoolBatchPush") {
            return;
        }
        let request: Value = serde_json::from_str(body).unwrap();
        let first = request["params"][0].clone();
        let all: Vec<lotus_json::SignedMessage> = if first.is_array() {
            serde_json::from_value(first).unwrap()
        } else {
            vec![serde_json::from_value(first).unwrap()]
        };
        let mut pushed = self.pushed.lock();
        for signed in all {
            pushed.entry(lotus_json::signed_message_cid(&signed).to_string()).or_insert(signed.message);
        }
    }
}

/// A message on chain.
struct OnChain {
    cid: String,
    message: Message,
    exit_code: i64,
}

fn on_chain(home: &Home) -> Vec<OnChain> {
    let ours: Vec<String> = home.senders.iter().map(|a| a.as_str().to_owned()).collect();
    let all = home.devnet.call("Devnet.Messages", json!([null])).unwrap();
    let read = |found: &Value| {
        let cid = found["Cid"].clone();
        let message = home.devnet.call("Filecoin.ChainGetMessage", json!([cid])).unwrap();
        let message: lotus_json::Lotus<Message> = serde_json::from_value(message).unwrap();
        OnChain {
            cid: cid["/"].as_str().unwrap().to_owned(),
            message: message.0,
            exit_code: found["ExitCode"].as_i64().unwrap(),
        }
    };
    let of_ours = |found: &&Value| ours.iter().any(|a| found["From"] == a.as_str());
    all.as_array().unwrap().iter().filter(of_ours).map(read).collect()
}

/// Refuses a message that pays more than its class may.
fn within(policy: &FeePolicy, cap: &TokenAmount, limit: u64) -> bool {
    let most = |a: damocles_core::TokenAmount| TokenAmount::from_atto(a.atto());
    cap * limit <= most(policy.max_fee) && policy.max_fee_cap.is_none_or(|m| *cap <= most(m))
}

pub(crate) async fn all(home: &Home, client: &LotusClient, plan: Plan, cancelled: &BTreeSet<usize>, wire: &Wire) {
    let entries: HashMap<String, OutboxEntry> =
        client.outbox().await.unwrap().into_iter().map(|e| (e.key.0.clone(), e)).collect();
    assert_eq!(entries.len(), plan.messages);
    let chain = on_chain(home);
    let by_cid: HashMap<&str, &OnChain> = chain.iter().map(|m| (m.cid.as_str(), m)).collect();

    // No nonce gap, and nothing twice.
    let mut nonces: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut by_amount: HashMap<i64, usize> = HashMap::new();
    for found in &chain {
        nonces.entry(lotus_json::to_core(&found.message.from).to_string()).or_default().push(found.message.sequence);
        *by_amount.entry(i64::try_from(found.message.value.atto()).unwrap()).or_default() += 1;
    }
    for (sender, mut of) in nonces {
        of.sort_unstable();
        let expected: Vec<u64> = (0..of.len() as u64).collect();
        assert_eq!(of, expected, "{plan:?}: nonces of {sender}");
    }

    let (mut dropped, mut filled, mut replaced, mut failed) = (0, 0, 0, 0);
    let mut known: HashSet<&str> = HashSet::new();
    for n in 0..plan.messages {
        let entry = &entries[&key(n).0];
        known.extend(entry.versions.iter().map(|v| v.cid.as_str()));
        replaced += usize::from(entry.versions.len() > 1);
        let times = by_amount.get(&amount(n)).copied().unwrap_or_default();
        if entry.state == OutboxState::Dropped {
            assert!(cancelled.contains(&n) && entry.error.as_deref() == Some("cancelled"), "{plan:?}: {entry:?}");
            assert_eq!(times, 0, "{plan:?}: {n} was dropped and landed");
            if entry.nonce.is_some() {
                filled += 1;
                let fillers = entry.versions.iter().filter(|v| v.purpose == VersionPurpose::Cancel);
                assert_eq!(fillers.filter(|v| by_cid.contains_key(v.cid.as_str())).count(), 1, "{plan:?}: {entry:?}");
            }
            dropped += 1;
            continue;
        }
        assert_eq!((entry.state, times), (OutboxState::Settled, 1), "{plan:?}: {n} {entry:?}");
        let landed = by_cid[entry.receipt.as_ref().unwrap().message.as_str()];
        assert_eq!(landed.message.value, TokenAmount::from_atto(amount(n)));
        assert_eq!(Some(landed.exit_code), entry.exit_code, "{plan:?}: {entry:?}");
        assert_eq!(landed.exit_code != 0, fails(n), "{plan:?}: {entry:?}");
        failed += usize::from(landed.exit_code != 0);
    }
    assert!(plan.cancels > 0 || dropped == 0);
    // What has a nonce and was dropped is filled on chain.
    assert!(plan.cancels == 0 || filled > 0, "{plan:?}: no nonce was filled");
    assert!(chain.len() <= plan.messages, "nothing landed but calls and what fills their nonces");
    assert!(chain.iter().all(|m| known.contains(m.cid.as_str())), "{plan:?}: an unknown message is on chain");

    // No cap was exceeded by anything that ever left, and nothing left that was not recorded.
    let policy = &home.fees.other;
    let pushed = wire.pushed.lock();
    for (cid, message) in pushed.iter() {
        assert!(within(policy, &message.gas_fee_cap, message.gas_limit), "{plan:?}: {message:?}");
        assert!(known.contains(cid.as_str()), "{plan:?}: {message:?} left and is not known");
    }
    // A ceiling that nothing reaches keeps nobody from anything.
    let at_most = policy.max_fee_cap.map(|most| TokenAmount::from_atto(most.atto()));
    let at_ceiling = pushed.values().filter(|message| Some(&message.gas_fee_cap) == at_most.as_ref()).count();
    assert!(!plan.spikes || at_ceiling > 0, "{plan:?}: no message reached its ceiling");
    println!(
        "{} on chain, {failed} of them failed, {dropped} cancelled and {filled} of them filled, {replaced} replaced, {} messages left, {at_ceiling} of \
         them at their ceiling",
        chain.len(),
        pushed.len()
    );
}
