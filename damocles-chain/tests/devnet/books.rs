//! The books agree after every epoch of a long run of calls, good and bad, with null rounds and forks.

use crate::sim::{Sim, bits, fil, short};
use cid::Cid;
use damocles_chain::devnet::{Checker, ForkPlan, MessageFate, PolicyParameters};
use damocles_core::{PoStProofType, SectorSize};
use fil_actor_miner_state::v18::{
    ChangeBeneficiaryParams, ChangeMultiaddrsParams, ChangeOwnerAddressParams, ChangePeerIDParams,
    ChangeWorkerAddressParams, CompactPartitionsParams, CompactSectorNumbersParams, DeclareFaultsParams,
    DeclareFaultsRecoveredParams, DisputeWindowedPoStParams, ExpirationExtension2, ExtendSectorExpiration2Params,
    FaultDeclaration, MinerInfo, PRECOMMIT_CONFIG, Partition, PreCommitMap, RecoveryDeclaration, State,
    TerminateSectorsParams, TerminationDeclaration, WithdrawBalanceParams,
};
use fvm_ipld_encoding::{BytesDe, ser::Serialize};
use fvm_shared::{address::Address, econ::TokenAmount};
use num_traits::Zero;
use serde_json::json;
use std::collections::BTreeMap;

/// Splitmix64: a seed repeats a run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }

    fn pick<'v, T>(&mut self, of: &'v [T]) -> Option<&'v T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap())
    }
}

/// How many sectors a miner has at most: every one is looked at after every epoch in which its miner changed.
const MOST: usize = 40;
const MINERS: u64 = 4;
const ACCOUNTS: u8 = 12;

struct Run {
    sim: Sim,
    chance: Chance,
    miners: Vec<u64>,
    numbers: BTreeMap<u64, u64>,
    /// Messages whose fate is not settled yet: when each was sent, and what it calls.
    waiting: Vec<(i64, Cid, u64)>,
    /// By method: how many did what they were sent for, and how many were refused by the actor.
    counts: BTreeMap<u64, (u64, u64)>,
    forks: u64,
    null_rounds: u64,
}

