//! The pool: nonces, replacement, signatures.

use crate::harness::{Key, Net};
use cid::Cid;
use damocles_chain::devnet::message_cid;
use fvm_shared::econ::TokenAmount;
use serde_json::json;

fn send(net: &Net, nonce: u64, premium: i64) -> fvm_shared::message::Message {
    let mut message = net.message(&net.owner, net.worker.address(), 0, &(), TokenAmount::from_whole(1));
    message.sequence = nonce;
    message.gas_premium = TokenAmount::from_atto(premium);
    message
}

#[test]
fn a_replayed_message_and_a_low_nonce_are_refused() {
    let net = Net::bare();
    let message = send(&net, 0, 100_000);
    net.push(&net.owner, message.clone()).unwrap();
    let waiting = net.push(&net.owner, message.clone()).unwrap_err();
    assert!(waiting.to_string().contains("already in mpool"), "{waiting}");
    net.devnet.mine(1).unwrap();
    for old in [message, send(&net, 0, 150_000)] {
        let refused = net.push(&net.owner, old).unwrap_err();
        assert_eq!(refused.to_string(), "minimum expected nonce is 1: message nonce too low");
    }
}

#[test]
fn a_gap_waits_and_lands_when_it_is_filled() {
    let net = Net::bare();
    let late = net.push(&net.owner, send(&net, 1, 100_000)).unwrap();
    net.devnet.mine(3).unwrap();
    assert!(net.devnet.landed(&late).is_none());
    assert_eq!(net.nonce(&net.owner.address()), 0, "the next nonce is the one that is missing");
    let first = net.push(&net.owner, send(&net, 0, 100_000)).unwrap();
    assert_eq!(net.nonce(&net.owner.address()), 2);
    net.devnet.mine(1).unwrap();
    let (first, late) = (net.devnet.landed(&first).unwrap(), net.devnet.landed(&late).unwrap());
    assert_eq!((first.epoch, late.epoch), (net.epoch(), net.epoch()));
    assert_eq!(late.receipt.exit_code.value(), 0);
}

#[test]
fn a_replacement_pays_a_tenth_more_and_one() {
    let net = Net::bare();
    let old = net.push(&net.owner, send(&net, 0, 100_000)).unwrap();
    let refused = net.push(&net.owner, send(&net, 0, 110_000)).unwrap_err();
    assert!(refused.to_string().contains("replace by fee has too low GasPremium"), "{refused}");
    let new = net.push(&net.owner, send(&net, 0, 110_001)).unwrap();
    let text = |premium| net.push(&net.owner, send(&net, 0, premium)).unwrap_err().to_string();
    // 110,001 x 110 / 100 = 121,001.1, rounded down, and one.
    assert!(
        text(121_001).contains("increase GasPremium to 121002 from 121001 to trigger replace by fee"),
        "{}",
        text(1)
    );
    assert!(text(110_001).ends_with("already in mpool: message with nonce already exists"));
    net.devnet.mine(2).unwrap();
    assert!(net.devnet.landed(&old).is_none() && net.devnet.landed(&new).is_some());
    let cid = json!({"/": old.to_string()});
    let found = net.call("StateSearchMsg", json!([[], cid, -1, true]));
    assert_eq!(found["Message"]["/"], new.to_string());
    let error = net.try_call("StateSearchMsg", json!([[], cid, -1, false])).unwrap_err();
    assert_eq!(
        error["message"],
        format!("found message with equal nonce as the one we are looking for (F:{old} n 0, TS: {new} n0)")
    );
}

#[test]
fn only_a_message_that_does_the_same_answers_for_another() {
    let net = Net::bare();
    let old = net.push(&net.owner, send(&net, 0, 100_000)).unwrap();
    let mut other = send(&net, 0, 150_000);
    other.value = TokenAmount::from_whole(2);
    let new = net.push(&net.owner, other).unwrap();
    let search = |replaced: bool| net.try_call("StateSearchMsg", json!([[], {"/": old.to_string()}, -1, replaced]));
    assert!(search(true).unwrap().is_null(), "nothing has landed");
    net.devnet.mine(1).unwrap();
    assert!(search(true).unwrap().is_null(), "the head's messages have no receipt yet");
    net.devnet.mine(1).unwrap();
    for replaced in [true, false] {
        assert_eq!(
            search(replaced).unwrap_err()["message"],
            format!(
                "found message with equal nonce as the one we are looking for that is NOT a valid replacement message \
                 (F:{old} n 0, TS: {new} n0)"
            )
        );
    }
}

#[test]
fn a_message_that_was_never_seen_cannot_be_looked_for() {
    let net = Net::bare();
    let signed = net.owner.sign(send(&net, 0, 100_000));
    let (cid, unsigned) = (signed.cid(), message_cid(&signed.message));
    let search = |cid: &Cid| net.try_call("StateSearchMsg", json!([[], {"/": cid.to_string()}, -1, true]));
    for cid in [cid, unsigned] {
        assert_eq!(search(&cid).unwrap_err()["message"], format!("failed to load message: ipld: could not find {cid}"));
    }
    net.devnet.push(signed).unwrap();
    assert!([cid, unsigned].iter().all(|cid| search(cid).unwrap().is_null()), "it waits");
    net.devnet.mine(2).unwrap();
    assert!([cid, unsigned].iter().all(|cid| search(cid).unwrap()["Receipt"]["ExitCode"] == 0));
}

