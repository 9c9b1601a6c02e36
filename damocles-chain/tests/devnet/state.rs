//! The state that clients read: the chain's own objects.

use crate::harness::{Net, bytes_of, config};
use cid::Cid;
use damocles_chain::devnet::{Devnet, DevnetConfig, DevnetErrorKind, PolicyParameters};
use damocles_core::testing::FakeVerifier;
use fil_actor_miner_state::v18 as miner;
use fil_actor_power_state::v18 as power;
use fvm_ipld_encoding::from_slice;
use serde_json::{Value, json};
use std::sync::Arc;

fn object(net: &Net, cid: &Value) -> Vec<u8> {
    assert_eq!(net.call("ChainHasObj", json!([cid])), json!(true));
    bytes_of(&net.call("ChainReadObj", json!([cid])))
}

#[test]
fn states_are_the_actors_own() {
    let net = Net::with_miner();
    net.active_sector(0);
    let miner_text = net.miner.to_string();
    let actor = net.call("StateGetActor", json!([miner_text, []]));
    let state: miner::State = from_slice(&object(&net, &actor["Head"])).unwrap();
    let info: miner::MinerInfo = from_slice(&object(&net, &json!({"/": state.info.to_string()}))).unwrap();
    assert_eq!(info.sector_size as u64, 2048);
    let read = net.call("StateReadState", json!([miner_text, []]));
    assert_eq!((read["Code"].clone(), read["Balance"].clone()), (actor["Code"].clone(), actor["Balance"].clone()));
    assert_eq!(read["State"]["Info"], json!({"/": state.info.to_string()}));
    assert_eq!(read["State"]["InitialPledge"], state.initial_pledge.atto().to_string());
    assert_eq!(read["State"]["ProvingPeriodStart"], state.proving_period_start);
    assert_eq!(read["State"]["DeadlineCronActive"], json!(true));
    assert!(read["State"]["VestingFunds"]["Head"]["Epoch"].is_i64(), "the creation deposit vests");

    let head = net.call("StateGetActor", json!(["t04", []]))["Head"].clone();
    let state: power::State = from_slice(&object(&net, &head)).unwrap();
    let read = net.call("StateReadState", json!(["t04", []]))["State"].clone();
    assert_eq!((read["MinerCount"].clone(), state.miner_count), (json!(1), 1));
    assert_eq!(read["Claims"], json!({"/": state.claims.to_string()}));
    let reward = net.call("StateReadState", json!(["t02", []]))["State"].clone();
    assert!(reward["ThisEpochRewardSmoothed"]["PositionEstimate"].is_string());
    let init = net.call("StateReadState", json!(["t01", []]))["State"].clone();
    assert_eq!(init["NetworkName"], "devnet-fake-test");
    let owner = net.call("StateReadState", json!(["t01000", []]))["State"].clone();
    assert_eq!(&owner["Address"].as_str().unwrap()[1..], &net.owner.address().to_string()[1..]);
    assert!(net.call("StateReadState", json!(["t099", []]))["State"].is_null());

    // From a block's state root through the tree, as anybody could walk it.
    let root = net.call("ChainHead", json!([]))["Blocks"][0]["ParentStateRoot"].clone();
    let (version, actors, _): (u64, Cid, Cid) = from_slice(&object(&net, &root)).unwrap();
    assert_eq!(version, 5);
    assert!(!object(&net, &json!({"/": actors.to_string()})).is_empty());
}

#[test]
fn a_file_of_version_one_goes_on_and_one_of_version_nine_does_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("devnet.db");
    let net = Net::at(home.path());
    net.devnet.mine(3).unwrap();
    let head = net.devnet.head();
    drop(net);
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(&bytes[..8], b"DMDEVNT2");
    bytes[7] = b'1';
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(Net::at(home.path()).devnet.head(), head);
    assert_eq!(&std::fs::read(&path).unwrap()[..8], b"DMDEVNT2", "it is of this version from now on");
    bytes[7] = b'9';
    std::fs::write(&path, &bytes).unwrap();
    let refused = Devnet::open(config(), Arc::new(FakeVerifier), home.path()).unwrap_err();
    assert_eq!(refused.kind(), DevnetErrorKind::Version);
    assert!(refused.chain().contains('9') && refused.hint().is_some(), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "it is left as it is");
}

#[test]
fn a_chain_keeps_its_policy() {
    let home = tempfile::tempdir().unwrap();
    let short = PolicyParameters {
        proving_period: 480,
        challenge_window: 10,
        challenge_lookback: 4,
        fault_declaration_cutoff: 8,
        fault_max_age: 960,
        ..PolicyParameters::default()
    };
    let compressed = DevnetConfig { policy: short, ..config() };
    let open = |config: DevnetConfig| Devnet::open(config, Arc::new(FakeVerifier), home.path());
    drop(open(compressed.clone()).unwrap());
    drop(open(compressed.clone()).unwrap());
    assert_eq!(open(config()).unwrap_err().kind(), DevnetErrorKind::Mismatch);
    let mut wrong = compressed;
    wrong.policy.challenge_window = 11;
    let senseless = Devnet::in_memory(wrong, Arc::new(FakeVerifier)).unwrap_err();
    assert_eq!(senseless.kind(), DevnetErrorKind::Config);
}
