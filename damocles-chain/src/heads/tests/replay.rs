//! What a subscriber is told, over random histories of a node that is as bad as they get.
//!
//! A history is a random walk of a node's head over a random tree with null rounds. Its notifications are lost, doubled
//! and told in another order; connections break; questions fail; a second node that stands in for the first is behind or
//! on a fork of its own; tipsets are not found and have wrong heights; subscribers are slow. Whatever happens, what each
//! of them is told is a walk over the tree, it tells nothing more often than it happened, and it ends at the head.

use super::super::{
    Heads, Pace,
    link::{Head, Link},
    source::{HeadSource, News},
};
use crate::rpc::FeedError;
use async_trait::async_trait;
use damocles_core::{
    CommP, Epoch,
    chain::{BoxStream, ChainError, ChainErrorKind, HeadChange, TipsetKey, TipsetRef},
};
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;

const HISTORIES: u64 = 100_000;
const DEEPEST: usize = 20;

/// Tipsets by their number; each knows its parent's.
struct Tree {
    links: Vec<Link>,
    parents: Vec<Option<usize>>,
}

impl Tree {
    fn grow(&mut self, parent: Option<usize>, epoch: i64) -> usize {
        let n = self.links.len();
        let mut digest = [1; 32];
        digest[..8].copy_from_slice(&u64::try_from(n).unwrap().to_le_bytes());
        let key = TipsetKey(vec![CommP(digest).cid()]);
        let parents = parent.map(|p| self.links[p].at.key.clone());
        self.links.push(Link { at: TipsetRef { epoch: Epoch(epoch), key }, parents });
        self.parents.push(parent);
        n
    }

    fn path(&self, mut at: usize) -> Vec<usize> {
        let mut path = vec![at];
        while let Some(parent) = self.parents[at] {
            at = parent;
            path.push(at);
        }
        path
    }
}

