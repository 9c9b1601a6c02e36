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

/// Takes a miner's claim away.
fn unclaim(devnet: &Devnet, id: ActorID) {
    cook(devnet, STORAGE_POWER_ACTOR_ID, |state: &mut power::State, store| {
        let mut claims = state.load_claims(store).unwrap();
        claims.delete(&Address::new_id(id)).unwrap();
        state.save_claims(&mut claims).unwrap();
        state.miner_count -= 1;
    });
}

#[test]
fn a_miner_whose_callback_fails_loses_its_claim_and_it_is_told() {
    let devnet = devnet();
    devnet.mine(1).unwrap();
    let mut checker = Checker::default();
    assert_eq!(checker.faults(&devnet).unwrap(), Vec::<String>::new());
    cook(&devnet, MINER, |state: &mut State, _| state.initial_pledge += TokenAmount::from_whole(100));
    let end = devnet.height() + devnet.policy.wpost_challenge_window;
    devnet.grow_to(end).unwrap();
    found(&devnet, "a cron callback of t01001");
    let claimed = |devnet: &Devnet| {
        let power: power::State = load(&devnet.store, &devnet.tip().1[&STORAGE_POWER_ACTOR_ID].state).unwrap();
        power.miner_power(&devnet.store, &Address::new_id(MINER)).unwrap().is_some()
    };
    assert!(!claimed(&devnet));
    let failed = |checker: &mut Checker| {
        checker.faults(&devnet).unwrap().iter().filter(|f| f.contains("a cron callback")).count()
    };
    assert_eq!((failed(&mut checker), failed(&mut checker)), (1, 0), "once");
}

#[test]
fn a_miner_without_a_claim_is_called_no_more() {
    let devnet = devnet();
    devnet.mine(1).unwrap();
    unclaim(&devnet, MINER);
    let before = devnet.tip().1[&MINER].clone();
    devnet.grow_to(devnet.height() + 2 * devnet.policy.wpost_proving_period).unwrap();
    assert_eq!(devnet.tip().1[&MINER], before);
    assert_eq!(*devnet.failures.lock(), Vec::<String>::new());
}

#[test]
fn only_a_miner_with_a_claim_pledges_and_a_panic_leaves_nothing() {
    let devnet = devnet();
    let (head, actors) = devnet.tip();
    let overlay = Overlay::new(&devnet.store);
    let ticket_at = |_| crate::devnet::randomness::TicketId::default();
    let mut world = devnet.world(&overlay, &ticket_at, head.height, &actors);
    let update = crate::devnet::power::update_pledge;
    let one = TokenAmount::from_atto(1);
    update(&mut world, MINER, &one).unwrap();
    assert_eq!(update(&mut world, MINER + 1, &one).unwrap_err().exit_code().value(), 18);
    update(&mut world, MINER + 1, &TokenAmount::default()).unwrap();
    let before = world.actors.clone();
    let refused = world.attempt(|world| -> Result<(), ActorError> {
        world.transfer(1000, MINER, &one)?;
        panic!("on purpose")
    });
    let refused = refused.unwrap_err();
    assert_eq!((refused.exit_code().value(), refused.msg()), (24, "panicked: on purpose"));
    assert_eq!(world.actors, before);
}
