//! Base fee, burn, tip and refund, and what the node says of them.

use crate::harness::{Key, Net};
use damocles_chain::{devnet::DevnetConfig, lotus_json::InvocResult};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use serde_json::{Value, from_value, json};

fn number(value: &Value) -> i128 {
    value.as_str().unwrap().parse().unwrap()
}

fn of_actor(net: &Net, id: &str) -> i128 {
    number(&net.call("WalletBalance", json!([id])))
}

fn base_fee(net: &Net) -> i128 {
    number(&net.call("ChainHead", json!([]))["Blocks"][0]["ParentBaseFee"])
}

fn send(net: &Net, limit: u64, cap: i64, premium: i64) -> Message {
    let mut message = net.message(&net.owner, net.worker.address(), 0, &(), TokenAmount::from_whole(1));
    message.gas_limit = limit;
    message.gas_fee_cap = TokenAmount::from_atto(cap);
    message.gas_premium = TokenAmount::from_atto(premium);
    message
}

#[test]
fn what_a_message_pays_goes_where_the_fvm_sends_it() {
    let net = Net::bare();
    let (burnt, tips) = (of_actor(&net, "t099"), of_actor(&net, "t02"));
    let owner = of_actor(&net, &net.owner.address().to_string());
    let message = send(&net, 10_000_000, 5000, 700);
    let cid = net.push(&net.owner, message).unwrap();
    net.devnet.mine(1).unwrap();
    let used = i128::from(net.devnet.landed(&cid).unwrap().receipt.gas_used);
    // Burnt: the base fee of 100 on the gas used, and on what the limit was too high by: more than twice, so all of it.
    let over = 10_000_000 - used;
    assert!(used < 1_000_000, "{used}");
    assert_eq!(of_actor(&net, "t099") - burnt, 100 * used + 100 * over);
    assert_eq!(of_actor(&net, "t02") - tips, 700 * 10_000_000, "the tip is on the whole limit");
    let paid = owner - of_actor(&net, &net.owner.address().to_string()) - 1_000_000_000_000_000_000;
    assert_eq!(paid, 800 * 10_000_000);
    net.devnet.mine(1).unwrap();
    let replayed: InvocResult = from_value(net.call("StateReplay", json!([[], {"/": cid.to_string()}]))).unwrap();
    let cost = replayed.gas_cost.unwrap();
    assert_eq!(cost.total_cost, TokenAmount::from_atto(paid));
    assert_eq!(cost.refund, TokenAmount::from_atto(4200_i64) * 10_000_000_u64);
    assert_eq!(cost.over_estimation_burn, TokenAmount::from_atto(100 * over));
}

#[test]
fn an_idle_network_rests_at_the_minimum_and_a_spike_decays() {
    let net = Net::bare();
    net.devnet.mine(20).unwrap();
    assert_eq!(base_fee(&net), 100);
    let spike = net.devnet.call("Devnet.BaseFee", json!([{"Multiply": 100, "Tipsets": 2}])).unwrap();
    assert_eq!(spike, "10000");
    // 10,000 twice; then an eighth less, rounded up, each time.
    let fees: Vec<i128> = (0..5)
        .map(|_| {
            net.devnet.mine(1).unwrap();
            base_fee(&net)
        })
        .collect();
    assert_eq!(fees, [10_000, 10_000, 8750, 7656, 6699]);
    for bad in [json!({}), json!({"Multiply": 0}), json!({"Multiply": u64::MAX}), json!({"Set": "99"}), json!(3)] {
        assert!(net.devnet.call("Devnet.BaseFee", json!([bad])).is_err(), "{bad}");
    }
}

#[test]
fn a_fee_cap_below_the_base_fee_waits() {
    let net = Net::bare();
    net.devnet.call("Devnet.BaseFee", json!([{"Set": "3000", "Tipsets": 1}])).unwrap();
    let poor = net.push(&net.owner, send(&net, 2_000_000, 2400, 100)).unwrap();
    net.devnet.mine(1).unwrap();
    assert!(net.devnet.landed(&poor).is_none(), "3,000 is too much");
    assert!(net.call("MpoolSelect", json!([[], 0.9])).as_array().unwrap().is_empty());
    // 3,000 - 375 = 2,625, then 2,625 - 329 = 2,296.
    net.devnet.mine(1).unwrap();
    assert!(net.devnet.landed(&poor).is_none());
    assert_eq!(net.call("MpoolSelect", json!([[], 0.9])).as_array().unwrap().len(), 1);
    net.devnet.mine(1).unwrap();
    let landed = net.devnet.landed(&poor).unwrap();
    assert_eq!(landed.receipt.exit_code.value(), 0);
    assert_eq!(base_fee(&net), 2296);
}

/// A full block with a premium above an eighth raises the base fee, and it is the gas limit that counts.
#[test]
fn a_full_block_raises_the_base_fee() {
    let net = Net::bare();
    let messages = |net: &Net, premium: i64| {
        for (key, nonce) in (0..4).map(|n| (&net.owner, n)) {
            let mut message = send(net, 2_000_000_000, 1_000_000, premium);
            message.sequence = net.nonce(&key.address()).max(nonce);
            net.push(key, message).unwrap();
        }
    };
    messages(&net, 60);
    net.devnet.mine(2).unwrap();
    assert_eq!(base_fee(&net), 113, "four times 2e9 gas reach the percentile");
    net.devnet.mine(10).unwrap();
    assert_eq!(base_fee(&net), 100);
    messages(&net, 13);
    net.devnet.mine(2).unwrap();
    assert_eq!(base_fee(&net), 100, "an eighth of the base fee is no congestion");
}

