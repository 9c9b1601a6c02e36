//! A network of a size that operators have.

use crate::{
    harness::Key,
    sim::{Sim, fil},
};
use damocles_chain::devnet::{Devnet, DevnetConfig, PreSealed};
use damocles_core::{PoStProofType, SealProofType, SectorSize, testing::FakeVerifier};
use fvm_shared::econ::TokenAmount;
use std::{sync::Arc, time::Instant};

const MINERS: u8 = 100;
const SECTORS: u64 = 1000;

/// A thousand epochs, with every PoSt that is due in them.
#[test]
#[expect(clippy::disallowed_methods, reason = "the time is reported and decides nothing")]
fn a_hundred_miners_of_a_thousand_sectors_keep_their_power() {
    let began = Instant::now();
    let worker = Key::bls(200);
    let mut fund = vec![(worker.address(), fil(1000))];
    let owners: Vec<Key> = (1..=MINERS).map(Key::secp).collect();
    fund.extend(owners.iter().map(|key| (key.address(), fil(1000))));
    let miners = owners.iter().map(|owner| PreSealed {
        owner: owner.address(),
        worker: worker.address(),
        proof_type: SealProofType::of(SectorSize::KiB2),
        sectors: SECTORS,
        lifetime: 365 * 2880,
        balance: fil(1000),
    });
    let config = DevnetConfig {
        network_name: "devnet-fake-scale".to_owned(),
        miners: miners.collect(),
        fund,
        ..DevnetConfig::default()
    };
    let devnet = Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap();
    let mut keys = std::collections::BTreeMap::from([(1000, worker)]);
    keys.extend((1001..).zip(owners));
    let sim = Sim::over(devnet, fil_actors_shared::v18::runtime::Policy::default(), keys);
    let first = 1001 + u64::from(MINERS);
    let made = began.elapsed();
    let began = Instant::now();
    let start = sim.epoch();
    let mut proofs = 0;
    while sim.epoch() < start + 1000 {
        for n in 0..u64::from(MINERS) {
            // Where a miner's deadlines lie never changes, so that it is looked up once.
            if sim.window(first + n) != 3 {
                continue;
            }
            for params in sim.posts(first + n, PoStProofType::window(SectorSize::KiB2), &mut |_| false) {
                sim.push(1001 + n, first + n, 5, &params, TokenAmount::default()).unwrap();
                proofs += 1;
            }
        }
        sim.devnet.mine(1).unwrap();
    }
    let took = began.elapsed();
    println!(
        "{MINERS} miners of {SECTORS} sectors: made in {made:.2?}, 1000 epochs with {proofs} PoSts in {took:.2?}: {:.0} \
         epochs per second",
        1000.0 / took.as_secs_f64()
    );
    let powers: Vec<u64> = (first..first + u64::from(MINERS)).map(|id| sim.power(id)).collect();
    let least = powers.iter().min().unwrap() / 2048;
    assert!((300..SECTORS).contains(&least), "a third of a period is proven: {least}");
    for id in first..first + u64::from(MINERS) {
        let faults = sim.call("StateMinerFaults", serde_json::json!([format!("t0{id}"), []]));
        assert_eq!(faults, serde_json::json!([0]), "t0{id} missed no proof");
    }
    sim.check();
}