#[test]
fn only_the_senders_signature_counts() {
    let net = Net::bare();
    let forged = Key::secp(66).sign(send(&net, 0, 100_000));
    let refused = net.devnet.push(forged).unwrap_err();
    assert!(refused.to_string().contains("signature verification failed"), "{refused}");
    let mut bls = net.worker.sign(net.message(&net.worker, net.owner.address(), 0, &(), TokenAmount::default()));
    bls.message.value = TokenAmount::from_whole(9);
    assert!(net.devnet.push(bls).is_err());
    let unknown = Key::secp(67);
    let mut message = send(&net, 0, 100_000);
    message.from = unknown.address();
    assert!(net.devnet.push(unknown.sign(message)).unwrap_err().to_string().contains("actor not found"));
}

#[test]
fn messages_that_no_block_takes_are_refused() {
    let net = Net::bare();
    let mut cases: Vec<(fvm_shared::message::Message, &str)> = Vec::new();
    let mut message = send(&net, 0, 100_000);
    message.gas_limit = 0;
    cases.push((message, "GasLimit"));
    let mut message = send(&net, 0, 10);
    message.gas_fee_cap = TokenAmount::from_atto(50);
    cases.push((message, "fee cap too low"));
    cases.push((send(&net, 0, 300_000), "'GasFeeCap' less than 'GasPremium'"));
    let mut message = send(&net, 0, 100_000);
    message.value = TokenAmount::from_whole(1_000_000);
    cases.push((message, "not enough funds"));
    for (message, text) in cases {
        let refused = net.push(&net.owner, message).unwrap_err();
        assert!(refused.to_string().contains(text), "{refused}");
    }
}

#[test]
fn refusals_have_lotus_words() {
    let net = Net::bare();
    let refused = |change: fn(&mut fvm_shared::message::Message)| {
        let mut message = send(&net, 0, 100_000);
        change(&mut message);
        net.push(&net.owner, message).unwrap_err().to_string()
    };
    type Change = fn(&mut fvm_shared::message::Message);
    let cases: [(Change, &str); 7] = [
        (|m| m.version = 1, "message not valid for block inclusion: 'Version' unsupported"),
        (
            |m| m.gas_premium = TokenAmount::from_atto(-1),
            "message not valid for block inclusion: 'GasPremium' field cannot be negative",
        ),
        (
            |m| m.gas_limit = 10_000_000_001,
            "message not valid for block inclusion: 'GasLimit' field cannot be greater than a block's gas limit \
             (10000000001 > 10000000000)",
        ),
        (
            |m| {
                m.gas_fee_cap = TokenAmount::from_atto(99);
                m.gas_premium = TokenAmount::from_atto(1);
            },
            "gas fee cap too low",
        ),
        (|m| m.gas_limit = 1, "verify msg failed: message will not be included in a block: 'GasLimit' field cannot be"),
        (|m| m.value = TokenAmount::from_whole(10_001), "failed to check balance: not enough funds (required: 10001.0"),
        (|m| m.params = fvm_ipld_encoding::RawBytes::new(vec![0; 70_000]), "mpool message too large"),
    ];
    for (change, text) in cases {
        let said = refused(change);
        assert!(said.starts_with(text), "{said}");
    }
    // What waits already counts.
    let dear = |nonce| {
        let mut message = send(&net, nonce, 100_000);
        message.gas_limit = 10_000_000_000;
        message.gas_fee_cap = TokenAmount::from_nano(600);
        message
    };
    net.push(&net.owner, dear(0)).unwrap();
    let said = net.push(&net.owner, dear(1)).unwrap_err().to_string();
    assert!(said.contains("not enough funds including pending messages (required: 12000.0 FIL"), "{said}");
}

#[test]
fn those_who_are_not_trusted_leave_no_wide_gaps() {
    let net = Net::bare();
    let push = |nonce| net.devnet.push_untrusted(net.owner.sign(send(&net, nonce, 100_000)));
    let said = push(5).unwrap_err().to_string();
    assert!(said.contains("message nonce has too big a gap from expected nonce (Nonce: 5, nextNonce: 0)"), "{said}");
    push(4).unwrap();
    for nonce in [0, 1, 2, 3, 5, 6, 7, 8, 9] {
        push(nonce).unwrap();
    }
    assert!(push(10).unwrap_err().to_string().contains("too many pending messages"));
    let signed = damocles_chain::lotus_json::SignedMessage::from(net.owner.sign(send(&net, 10, 100_000)));
    assert!(net.try_call("MpoolPushUntrusted", json!([signed])).is_err());
    assert_eq!(net.call("MpoolBatchPush", json!([[signed]])).as_array().unwrap().len(), 1);
}
