//! A devnet that was killed goes on where it stood.

use crate::harness::{Key, Net, config, refused};
use damocles_chain::devnet::{Devnet, DevnetErrorKind};
use damocles_core::testing::FakeVerifier;
use fil_actor_miner_state::v18::{ExpirationExtension2, ExtendSectorExpiration2Params, SectorClaim};
use fvm_ipld_bitfield::BitField;
use fvm_shared::econ::TokenAmount;
use serde_json::json;
use std::{fs, sync::Arc};

#[test]
fn a_restart_in_the_middle_keeps_the_state() {
    let home = tempfile::tempdir().unwrap();
    let mut net = Net::at(home.path());
    net.create_miner();
    let sector = net.active_sector(0);
    let miner = net.miner;
    let (head, place) = (net.devnet.head(), net.location(&sector));
    let deadlines = net.call("StateMinerDeadlines", json!([miner.to_string(), []]));
    drop(net);

    let mut net = Net::at(home.path());
    net.miner = miner;
    assert_eq!(net.devnet.head(), head, "the clock stood still");
    assert_eq!(net.location(&sector), place);
    assert_eq!(net.call("StateMinerDeadlines", json!([miner.to_string(), []])), deadlines);
    let open = net.open(place.0);
    let landed = net.post(&open, place.1, &[&sector]);
    assert_eq!(landed.receipt.exit_code.value(), 0, "{}", landed.error);
    net.devnet.mine(1).unwrap();
    assert_eq!(net.power(), 2048);
}

#[test]
fn the_same_messages_make_the_same_chain() {
    let run = || {
        let net = Net::with_miner();
        net.active_sector(0);
        net.devnet.grow_to(net.epoch() + 500).unwrap();
        net.devnet.head()
    };
    assert_eq!(run(), run());
}

/// The number of a sector is anybody's to choose: the highest must not stop a devnet, now or when it starts again.
#[test]
fn a_message_that_no_actor_takes_does_not_stop_the_chain() {
    let home = tempfile::tempdir().unwrap();
    let mut net = Net::at(home.path());
    net.create_miner();
    let (miner, stranger) = (net.miner, Key::secp(8));
    let funds = net.message(&net.owner, stranger.address(), 0, &(), TokenAmount::from_whole(1));
    net.land(&net.owner, funds);
    net.devnet.mine(1).unwrap();
    let params = ExtendSectorExpiration2Params {
        extensions: vec![ExpirationExtension2 {
            deadline: 0,
            partition: 0,
            sectors: BitField::new(),
            sectors_with_claims: vec![SectorClaim {
                sector_number: u64::MAX,
                maintain_claims: vec![],
                drop_claims: vec![],
            }],
            new_expiration: 5000,
        }],
    };
    let message = net.message(&stranger, miner, 32, &params, TokenAmount::default());
    let cid = net.push(&stranger, message).unwrap();
    drop(net);
    let net = Net::at(home.path());
    let head = net.devnet.mine(3).unwrap();
    refused(&net.devnet.landed(&cid).unwrap(), 16, "sector number 18446744073709551615");
    drop(net);
    let net = Net::at(home.path());
    assert_eq!(net.devnet.head(), head);
    net.devnet.mine(3).unwrap();
}

/// Every prefix of the file is a devnet that works: a kill may come between any two bytes.
#[test]
fn a_kill_at_any_moment_leaves_a_devnet() {
    let home = tempfile::tempdir().unwrap();
    let mut net = Net::at(home.path());
    net.create_miner();
    net.pre_commit(&net.sector(0));
    net.devnet.mine(3).unwrap();
    let pending = {
        let message = net.message(&net.owner, net.worker.address(), 0, &(), TokenAmount::from_whole(1));
        net.push(&net.owner, message).unwrap()
    };
    let last = net.devnet.head();
    drop(net);
    let whole = fs::read(home.path().join("devnet.db")).unwrap();

    let mut heads = Vec::new();
    for cut in (0..whole.len()).step_by(whole.len() / 150).chain([whole.len() - 1, whole.len()]) {
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("devnet.db"), &whole[..cut]).unwrap();
        let net = Net::at(copy.path());
        heads.push(net.devnet.head().epoch.0);
        net.devnet.mine(2).unwrap();
        let head = net.devnet.head();
        drop(net);
        assert_eq!(Net::at(copy.path()).devnet.head(), head, "cut at {cut}");
    }
    assert!(heads.is_sorted() && heads[0] == 1000, "{heads:?}");
    assert_eq!(heads.last(), Some(&last.epoch.0));

    let net = Net::at(home.path());
    net.devnet.mine(1).unwrap();
    assert!(net.devnet.landed(&pending).is_some(), "what was taken into the pool is still there");
}

#[test]
fn damage_a_second_process_and_another_network_are_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let open = || Devnet::open(config(), Arc::new(FakeVerifier), home.path()).map(drop);
    let net = Net::at(home.path());
    net.devnet.mine(5).unwrap();
    assert_eq!(open().unwrap_err().kind(), DevnetErrorKind::Locked);
    drop(net);
    let other = damocles_chain::devnet::DevnetConfig { network_name: "devnet-other".to_owned(), ..config() };
    let refused = Devnet::open(other, Arc::new(FakeVerifier), home.path()).unwrap_err();
    assert_eq!(refused.kind(), DevnetErrorKind::Mismatch);
    let path = home.path().join("devnet.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = open().unwrap_err();
    assert_eq!(refused.kind(), DevnetErrorKind::Corrupt);
    assert!(refused.to_string().contains("devnet.db"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "a damaged file is left as it is");
}

#[test]
fn new_accounts_get_funds_and_old_ones_no_more() {
    let home = tempfile::tempdir().unwrap();
    let net = Net::at(home.path());
    let owner = net.owner.address();
    let before = net.call("WalletBalance", json!([owner.to_string()]));
    drop(net);
    let new = Key::secp(8).address();
    let mut more = config();
    more.fund.push((new, TokenAmount::from_whole(5)));
    let devnet = Devnet::open(more.clone(), Arc::new(FakeVerifier), home.path()).unwrap();
    let balance = |devnet: &Devnet, who: String| devnet.call("Filecoin.WalletBalance", json!([who])).unwrap();
    assert_eq!(balance(&devnet, new.to_string()), "5000000000000000000");
    assert_eq!(balance(&devnet, owner.to_string()), before);
    drop(devnet);
    let devnet = Devnet::open(more, Arc::new(FakeVerifier), home.path()).unwrap();
    assert_eq!(balance(&devnet, new.to_string()), "5000000000000000000");
}
