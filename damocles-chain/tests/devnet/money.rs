//! Who pays what.

use crate::harness::{Key, Net, refused};
use fil_actor_miner_state::v18::PreCommitSectorBatchParams2;
use fvm_shared::{address::Address, econ::TokenAmount};
use serde_json::json;

fn amount(value: serde_json::Value) -> i128 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_miner_needs_its_deposit_and_a_bls_worker() {
    let net = Net::bare();
    let deposit = amount(net.call("StateMinerCreationDeposit", json!([[]])));
    assert!(deposit > 0);
    let bls = net.worker.address();
    refused(&net.try_create(&bls, TokenAmount::default()), 19, "not enough balance to lock for create miner deposit");
    refused(&net.try_create(&net.owner.address(), TokenAmount::from_whole(1)), 16, "must have BLS pubkey");
    refused(&net.try_create(&Key::bls(99).address(), TokenAmount::from_whole(1)), 16, "unable to resolve");
    let made = net.try_create(&bls, TokenAmount::from_atto(deposit));
    assert_eq!(made.receipt.exit_code.value(), 0, "{}", made.error);
    net.devnet.mine(1).unwrap();
    let available = amount(net.call("StateMinerAvailableBalance", json!(["t01002", []])));
    assert!(available < deposit / 5, "most of it is locked: {available} of {deposit}");
}

#[test]
fn a_failed_message_costs_gas_and_nothing_else() {
    let net = Net::with_miner();
    let before = amount(net.call("WalletBalance", json!([net.worker.address().to_string()])));
    let nonce = net.nonce(&net.worker.address());
    let empty = PreCommitSectorBatchParams2 { sectors: vec![] };
    let landed = net.call_miner(28, &empty, TokenAmount::from_whole(5));
    refused(&landed, 16, "batch empty");
    let after = amount(net.call("WalletBalance", json!([net.worker.address().to_string()])));
    assert!(after < before && before - after < 1_000_000_000_000_000_000, "the value came back: {before} {after}");
    assert_eq!(net.nonce(&net.worker.address()), nonce + 1);
}

#[test]
fn a_deposit_that_is_not_there_is_refused() {
    let mut net = Net::bare();
    let deposit = amount(net.call("StateMinerCreationDeposit", json!([[]])));
    let made = net.try_create(&net.worker.address(), TokenAmount::from_atto(deposit));
    assert_eq!(made.receipt.exit_code.value(), 0, "{}", made.error);
    net.miner = Address::new_id(1002);
    let params = PreCommitSectorBatchParams2 { sectors: vec![net.pre_commit_info(&net.sector(0))] };
    refused(&net.call_miner(28, &params, TokenAmount::default()), 19, "for pre-commit deposit");
    let info = json!({
        "SealProof": 5, "SectorNumber": 0, "SealedCID": {"/": net.sector(0).comm_r.cid().to_string()},
        "SealRandEpoch": 1, "Expiration": 1, "UnsealedCid": null
    });
    net.devnet.mine(1).unwrap();
    let asked = amount(net.call("StateMinerPreCommitDepositForPower", json!(["t01002", info, []])));
    let landed = net.call_miner(28, &params, TokenAmount::from_atto(asked));
    assert_eq!(landed.receipt.exit_code.value(), 0, "what the node asks is enough: {}", landed.error);
}

#[test]
fn funds_move_and_make_accounts() {
    let net = Net::bare();
    let new = Key::secp(77).address();
    let send = net.message(&net.owner, new, 0, &(), TokenAmount::from_whole(3));
    assert_eq!(net.land(&net.owner, send).receipt.exit_code.value(), 0);
    assert_eq!(net.call("WalletBalance", json!([new.to_string()])), "3000000000000000000");
    net.devnet.mine(1).unwrap();
    let id = net.call("StateLookupID", json!([new.to_string(), []]));
    assert_eq!(id, "t01002");
    let key = net.call("StateAccountKey", json!([id, []]));
    assert_eq!(&key.as_str().unwrap()[1..], &new.to_string()[1..]);
    let too_much = net.message(&Key::secp(77), net.owner.address(), 0, &(), TokenAmount::from_whole(4));
    let refused = net.push(&Key::secp(77), too_much).unwrap_err();
    assert!(refused.to_string().contains("not enough funds"), "{refused}");
}

#[test]
fn too_little_gas_ends_with_its_own_exit_code() {
    let net = Net::bare();
    let mut message = net.message(&net.owner, Address::new_id(4), 2, &(), TokenAmount::default());
    message.gas_limit = 5_000_000;
    let landed = net.land(&net.owner, message);
    refused(&landed, 7, "out of gas");
    assert_eq!(landed.receipt.gas_used, 5_000_000);
}