#[test]
fn the_better_offer_goes_first() {
    let net = Net::bare();
    let half = 5_000_000_000;
    let dear = net.push(&net.owner, send(&net, half, 100_000, 900)).unwrap();
    let make = |limit, premium| {
        let mut message = net.message(&net.worker, net.owner.address(), 0, &(), TokenAmount::default());
        message.gas_limit = limit;
        message.gas_premium = TokenAmount::from_atto(premium);
        message
    };
    let cheap = net.push(&net.worker, make(half + 1, 800)).unwrap();
    net.devnet.mine(1).unwrap();
    assert!(net.devnet.landed(&dear).is_some() && net.devnet.landed(&cheap).is_none(), "both do not fit");
    net.devnet.mine(1).unwrap();
    assert!(net.devnet.landed(&cheap).is_some());
}

#[test]
fn estimates_are_enough_and_lotus() {
    let net = Net::with_miner();
    net.devnet.mine(3).unwrap();
    let draft = |fields: Value| {
        let mut draft = json!({
            "Version": 0, "To": net.worker.address().to_string(), "From": net.owner.address().to_string(), "Nonce": 1,
            "Value": "5", "GasLimit": 0, "GasFeeCap": "0", "GasPremium": "0", "Method": 0, "Params": null
        });
        draft.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        draft
    };
    let limit = net.call("GasEstimateGasLimit", json!([draft(json!({})), []])).as_u64().unwrap();
    let filled = net.call("GasEstimateMessageGas", json!([draft(json!({})), null, []]));
    assert_eq!(filled["GasLimit"].as_u64().unwrap(), limit * 5 / 4);
    assert_eq!((filled["GasPremium"].clone(), filled["GasFeeCap"].clone()), (json!("100000"), json!("101054")));
    assert_eq!(net.call("GasEstimateGasPremium", json!([1, "t01000", 1, []])), "200000");
    assert_eq!(net.call("GasEstimateFeeCap", json!([draft(json!({"GasPremium": "5"})), 1, []])), "117");
    let spec = json!({"MaxFee": "1000000", "MsgUuid": "00000000-0000-0000-0000-000000000000", "MaximizeFeeCap": true});
    let capped = net.call("GasEstimateMessageGas", json!([draft(json!({"GasLimit": 1000})), spec, []]));
    assert_eq!((capped["GasFeeCap"].clone(), capped["GasPremium"].clone()), (json!("1000"), json!("1000")));
    let refused = net
        .try_call("GasEstimateGasLimit", json!([draft(json!({"To": net.miner.to_string(), "Method": 99})), []]))
        .unwrap_err();
    assert_eq!(refused["code"], 3);
    assert!(refused["message"].as_str().unwrap().contains("exit=[ErrUnhandledMessage(22)]"), "{refused}");
    let nobody = draft(json!({"From": Key::secp(88).address().to_string()}));
    assert_eq!(net.try_call("GasEstimateGasLimit", json!([nobody, []])).unwrap_err()["code"], 11);
    // What waits before it counts: with all the money on its way, nothing is left to send.
    let mut all = net.message(&net.owner, Key::secp(60).address(), 0, &(), TokenAmount::from_whole(9990));
    all.sequence = 1;
    net.push(&net.owner, all).unwrap();
    let after = draft(json!({"Nonce": 2, "Value": "9000000000000000000000"}));
    let refused = net.try_call("GasEstimateGasLimit", json!([after, []])).unwrap_err();
    assert!(refused["message"].as_str().unwrap().contains("SysErrInsufficientFunds(6)"), "{refused}");
}

#[test]
fn a_call_leaves_no_trace() {
    let net = Net::with_miner();
    net.devnet.mine(1).unwrap();
    let call = |to: &str, value: &str| -> InvocResult {
        let message = json!({"Version": 0, "To": to, "From": net.owner.address().to_string(), "Value": value});
        from_value(net.call("StateCall", json!([message, []]))).unwrap()
    };
    let before = of_actor(&net, &net.owner.address().to_string());
    let done = call(&Key::secp(61).address().to_string(), "7");
    assert_eq!(done.msg_rct.unwrap().exit_code, 0);
    let cost = done.gas_cost.unwrap();
    assert_eq!(cost.total_cost, TokenAmount::default(), "it is free");
    assert!(cost.gas_used > TokenAmount::from_atto(1_000_000), "a new account costs more");
    assert_eq!(call("t04", "99999000000000000000000").msg_rct.unwrap().exit_code, 6);
    assert_eq!(of_actor(&net, &net.owner.address().to_string()), before);
    assert!(net.try_call("StateLookupID", json!([Key::secp(61).address().to_string(), []])).is_err());
}

#[test]
fn a_higher_first_base_fee_falls() {
    let config = DevnetConfig { initial_base_fee: TokenAmount::from_atto(100_000_000), ..crate::harness::config() };
    let net = Net::over_config(config);
    net.devnet.mine(1).unwrap();
    // Height 1,000 came right after genesis: one eighth less, and again.
    assert_eq!(base_fee(&net), 76_562_500);
    let _: Address = net.miner;
}
