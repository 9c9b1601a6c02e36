//! The books agree after every epoch of a long run of calls, good and bad, with null rounds and forks.

mod calls;

use crate::sim::{Sim, fil, short};
use cid::Cid;
use damocles_chain::devnet::{Checker, ForkPlan, MessageFate, PolicyParameters};
use fil_actor_miner_state::v18::{MinerInfo, PRECOMMIT_CONFIG, Partition, PreCommitMap, State};
use fvm_ipld_encoding::ser::Serialize;
use fvm_shared::econ::TokenAmount;
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

/// The kind of the actor that is called, and the method.
type Call = (&'static str, u64);
/// How many calls did what they were sent for, and how many were refused by the actor.
type Counts = BTreeMap<Call, (u64, u64)>;
type Effects = BTreeMap<&'static str, u64>;

/// What calls change that may also succeed without changing anything.
struct Seen {
    info: MinerInfo,
    debt: TokenAmount,
    pledge: TokenAmount,
    deadlines: Cid,
    live: u64,
    faulty: u64,
    partitions: u64,
}

struct Run {
    sim: Sim,
    chance: Chance,
    miners: Vec<u64>,
    numbers: BTreeMap<u64, u64>,
    /// Messages whose fate is not settled yet: when each was sent, and what it calls.
    waiting: Vec<(i64, Cid, Call)>,
    counts: Counts,
    /// How often something was seen to change, by what it was.
    effects: Effects,
    /// What each miner was when it was seen last, on the branch that the chain is on.
    seen: BTreeMap<u64, Seen>,
    /// Calls that ended as none may.
    defects: Vec<String>,
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
            counts: Counts::new(),
            effects: Effects::new(),
            seen: BTreeMap::new(),
            defects: Vec::new(),
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
            let kind = if self.miners.contains(&to) { "miner" } else { "power" };
            self.waiting.push((self.sim.epoch(), cid, (kind, method)));
        }
    }

    /// Looks what became of a miner since it was seen last.
    fn look(&mut self, view: &View) {
        let last = self.seen.remove(&view.miner);
        let (live, faulty, partitions) = match &last {
            Some(last) if last.deadlines == view.state.deadlines => (last.live, last.faulty, last.partitions),
            _ => self.deadlines(&view.state),
        };
        let now = Seen {
            info: view.state.get_info(&self.sim.store()).unwrap(),
            debt: view.state.fee_debt.clone(),
            pledge: view.state.initial_pledge.clone(),
            deadlines: view.state.deadlines,
            live,
            faulty,
            partitions,
        };
        if let Some(last) = last {
            let changes = [
                ("the worker", now.info.worker != last.info.worker),
                ("the worker to come", now.info.pending_worker_key != last.info.pending_worker_key),
                ("the owner", now.info.owner != last.info.owner),
                ("the beneficiary", now.info.beneficiary != last.info.beneficiary),
                (
                    "the quota that is used",
                    now.info.beneficiary_term.used_quota > last.info.beneficiary_term.used_quota,
                ),
                ("the peer", now.info.peer_id != last.info.peer_id),
                ("the addresses", now.info.multi_address != last.info.multi_address),
                ("less debt", now.debt < last.debt),
                ("less pledge", now.pledge < last.pledge),
                ("more sectors", now.live > last.live),
                ("fewer sectors", now.live < last.live),
                ("more faults", now.faulty > last.faulty),
                ("fewer faults of as many sectors", now.faulty < last.faulty && now.live >= last.live),
                ("fewer partitions", now.partitions < last.partitions),
            ];
            for (what, _) in changes.into_iter().filter(|(_, changed)| *changed) {
                *self.effects.entry(what).or_default() += 1;
            }
        }
        self.seen.insert(view.miner, now);
    }

    /// How many sectors live, how many of them are faulty, and in how many partitions sectors are.
    fn deadlines(&self, state: &State) -> (u64, u64, u64) {
        let (mut live, mut faulty, mut count) = (0, 0, 0);
        for deadline in 0..self.sim.policy.wpost_period_deadlines {
            for (_, partition) in self.sim.partitions(state, deadline) {
                live += partition.live_sectors().len();
                faulty += partition.faults.len();
                count += 1;
            }
        }
        (live, faulty, count)
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

    /// One epoch, or a few more if they are null rounds.
    fn step(&mut self) {
        for miner in self.miners.clone() {
            let view = self.view(miner);
            self.look(&view);
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
            // What a fork takes back was done by no call.
            self.seen.clear();
        }
        self.settle(20);
    }

    /// Counts the messages that no fork throws out any more.
    fn settle(&mut self, depth: i64) {
        let now = self.sim.epoch();
        let (old, young) = self.waiting.drain(..).partition(|(sent, ..)| sent + depth <= now);
        self.waiting = young;
        for (_, cid, call) in old {
            let Some(landed) = self.sim.devnet.landed(&cid) else { continue };
            let count = self.counts.entry(call).or_default();
            match landed.receipt.exit_code.value() {
                0 => count.0 += 1,
                16..=19 | 21..=23 | 1001.. => count.1 += 1,
                20 if call == ("miner", 32) && OF_DEAD.iter().any(|text| landed.error.contains(text)) => count.1 += 1,
                // An illegal state, a failed assertion or broken balances: a defect of the devnet.
                other => self.defects.push(format!("{call:?} ended with {other}: {}", landed.error)),
            }
        }
    }
}