/// A miner as reads see it.
struct View {
    miner: u64,
    state: State,
    info: MinerInfo,
    sectors: Vec<u64>,
    pre_commits: Vec<u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let parameters = PolicyParameters {
            optimistic_post: true,
            moving_economy: true,
            block_rewards: true,
            initial_network_power: Some(64 << 20),
            addressed_sectors_max: 12,
            ..short()
        };
        let sim = Sim::new(parameters, ACCOUNTS, fil(1_000_000));
        let miners = (0..MINERS).map(|n| sim.create_miner(1000 + 2 * n, 1001 + 2 * n, fil(5000))).collect();
        Self {
            sim,
            chance: Chance(seed),
            miners,
            numbers: BTreeMap::new(),
            waiting: Vec::new(),
            counts: BTreeMap::new(),
            forks: 0,
            null_rounds: 0,
        }
    }

    fn view(&self, miner: u64) -> View {
        let store = self.sim.store();
        let state = self.sim.state(miner);
        let info = state.get_info(&store).unwrap();
        let mut sectors = Vec::new();
        state
            .for_each_sector(&store, |sector| {
                sectors.push(sector.sector_number);
                Ok(())
            })
            .unwrap();
        let mut pre_commits = Vec::new();
        PreCommitMap::load(&store, &state.pre_committed_sectors, PRECOMMIT_CONFIG, "pre-commits")
            .unwrap()
            .for_each(|number, _| {
                pre_commits.push(number);
                Ok(())
            })
            .unwrap();
        View { miner, state, info, sectors, pre_commits }
    }

    fn send(&mut self, from: u64, to: u64, method: u64, params: &impl Serialize, value: TokenAmount) {
        if let Some(cid) = self.sim.push(from, to, method, params, value) {
            self.waiting.push((self.sim.epoch(), cid, method));
        }
    }

    /// Somebody who may call, or, now and then, just somebody.
    fn caller(&mut self, view: &View) -> u64 {
        if self.chance.percent(6) {
            return 1000 + self.chance.below(u64::from(ACCOUNTS));
        }
        let worker = self.chance.percent(10);
        (if worker { view.info.worker } else { view.info.owner }).id().unwrap()
    }

    /// Numbers that were not used, or, now and then, some that were.
    fn new_numbers(&mut self, miner: u64, count: u64) -> Vec<u64> {
        let next = self.numbers.entry(miner).or_default();
        let first = if self.chance.percent(4) { next.saturating_sub(1) } else { *next };
        *next = first + count;
        (first..first + count).collect()
    }

    /// A sector with its place.
    fn sector(&mut self, view: &View) -> Option<(u64, u64, u64, Partition)> {
        let number = *self.chance.pick(&view.sectors)?;
        let (deadline, partition) = view.state.find_sector(&self.sim.store(), number).ok()?;
        let found = self.sim.partitions(&view.state, deadline).into_iter().find(|(n, _)| *n == partition)?;
        Some((number, deadline, partition, found.1))
    }

    /// Proves the deadline that is open, mostly.
    fn post(&mut self, view: &View) {
        let open = self.sim.deadline(&view.state);
        if self.sim.epoch() + 1 != open.open + 3 || !view.state.deadline_cron_active || self.chance.percent(12) {
            return;
        }
        let skips = self.chance.percent(10);
        let from = self.caller(view);
        let chance = &mut self.chance;
        let kind = PoStProofType::window(SectorSize::KiB2);
        let posts = self.sim.posts(view.miner, kind, &mut |_| skips && chance.percent(30));
        for mut params in posts {
            if self.chance.percent(12) {
                params.proofs[0].proof_bytes[0] ^= 1;
            }
            self.send(from, view.miner, 5, &params, TokenAmount::zero());
        }
    }

    /// Something that a miner does about its sectors.
    fn onboard(&mut self, view: &View) {
        let (miner, from) = (view.miner, self.caller(view));
        let room = view.sectors.len() + view.pre_commits.len() < MOST;
        let value = if self.chance.percent(90) { fil(3000) } else { TokenAmount::zero() };
        match self.chance.below(4) {
            0 if room => {
                let count = 1 + self.chance.below(6);
                let numbers = self.new_numbers(miner, count);
                let mut params = self.sim.pre_commit_params(miner, &numbers);
                if self.chance.percent(8) {
                    params.sectors[0].expiration = self.sim.epoch() + 100;
                }
                self.send(from, miner, 28, &params, value);
            }
            1 if room => {
                let count = 1 + self.chance.below(5);
                let numbers = self.new_numbers(miner, count);
                let deadline = self.chance.below(49);
                let life = 1510 + i64::try_from(self.chance.below(900)).unwrap();
                let mut params = self.sim.ni_params(miner, &numbers, self.sim.epoch() + life, deadline);
                if self.chance.percent(8) {
                    params.aggregate_proof = vec![3; 192].into();
                }
                self.send(from, miner, 36, &params, value);
            }
            _ if !view.pre_commits.is_empty() => {
                let aggregate = view.pre_commits.len() >= 4 && self.chance.percent(60);
                let mut params = self.sim.prove_params(miner, &view.pre_commits, aggregate);
                if params.sector_activations.is_empty() {
                    return;
                }
                params.require_activation_success = self.chance.percent(50);
                if let (true, Some(proof)) = (self.chance.percent(10), params.sector_proofs.first_mut()) {
                    *proof = vec![1; 192].into();
                }
                self.send(from, miner, 34, &params, value);
            }
            _ => {}
        }
    }

    fn maintain(&mut self, view: &View) {
        let (miner, from) = (view.miner, self.caller(view));
        let Some((number, deadline, partition, found)) = self.sector(view) else { return };
        let none = TokenAmount::zero();
        let some = |chance: &mut Chance, of: &fvm_ipld_bitfield::BitField| {
            let mut numbers: Vec<u64> = of.iter().filter(|_| chance.percent(60)).collect();
            numbers.push(number);
            bits(numbers)
        };
        match self.chance.below(7) {
            0 => {
                let sectors = some(&mut self.chance, &found.live_sectors());
                let params = TerminateSectorsParams {
                    terminations: vec![TerminationDeclaration { deadline, partition, sectors }],
                };
                self.send(from, miner, 9, &params, none);
            }
            1 => {
                let sectors = some(&mut self.chance, &found.active_sectors());
                let params = DeclareFaultsParams { faults: vec![FaultDeclaration { deadline, partition, sectors }] };
                self.send(from, miner, 10, &params, none);
            }
            2 | 3 => {
                if found.faults.is_empty() && self.chance.percent(90) {
                    return;
                }
                let sectors = if found.faults.is_empty() { bits([number]) } else { found.faults };
                let params = DeclareFaultsRecoveredParams {
                    recoveries: vec![RecoveryDeclaration { deadline, partition, sectors }],
                };
                self.send(from, miner, 11, &params, fil(100));
            }
            4 => {
                let sectors = some(&mut self.chance, &found.active_sectors());
                let new_expiration = self.sim.epoch() + 2000 + i64::try_from(self.chance.below(400_000)).unwrap();
                let extension =
                    ExpirationExtension2 { deadline, partition, sectors, sectors_with_claims: vec![], new_expiration };
                self.send(from, miner, 32, &ExtendSectorExpiration2Params { extensions: vec![extension] }, none);
            }
            5 => {
                let mut params = self.sim.update_params(miner, number);
                if self.chance.percent(10) {
                    params.sector_proofs = vec![vec![1; 192].into()];
                }
                self.send(from, miner, 35, &params, fil(10));
            }
            _ => {
                let partitions = if self.chance.percent(80) { bits(0..=partition) } else { bits([partition + 1]) };
                self.send(from, miner, 19, &CompactPartitionsParams { deadline, partitions }, none);
            }
        }
    }

    fn administrate(&mut self, view: &View) {
        let (miner, from, owner) = (view.miner, self.caller(view), view.info.owner.id().unwrap());
        let none = TokenAmount::zero();
        let account = 1000 + self.chance.below(u64::from(ACCOUNTS));
        match self.chance.below(13) {
            0 | 1 => {
                let amount_requested = fil(i64::try_from(self.chance.below(5000)).unwrap());
                let by = if self.chance.percent(50) { view.info.beneficiary.id().unwrap() } else { from };
                self.send(by, miner, 16, &WithdrawBalanceParams { amount_requested }, none);
            }
            2 => {
                let value = fil(i64::try_from(self.chance.below(200)).unwrap());
                self.send(from, miner, 22, &(), value);
            }
            3 => {
                let new_worker = Address::new_id(account);
                let new_control_addresses = vec![view.info.owner];
                let params = ChangeWorkerAddressParams { new_worker, new_control_addresses };
                self.send(owner, miner, 3, &params, none);
            }
            4 => self.send(from, miner, 21, &(), none),
            5 => {
                let (by, new_owner) = match view.info.pending_owner_address {
                    Some(pending) => (pending.id().unwrap(), pending),
                    None => (owner, Address::new_id(account)),
                };
                let by = if self.chance.percent(15) { account } else { by };
                self.send(by, miner, 23, &ChangeOwnerAddressParams { new_owner }, none);
            }
            6 | 7 => self.beneficiary(view, account),
            8 => {
                let params = ChangePeerIDParams { new_id: vec![1; usize::try_from(self.chance.below(140)).unwrap()] };
                self.send(from, miner, 4, &params, none);
            }
            9 => {
                let address = vec![4; usize::try_from(self.chance.below(10)).unwrap()];
                self.send(from, miner, 18, &ChangeMultiaddrsParams { new_multi_addrs: vec![BytesDe(address)] }, none);
            }
            10 => {
                let first = self.numbers.get(&miner).copied().unwrap_or_default();
                let mask_sector_numbers = bits(first..first + self.chance.below(3));
                self.send(from, miner, 20, &CompactSectorNumbersParams { mask_sector_numbers }, none);
            }
            11 => {
                let method = if self.chance.percent(50) { 2 } else { 31 };
                self.send(from, miner, method, &(), none);
            }
            _ => {
                let params = self.sim.create_params(account, account);
                self.send(account, 4, 2, &params, none);
            }
        }
    }

    fn beneficiary(&mut self, view: &View, account: u64) {
        let owner = view.info.owner.id().unwrap();
        let term = |new_beneficiary, new_quota, new_expiration| ChangeBeneficiaryParams {
            new_beneficiary,
            new_quota,
            new_expiration,
        };
        let (by, params) = match &view.info.pending_beneficiary_term {
            Some(p) => {
                let by = if p.approved_by_nominee { view.info.beneficiary } else { p.new_beneficiary };
                (by.id().unwrap(), term(p.new_beneficiary, p.new_quota.clone(), p.new_expiration))
            }
            None if view.info.beneficiary != view.info.owner => (owner, term(view.info.owner, TokenAmount::zero(), 0)),
            None => (owner, term(Address::new_id(account), fil(200), self.sim.epoch() + 300)),
        };
        self.send(by, view.miner, 30, &params, TokenAmount::zero());
    }

    /// Disputes what lies open, right or wrong.
    fn dispute(&mut self, view: &View) {
        let deadline = (self.sim.deadline(&view.state).index + 48 - 1 - self.chance.below(3)) % 48;
        let store = self.sim.store();
        let found = view.state.load_deadlines(&store).unwrap().load_deadline(&store, deadline).unwrap();
        let count = found.optimistic_proofs_snapshot_amt(&store).unwrap().count();
        if count == 0 {
            return;
        }
        let params = DisputeWindowedPoStParams { deadline, post_index: self.chance.below(count) };
        let from = 1000 + self.chance.below(u64::from(ACCOUNTS));
        self.send(from, view.miner, 24, &params, TokenAmount::zero());
    }

    /// One epoch, or a few more if they are null rounds.
    fn step(&mut self) {
        for miner in self.miners.clone() {
            let view = self.view(miner);
            self.post(&view);
            if self.chance.percent(14) {
                self.onboard(&view);
            }
            if self.chance.percent(10) {
                self.maintain(&view);
            }
            if self.chance.percent(6) {
                self.administrate(&view);
            }
            if self.chance.percent(8) {
                self.dispute(&view);
            }
        }
        if self.chance.percent(2) {
            let skipped = 1 + self.chance.below(4);
            self.null_rounds += skipped;
            self.sim.devnet.grow_to(self.sim.epoch() + 1 + i64::try_from(skipped).unwrap()).unwrap();
        } else {
            self.sim.devnet.mine(1).unwrap();
        }
        if self.chance.percent(1) {
            let fates = [MessageFate::Again, MessageFate::Pool, MessageFate::Delay(3)];
            let fate = *self.chance.pick(&fates).unwrap();
            let depth = 1 + self.chance.below(5);
            let plan = ForkPlan { depth, extend: 1, nulls: self.chance.below(2), fate, overrides: Default::default() };
            self.sim.devnet.fork(&plan).unwrap();
            self.forks += 1;
        }
        self.settle(20);
    }

    /// Counts the messages that no fork throws out any more.
    fn settle(&mut self, depth: i64) {
        let now = self.sim.epoch();
        let (old, young) = self.waiting.drain(..).partition(|(sent, ..)| sent + depth <= now);
        self.waiting = young;
        for (_, cid, method) in old {
            let Some(landed) = self.sim.devnet.landed(&cid) else { continue };
            let count = self.counts.entry(method).or_default();
            match landed.receipt.exit_code.value() {
                0 => count.0 += 1,
                16..=1000 => count.1 += 1,
                other => panic!("method {method} ended with {other}: {}", landed.error),
            }
        }
    }
}