struct World {
    tree: Tree,
    by_key: HashMap<TipsetKey, usize>,
    /// The heads of both nodes.
    heads: [usize; 2],
    followed: usize,
    /// How often each tipset became part of the chain that is followed.
    entered: Vec<u32>,
    notices: VecDeque<Vec<Link>>,
    connected: bool,
    random: ChaCha8Rng,
    /// How many questions in a hundred fail.
    failing: u32,
    /// How many answers in a hundred deny a tipset, and how many name a wrong height.
    lying: u32,
    /// How often a tipset was denied or had a wrong height.
    lies: u32,
    /// Nothing goes wrong any more, and silences are noticed.
    ending: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut tree = Tree { links: Vec::new(), parents: Vec::new() };
        let mut at = tree.grow(None, 0);
        for _ in 0..random.gen_range(1..=DEEPEST) {
            let epoch = tree.links[at].at.epoch.0 + 1 + null_rounds(&mut random);
            at = tree.grow(Some(at), epoch);
        }
        let failing = if random.gen_bool(0.5) { 0 } else { 20 };
        let lying = if random.gen_bool(0.5) { 0 } else { 5 };
        let mut world = Self {
            by_key: HashMap::new(),
            heads: [at, at],
            followed: 0,
            entered: vec![0; tree.links.len()],
            tree,
            notices: VecDeque::new(),
            connected: false,
            random,
            failing,
            lying,
            lies: 0,
            ending: false,
        };
        world.name_all();
        world.enter(None, at);
        world
    }

    fn name_all(&mut self) {
        for n in self.by_key.len()..self.tree.links.len() {
            self.by_key.insert(self.tree.links[n].at.key.clone(), n);
        }
        self.entered.resize(self.tree.links.len(), 0);
    }

    /// Counts what becomes part of the followed chain.
    fn enter(&mut self, from: Option<usize>, to: usize) {
        let old = from.map(|from| self.tree.path(from)).unwrap_or_default();
        for n in self.tree.path(to) {
            if !old.contains(&n) {
                self.entered[n] += 1;
            }
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        !self.ending && self.random.gen_range(0..100) < percent
    }

    /// A tipset as it is told: now and then with a wrong height.
    fn tell_of(&mut self, n: usize) -> Link {
        let mut link = self.tree.links[n].clone();
        if self.chance(self.lying) {
            let most = if self.random.gen_bool(0.5) { 100 } else { 10_000_000 };
            let wrong = if self.random.gen_bool(0.5) { -1 } else { 1 } * self.random.gen_range(1..=most);
            link.at.epoch.0 += wrong;
            self.lies += 1;
        }
        link
    }

    /// Moves a node's head: back by some tipsets, and on along a new branch.
    fn move_head(&mut self, node: usize) {
        let depth = match self.random.gen_range(0..10) {
            0..6 => 0,
            6..9 => self.random.gen_range(1..=3),
            _ => self.random.gen_range(1..=DEEPEST),
        };
        let from = self.heads[node];
        let path = self.tree.path(from);
        let base = path[depth.min(path.len() - 1)];
        let gone: Vec<usize> = path.iter().copied().take_while(|n| *n != base).collect();
        let mut batch: Vec<Link> = gone.into_iter().map(|n| self.tell_of(n)).collect();
        let mut at = base;
        // Rarely, an operator sets the head back.
        let grown = if self.random.gen_bool(0.02) { 0 } else { self.random.gen_range(1..=3) };
        for _ in 0..grown {
            let epoch = self.tree.links[at].at.epoch.0 + 1 + null_rounds(&mut self.random);
            at = self.tree.grow(Some(at), epoch);
            batch.push(self.tell_of(at));
        }
        self.name_all();
        self.heads[node] = at;
        if node == self.followed {
            self.enter(Some(from), at);
            if self.connected {
                self.tell(batch);
            }
        }
    }

    /// Tells a notification: whole or in pieces, each of which may be lost, doubled or overtaken.
    fn tell(&mut self, batch: Vec<Link>) {
        let pieces: Vec<Vec<Link>> =
            if self.random.gen_bool(0.5) { vec![batch] } else { batch.into_iter().map(|l| vec![l]).collect() };
        for piece in pieces {
            if self.chance(15) {
                continue;
            }
            if self.chance(15) {
                self.notices.push_back(piece.clone());
            }
            let place =
                if self.chance(15) { self.random.gen_range(0..=self.notices.len()) } else { self.notices.len() };
            self.notices.insert(place, piece);
        }
    }

    /// The other node is followed from now on: it is behind, ahead, or on a fork.
    fn switch(&mut self) {
        let (old, new) = (self.followed, 1 - self.followed);
        if self.random.gen_bool(0.5) {
            let path = self.tree.path(self.heads[old]);
            self.heads[new] = path[self.random.gen_range(0..path.len().min(4))];
        } else {
            self.move_head(new);
        }
        self.followed = new;
        self.enter(Some(self.heads[old]), self.heads[new]);
        self.disconnect();
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.notices.clear();
    }
}

fn null_rounds(random: &mut ChaCha8Rng) -> i64 {
    if random.gen_bool(0.3) { random.gen_range(1..=4) } else { 0 }
}

/// A node, or two of them, as the script has it.
struct FakeSource {
    world: Mutex<World>,
    news: Notify,
}

impl std::fmt::Debug for FakeSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeSource")
    }
}

fn away() -> ChainError {
    ChainError::new(ChainErrorKind::Unavailable, "ask node")
}

struct FakeNews(Arc<FakeSource>);

#[async_trait]
impl News for FakeNews {
    async fn next(&mut self, silence: Duration) -> Result<Option<Vec<Link>>, FeedError> {
        loop {
            let is_over = {
                let mut world = self.0.world.lock();
                if !world.connected {
                    return Err(FeedError::Lost(away()));
                }
                if let Some(notice) = world.notices.pop_front() {
                    return Ok(Some(notice));
                }
                world.ending || silence.is_zero()
            };
            if is_over {
                tokio::task::yield_now().await;
                return Ok(None);
            }
            self.0.news.notified().await;
        }
    }
}