/// What comes of asking for a longer life of sectors that are dead or faulty. The actor calls it an illegal state: it looks
/// into its queue first, and only then whether they are active.
const OF_DEAD: [&str; 4] = [
    "refusing to replace inactive sectors",
    "some sectors not found in expiration queue",
    "with an early expiration",
    "expiration set power underflow",
];

fn all_funds(sim: &Sim) -> TokenAmount {
    (0..1100).map(|id| sim.balance(id)).sum()
}

fn run(seed: u64, epochs: i64) -> Run {
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
    assert_eq!(run.defects, Vec::<String>::new(), "seed {seed}");
    run
}

/// Every method is called and succeeds, every one that can is refused too, and what they change does change.
#[test]
fn the_books_agree_after_every_epoch() {
    let (mut counts, mut effects) = (Counts::new(), Effects::new());
    for seed in [1, 2, 3] {
        let run = run(seed, 2000);
        let power: Vec<u64> = run.miners.iter().map(|id| run.sim.power(*id)).collect();
        println!("seed {seed}: {} forks, {} null rounds, power {power:?}", run.forks, run.null_rounds);
        println!("calls that succeeded, and that were refused: {:?}", run.counts);
        println!("changes: {:?}", run.effects);
        for (call, (good, bad)) in run.counts {
            let count = counts.entry(call).or_default();
            count.0 += good;
            count.1 += bad;
        }
        for (what, times) in run.effects {
            *effects.entry(what).or_default() += times;
        }
    }
    let of_miners = [2, 3, 4, 5, 9, 10, 11, 16, 18, 19, 20, 21, 22, 23, 24, 28, 30, 31, 32, 34, 35, 36];
    for call in of_miners.map(|method| ("miner", method)).into_iter().chain([("power", 2)]) {
        let (good, bad) = counts.get(&call).copied().unwrap_or_default();
        assert!(good > 0, "{call:?}: {counts:?}");
        assert!(bad > 0 || matches!(call, ("miner", 2 | 31)), "{call:?}: {counts:?}");
    }
    for what in CHANGES {
        assert!(effects.contains_key(what), "{what}: {effects:?}");
    }
}

/// What has to change in such a run.
const CHANGES: [&str; 14] = [
    "the worker",
    "the worker to come",
    "the owner",
    "the beneficiary",
    "the quota that is used",
    "the peer",
    "the addresses",
    "less debt",
    "less pledge",
    "more sectors",
    "fewer sectors",
    "more faults",
    "fewer faults of as many sectors",
    "fewer partitions",
];

/// The checks are there for whoever runs a devnet.
#[test]
fn a_node_says_that_its_books_agree() {
    let sim = Sim::new(short(), 2, fil(1000));
    sim.create_miner(1000, 1001, fil(10));
    assert_eq!(sim.devnet.call("Devnet.Check", json!([])).unwrap(), json!([]));
}
