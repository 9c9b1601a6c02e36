//! Books that are cooked are found out.

use super::*;
use crate::devnet::{DevnetConfig, PreSealed, store::Overlay};
use damocles_core::{SealProofType, SectorSize, testing::FakeVerifier};
use fil_actor_power_state::v18 as power;
use fvm_ipld_encoding::CborStore;
use fvm_shared::address::Address;
use multihash_codetable::Code;
use std::sync::Arc;

fn devnet() -> Arc<Devnet> {
    let worker = Address::new_bls(&[7; 48]).unwrap();
    let config = DevnetConfig {
        network_name: "devnet-fake-books".to_owned(),
        fund: vec![(worker, TokenAmount::from_whole(1))],
        miners: vec![PreSealed {
            owner: worker,
            worker,
            proof_type: SealProofType::of(SectorSize::KiB2),
            sectors: 3,
            lifetime: 1_000_000,
            balance: TokenAmount::from_whole(10),
        }],
        ..DevnetConfig::default()
    };
    Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap()
}

/// Changes the state of an actor behind the devnet's back.
fn cook<T: fvm_ipld_encoding::de::DeserializeOwned + fvm_ipld_encoding::ser::Serialize>(
    devnet: &Devnet,
    id: ActorID,
    change: impl FnOnce(&mut T, &Overlay<'_>),
) {
    let overlay = Overlay::new(&devnet.store);
    let mut actors = Actors::clone(&devnet.tip().1);
    let actor = actors.get_mut(&id).unwrap();
    let mut state: T = load(&devnet.store, &actor.state).unwrap();
    change(&mut state, &overlay);
    actor.state = overlay.put_cbor(&state, Code::Blake2b256).unwrap();
    let blocks = overlay.reachable([actor.state]);
    devnet.store.append(&[], blocks).unwrap();
    devnet.chain.write().actors = Arc::new(actors);
}

#[track_caller]
fn found(devnet: &Devnet, what: &str) {
    let faults = devnet.check().unwrap();
    assert!(faults.iter().any(|f| f.contains(what)), "{what}: {faults:?}");
}

const MINER: ActorID = 1001;

#[test]
fn good_books_are_good() {
    let devnet = devnet();
    assert_eq!(devnet.check().unwrap(), Vec::<String>::new());
    let mut checker = Checker::default();
    for _ in 0..200 {
        devnet.mine(1).unwrap();
        assert_eq!(checker.faults(&devnet).unwrap(), Vec::<String>::new());
    }
    assert_eq!(checker.known.len(), 1, "what is not there any more is forgotten");
}

#[test]
fn a_miner_that_pledged_something_else_is_found_out() {
    let devnet = devnet();
    devnet.mine(1).unwrap();
    cook(&devnet, MINER, |state: &mut State, _| state.initial_pledge += TokenAmount::from_atto(1));
    found(&devnet, "miner t01001: initial pledge");
    found(&devnet, "the change of the total pledge");
}

#[test]
fn deposits_and_vesting_without_a_reason_are_found_out() {
    let devnet = devnet();
    devnet.mine(1).unwrap();
    cook(&devnet, MINER, |state: &mut State, _| {
        state.pre_commit_deposits += TokenAmount::from_whole(1);
        state.locked_funds += TokenAmount::from_whole(2);
        state.deadline_cron_active = false;
    });
    found(&devnet, "pre-commit deposits");
    found(&devnet, "locked funds");
    found(&devnet, "nobody looks after t01001");
}

#[test]
fn a_deadline_that_counts_wrong_is_found_out() {
    let devnet = devnet();
    devnet.mine(1).unwrap();
    cook(&devnet, MINER, |state: &mut State, store| {
        let mut deadlines = state.load_deadlines(store).unwrap();
        let (index, _) = state.find_sector(store, 0).unwrap();
        let mut deadline = deadlines.load_deadline(store, index).unwrap();
        deadline.live_sectors += 1;
        deadline.total_sectors += 2;
        deadline.daily_fee += TokenAmount::from_atto(1);
        deadlines.update_deadline(&devnet.policy, store, index, &deadline).unwrap();
        state.save_deadlines(store, deadlines).unwrap();
    });
    found(&devnet, "live sectors is");
    found(&devnet, "total sectors is");
    found(&devnet, "daily fee is");
}

#[test]
fn sectors_that_are_lost_or_doubled_are_found_out() {
    let devnet = devnet();
    devnet.mine(1).unwrap();
    cook(&devnet, MINER, |state: &mut State, store| {
        let mut sectors = fil_actor_miner_state::v18::Sectors::load(store, &state.sectors).unwrap();
        let mut sector = sectors.must_get(0).unwrap();
        sector.expiration += 10_000;
        sectors.store(vec![sector.clone()]).unwrap();
        sector.sector_number = 99;
        sectors.store(vec![sector]).unwrap();
        state.sectors = sectors.amt.flush().unwrap();
    });
    found(&devnet, "when sector 0 expires");
    found(&devnet, "in no partition");
    found(&devnet, "never allocated");
}

#[test]
fn power_that_nobody_has_is_found_out() {
    let devnet = devnet();
    devnet.mine(1).unwrap();
    cook(&devnet, STORAGE_POWER_ACTOR_ID, |state: &mut power::State, _| {
        state.total_bytes_committed += 2048;
        state.miner_count += 1;
    });
    found(&devnet, "committed power");
    found(&devnet, "miners is 2");
}

#[test]
fn funds_from_nowhere_are_found_out() {
    let devnet = devnet();
    devnet.mine(1).unwrap();
    let mut actors = Actors::clone(&devnet.tip().1);
    actors.get_mut(&1000).unwrap().balance += TokenAmount::from_atto(1);
    devnet.chain.write().actors = Arc::new(actors);
    found(&devnet, "their sum");
}