/// The source that is given away: it hands itself to its subscriptions.
#[derive(Debug)]
struct Given(Arc<FakeSource>);

#[async_trait]
impl HeadSource for Given {
    async fn head(&self) -> Result<Head, ChainError> {
        let mut world = self.0.world.lock();
        let failing = world.failing;
        if world.chance(failing) {
            return Err(away());
        }
        let from = world.followed;
        let head = world.heads[from];
        Ok(Head { link: world.tell_of(head), from })
    }

    async fn tipset(&self, key: &TipsetKey) -> Result<Link, ChainError> {
        let mut world = self.0.world.lock();
        let failing = world.failing;
        if world.chance(failing) {
            return Err(away());
        }
        let lying = world.lying;
        if world.chance(lying) {
            world.lies += 1;
            return Err(ChainError::new(ChainErrorKind::NotFound, "read tipset"));
        }
        let there = world.by_key.get(key).copied();
        let n = there.ok_or_else(|| ChainError::new(ChainErrorKind::NotFound, "read tipset"))?;
        Ok(world.tell_of(n))
    }

    fn doubt(&self, _: &TipsetKey) {}

    async fn subscribe(&self) -> Result<Box<dyn News>, FeedError> {
        let mut world = self.0.world.lock();
        let failing = world.failing;
        if world.chance(failing) {
            return Err(FeedError::Lost(away()));
        }
        if world.chance(3) {
            return Err(FeedError::Unsupported(away()));
        }
        world.connected = true;
        let current = vec![world.tree.links[world.heads[world.followed]].clone()];
        world.notices = VecDeque::from([current]);
        Ok(Box::new(FakeNews(Arc::clone(&self.0))))
    }
}

/// A subscriber, and what it makes of what it is told.
struct Reader {
    changes: BoxStream<HeadChange>,
    tip: Option<usize>,
    /// The height at which the tip was applied, if that was the last change.
    height: Option<i64>,
    told: HashMap<usize, u32>,
    reverts: u64,
}

/// How much was told in all.
#[derive(Clone, Copy, Default)]
struct Sum {
    applies: u64,
    reverts: u64,
}

impl Reader {
    fn new(heads: &Heads) -> Self {
        Self { changes: heads.changes(), tip: None, height: None, told: HashMap::new(), reverts: 0 }
    }

    fn take(&mut self, world: &World, change: &HeadChange) -> Result<(), String> {
        let number = |t: &TipsetRef| world.by_key.get(&t.key).copied().ok_or("an unknown tipset");
        match (change, self.tip) {
            (HeadChange::Apply(t), None) => (self.tip, self.height) = (Some(number(t)?), Some(t.epoch.0)),
            (HeadChange::Apply(t), Some(tip)) => {
                let n = number(t)?;
                if world.tree.parents[n] != Some(tip) {
                    return Err(format!("{n} is applied to {tip} and is no child of it"));
                }
                let told = self.told.entry(n).or_default();
                *told += 1;
                // What was told with a wrong height is told anew, and a head that seems to be behind may not be known to be.
                if *told > world.entered[n] + world.lies {
                    return Err(format!("{n} is applied {told} times and was the chain's {}", world.entered[n]));
                }
                (self.tip, self.height) = (Some(n), Some(t.epoch.0));
            }
            (HeadChange::Revert(t), Some(tip)) => {
                if number(t)? != tip {
                    return Err(format!("{} is reverted and {tip} is the tip", number(t)?));
                }
                self.reverts += 1;
                self.height = None;
                let parent = world.tree.parents[tip];
                // It is told anew if it was told with a wrong height.
                if parent.is_none() && world.lies == 0 {
                    return Err("the first tipset is reverted".to_owned());
                }
                self.tip = parent;
            }
            (HeadChange::Revert(_), None) => return Err("the first thing told is a revert".to_owned()),
        }
        Ok(())
    }