fn all_funds(sim: &Sim) -> TokenAmount {
    (0..1100).map(|id| sim.balance(id)).sum()
}

fn run(seed: u64, epochs: i64) -> (BTreeMap<u64, (u64, u64)>, String) {
    let mut run = Run::new(seed);
    let mut checker = Checker::default();
    let funds = all_funds(&run.sim);
    let end = run.sim.epoch() + epochs;
    while run.sim.epoch() < end {
        run.step();
        let found = checker.faults(&run.sim.devnet).unwrap();
        assert_eq!(found, Vec::<String>::new(), "seed {seed} epoch {}", run.sim.epoch());
    }
    run.settle(0);
    assert_eq!(all_funds(&run.sim), funds, "seed {seed}");
    let power: Vec<u64> = run.miners.iter().map(|id| run.sim.power(*id)).collect();
    let summary = format!("{} forks, {} null rounds, power {power:?}, {:?}", run.forks, run.null_rounds, run.counts);
    (run.counts, summary)
}

/// Every method is called and does what it does, and every one that can is refused too.
#[test]
fn the_books_agree_after_every_epoch() {
    let mut counts: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for seed in [1, 2, 3] {
        let (calls, summary) = run(seed, 2000);
        println!("seed {seed}: {summary}");
        for (method, (good, bad)) in calls {
            let count = counts.entry(method).or_default();
            count.0 += good;
            count.1 += bad;
        }
    }
    println!("calls that did something, and that were refused, by method: {counts:?}");
    for method in [2, 3, 4, 5, 9, 10, 11, 16, 18, 19, 20, 21, 22, 23, 24, 28, 30, 31, 32, 34, 35, 36] {
        let (good, bad) = counts.get(&method).copied().unwrap_or_default();
        assert!(good > 0, "method {method}: {counts:?}");
        assert!(bad > 0 || matches!(method, 2 | 31), "method {method}: {counts:?}");
    }
}

/// The checks are there for whoever runs a devnet.
#[test]
fn a_node_says_that_its_books_agree() {
    let sim = Sim::new(short(), 2, fil(1000));
    sim.create_miner(1000, 1001, fil(10));
    assert_eq!(sim.devnet.call("Devnet.Check", json!([])).unwrap(), json!([]));
}