    /// Reads what there is to read, but not more than so many.
    fn read(&mut self, source: &FakeSource, most: usize) -> Result<(), String> {
        for _ in 0..most {
            let Some(Some(change)) = self.changes.next().now_or_never() else { break };
            self.take(&source.world.lock(), &change)?;
        }
        Ok(())
    }

    async fn read_to_head(&mut self, source: &FakeSource) -> Result<Sum, String> {
        loop {
            let (head, height) = {
                let world = source.world.lock();
                let head = world.heads[world.followed];
                (head, world.tree.links[head].at.epoch.0)
            };
            if self.tip == Some(head) && self.height.is_none_or(|told| told == height) {
                let applies = self.told.values().map(|n| u64::from(*n)).sum();
                return Ok(Sum { applies, reverts: self.reverts });
            }
            let next = tokio::time::timeout(Duration::from_secs(20), self.changes.next());
            let change = next.await.map_err(|_| format!("{head} is the head and {:?} the last told", self.tip))?;
            self.take(&source.world.lock(), &change.ok_or("the changes end")?)?;
        }
    }
}

async fn history(seed: u64) -> Result<Sum, String> {
    let source = Arc::new(FakeSource { world: Mutex::new(World::new(seed)), news: Notify::new() });
    let pace = Pace {
        poll_every: Duration::ZERO,
        silence: Duration::from_secs(1),
        first_delay: Duration::ZERO,
        last_delay: Duration::ZERO,
    };
    let heads = Heads::new(Arc::new(Given(Arc::clone(&source))), pace);
    let mut readers = vec![Reader::new(&heads)];
    let steps = source.world.lock().random.gen_range(3..=12);
    for _ in 0..steps {
        let (yields, reading, most) = {
            let mut world = source.world.lock();
            let node = world.followed;
            match world.random.gen_range(0..20) {
                0 => world.disconnect(),
                1 => world.switch(),
                2 if readers.len() < 3 => readers.push(Reader::new(&heads)),
                _ => world.move_head(node),
            }
            (world.random.gen_range(0..4), world.random.gen_range(0..4), world.random.gen_range(0..30))
        };
        source.news.notify_one();
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if let Some(reader) = readers.get_mut(reading) {
            reader.read(&source, most)?;
        }
    }
    {
        let mut world = source.world.lock();
        world.ending = true;
        // The one that is followed is no longer behind the one that was.
        let node = world.followed;
        world.move_head(node);
        world.move_head(node);
        while world.tree.links[world.heads[node]].at.epoch <= world.tree.links[world.heads[1 - node]].at.epoch {
            world.move_head(node);
        }
    }
    source.news.notify_one();
    let mut told = Sum::default();
    for reader in &mut readers {
        let Sum { applies, reverts } = reader.read_to_head(&source).await?;
        told = Sum { applies: told.applies + applies, reverts: told.reverts + reverts };
    }
    Ok(told)
}

#[test]
fn every_history_is_told_exactly() {
    let threads = 2;
    let work = |thread: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut sum = Sum::default();
            for seed in (thread..HISTORIES).step_by(threads) {
                match history(seed).await {
                    Ok(told) => {
                        sum.applies += told.applies;
                        sum.reverts += told.reverts;
                    }
                    Err(what) => panic!("history {seed}: {what}"),
                }
            }
            sum
        })
    };
    let sums: Vec<Sum> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|t| scope.spawn(move || work(u64::try_from(t).unwrap()))).collect();
        running.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let applies: u64 = sums.iter().map(|sum| sum.applies).sum();
    let reverts: u64 = sums.iter().map(|sum| sum.reverts).sum();
    assert!(
        applies > 5 * HISTORIES && reverts > HISTORIES,
        "too little is told: {applies} applied, {reverts} reverted"
    );
}
