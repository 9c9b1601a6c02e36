//! A chain in memory.

use crate::{
    ActorId, Address, DeadlineIndex, Epoch, Error, SealProofType, SectorId, SectorNumber, SectorSet, SectorSize,
    TokenAmount,
    chain::{
        BoxStream, Call, ChainClient, ChainError, ChainErrorKind, DeadlineInfo, DeadlineState, HeadChange, MessageId,
        MessageState, MinerInfo, NetworkInfo, OnChain, PartitionSectors, PartitionState, RandomnessKind, Receipt,
        SectorInfo, SubmitKey, TipsetKey, TipsetRef,
    },
    verify::Randomness,
};
use async_trait::async_trait;
use cid::Cid;
use futures::{StreamExt, stream};
use multihash::Multihash;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::watch;

const PERIOD: i64 = 2880;
const WINDOW: i64 = 60;
const CHALLENGE_DELAY: i64 = 10;

/// A chain of one miner that lives in memory. It moves when [`InMemoryChain::tick`] is called: messages land in the
/// next tipset, and what they did shows from the one after it on. It checks nothing that an actor would check, unless
/// told to fail. Every read sees the state at the head, whichever tipset it names.
#[derive(Debug)]
pub struct InMemoryChain {
    miner: ActorId,
    state: Mutex<State>,
    heads: watch::Sender<Epoch>,
}

/// A call that landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LandedCall {
    /// Its key.
    pub key: SubmitKey,
    /// The call.
    pub call: Call,
    /// The epoch of its tipset.
    pub epoch: Epoch,
    /// The exit code.
    pub exit_code: i64,
}

#[derive(Debug)]
struct State {
    head: Epoch,
    unavailable: bool,
    held: bool,
    draw: u64,
    exit_codes: Vec<i64>,
    pending: Vec<(SubmitKey, Call)>,
    /// Calls of the head, whose effects show at the next one.
    executed: Vec<(Call, Epoch)>,
    known: BTreeMap<SubmitKey, Option<(Epoch, i64)>>,
    landed: Vec<LandedCall>,
    sectors: BTreeMap<SectorNumber, OnChain>,
    deadlines: BTreeMap<DeadlineIndex, DeadlineState>,
}

impl InMemoryChain {
    /// A chain at height 1,000 with one miner of 2 KiB sectors.
    pub fn new(miner: ActorId) -> Self {
        let head = Epoch(1000);
        let state = State {
            head,
            unavailable: false,
            held: false,
            draw: 0,
            exit_codes: Vec::new(),
            pending: Vec::new(),
            executed: Vec::new(),
            known: BTreeMap::new(),
            landed: Vec::new(),
            sectors: BTreeMap::new(),
            deadlines: BTreeMap::new(),
        };
        Self { miner, state: Mutex::new(state), heads: watch::Sender::new(head) }
    }

    /// Adds this many tipsets; pending calls land in the first.
    pub fn tick(&self, epochs: i64) {
        for _ in 0..epochs {
            let mut state = self.state.lock();
            state.head = state.head + 1;
            let head = state.head;
            for (call, epoch) in std::mem::take(&mut state.executed) {
                apply(&mut state, &call, epoch);
            }
            if head.0.rem_euclid(WINDOW) == 0 {
                state.deadlines.values_mut().for_each(|d| d.proven.clear());
            }
            let landing = if state.held { Vec::new() } else { std::mem::take(&mut state.pending) };
            for (key, call) in landing {
                let exit_code = state.exit_codes.pop().unwrap_or(0);
                if exit_code == 0 {
                    state.executed.push((call.clone(), head));
                }
                state.known.insert(key.clone(), Some((head, exit_code)));
                state.landed.push(LandedCall { key, call, epoch: head, exit_code });
            }
            drop(state);
            self.heads.send_replace(head);
        }
    }

    /// Makes the next call that lands end with this exit code.
    pub fn next_exit_code(&self, code: i64) {
        self.state.lock().exit_codes.insert(0, code);
    }

    /// Makes every call fail with [`ChainErrorKind::Unavailable`], or ends that.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.state.lock().unavailable = unavailable;
    }

    /// Keeps calls from landing, or ends that.
    pub fn set_held(&self, held: bool) {
        self.state.lock().held = held;
    }

    /// Makes all randomness another, as a reorganisation from the first epoch on would.
    pub fn redraw(&self) {
        self.state.lock().draw += 1;
    }

    /// How many calls wait to land.
    pub fn pending(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Sets what a deadline holds.
    pub fn set_deadline(&self, index: DeadlineIndex, deadline: DeadlineState) {
        self.state.lock().deadlines.insert(index, deadline);
    }

    /// Sets how far a sector is.
    pub fn set_sector(&self, number: SectorNumber, on_chain: OnChain) {
        self.state.lock().sectors.insert(number, on_chain);
    }

    /// Everything that landed, in order.
    pub fn landed_calls(&self) -> Vec<LandedCall> {
        self.state.lock().landed.clone()
    }

    fn read<T>(
        &self,
        op: &'static str,
        act: impl FnOnce(&mut State) -> Result<T, ChainError>,
    ) -> Result<T, ChainError> {
        let mut state = self.state.lock();
        if state.unavailable { Err(Error::new(ChainErrorKind::Unavailable, op)) } else { act(&mut state) }
    }

    fn check_miner(&self, op: &'static str, miner: ActorId) -> Result<(), ChainError> {
        if miner == self.miner { Ok(()) } else { Err(Error::new(ChainErrorKind::NotFound, op).with("miner", miner)) }
    }
}

fn tipset(epoch: Epoch) -> TipsetRef {
    let digest = blake2b_simd::Params::new().hash_length(32).hash(&epoch.0.to_be_bytes());
    let hash = Multihash::wrap(0xb220, digest.as_bytes()).expect("32 bytes fit");
    TipsetRef { epoch, key: TipsetKey(vec![Cid::new_v1(0x71, hash)]) }
}

fn apply(state: &mut State, call: &Call, epoch: Epoch) {
    match call {
        Call::PreCommit(batch) => {
            for sector in &batch.sectors {
                let on_chain = OnChain::PreCommitted {
                    comm_r: sector.comm_r,
                    ticket_epoch: sector.ticket_epoch,
                    epoch,
                    expiration: sector.expiration,
                };
                state.sectors.insert(sector.number, on_chain);
            }
        }
        Call::ProveCommit(batch) => batch.sectors.iter().for_each(|s| activate(state, s.number, epoch)),
        Call::SubmitWindowedPoSt(post) => {
            let deadline = state.deadlines.entry(post.deadline).or_default();
            for proven in &post.partitions {
                deadline.proven.push(proven.index.0);
                let index = usize::try_from(proven.index.0).unwrap_or(usize::MAX);
                if let Some(partition) = deadline.partitions.get_mut(index) {
                    partition.faulty = partition.faulty.minus(&partition.recovering).union(&proven.skipped);
                    partition.recovering = SectorSet::new();
                }
            }
        }
        Call::DeclareFaults(call) => {
            for part in &call.faults {
                with_partition(state, part, |p| p.faulty = p.faulty.union(&part.sectors));
            }
        }
        Call::DeclareFaultsRecovered(call) => {
            for part in &call.recoveries {
                with_partition(state, part, |p| p.recovering = p.recovering.union(&part.sectors));
            }
        }
        Call::ProveCommitAggregate(batch) => batch.sectors.iter().for_each(|s| activate(state, s.number, epoch)),
        // The other calls are taken, and change nothing here.
        _ => {}
    }
}

fn with_partition(state: &mut State, part: &PartitionSectors, act: impl FnOnce(&mut PartitionState)) {
    let index = usize::try_from(part.partition.0).unwrap_or(usize::MAX);
    let deadline = state.deadlines.entry(part.deadline).or_default();
    if let Some(partition) = deadline.partitions.get_mut(index) {
        act(partition);
    }
}

/// An activated sector goes to the deadline after the next one, as the first partition has room for all.
fn activate(state: &mut State, number: SectorNumber, epoch: Epoch) {
    let Some(OnChain::PreCommitted { comm_r, expiration, .. }) = state.sectors.get(&number).cloned() else {
        return;
    };
    let info = SectorInfo {
        number,
        seal_proof: SealProofType::of(SectorSize::KiB2),
        comm_r,
        activation: epoch,
        expiration,
        initial_pledge: TokenAmount::from_fil(1),
    };
    state.sectors.insert(number, OnChain::Active(info));
    let index = (epoch.0.rem_euclid(PERIOD) / WINDOW + 2).rem_euclid(PERIOD / WINDOW);
    let deadline = state.deadlines.entry(DeadlineIndex(index.unsigned_abs())).or_default();
    if deadline.partitions.is_empty() {
        deadline.partitions.push(PartitionState::default());
    }
    for partition in deadline.partitions.iter_mut().take(1) {
        partition.all.insert(number);
        partition.live.insert(number);
        partition.active.insert(number);
    }
}

#[async_trait]
impl ChainClient for InMemoryChain {
    async fn head(&self) -> Result<TipsetRef, ChainError> {
        self.read("read head", |state| Ok(tipset(state.head)))
    }

    fn head_changes(&self) -> BoxStream<HeadChange> {
        let start = (self.heads.subscribe(), None::<Epoch>);
        let changes = stream::unfold(start, |(mut heads, last)| async move {
            let batch = match last {
                None => vec![*heads.borrow_and_update()],
                Some(last) => {
                    // A chain that was dropped moves no more: wait for ever, as for a node that is gone.
                    if heads.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    let now = *heads.borrow_and_update();
                    (last.0 + 1..=now.0).map(Epoch).collect()
                }
            };
            let last = batch.last().copied().or(last);
            let applied: Vec<_> = batch.into_iter().map(|e| HeadChange::Apply(tipset(e))).collect();
            Some((stream::iter(applied), (heads, last)))
        });
        changes.flatten().boxed()
    }

    async fn network(&self, _: &TipsetRef) -> Result<NetworkInfo, ChainError> {
        self.read("read network", |_| {
            Ok(NetworkInfo {
                name: "devnet-fake-memory".to_owned(),
                version: 28,
                block_delay_secs: 1,
                pre_commit_challenge_delay: CHALLENGE_DELAY,
                ticket_lookback: 900,
            })
        })
    }

    async fn miner(&self, _: &TipsetRef, miner: ActorId) -> Result<MinerInfo, ChainError> {
        self.read("read miner", |_| {
            self.check_miner("read miner", miner)?;
            Ok(MinerInfo {
                miner,
                owner: Address::from_actor(ActorId(100)),
                worker: Address::from_actor(ActorId(101)),
                control: Vec::new(),
                sector_size: SectorSize::KiB2,
                seal_proof: SealProofType::of(SectorSize::KiB2),
                window_post_proof: SealProofType::of(SectorSize::KiB2).window_post(),
            })
        })
    }

    async fn randomness(
        &self,
        at: &TipsetRef,
        kind: RandomnessKind,
        epoch: Epoch,
        miner: ActorId,
    ) -> Result<Randomness, ChainError> {
        self.read("draw randomness", |state| {
            if epoch > at.epoch {
                return Err(Error::new(ChainErrorKind::Rejected, "draw randomness").with("epoch", epoch));
            }
            let text = format!("{kind:?}/{epoch}/{miner}/{}", state.draw);
            let digest = blake2b_simd::Params::new().hash_length(32).hash(text.as_bytes());
            let bytes = digest.as_bytes().try_into().expect("the digest has 32 bytes");
            Ok(Randomness(bytes))
        })
    }

    async fn sector(&self, _: &TipsetRef, id: SectorId) -> Result<OnChain, ChainError> {
        self.read("read sector", |state| {
            self.check_miner("read sector", id.miner)?;
            Ok(state.sectors.get(&id.number).cloned().unwrap_or(OnChain::Absent))
        })
    }

    async fn sectors(&self, _: &TipsetRef, miner: ActorId, numbers: &SectorSet) -> Result<Vec<SectorInfo>, ChainError> {
        self.read("read sectors", |state| {
            self.check_miner("read sectors", miner)?;
            let active = numbers.iter().filter_map(|n| match state.sectors.get(&n) {
                Some(OnChain::Active(info)) => Some(info.clone()),
                _ => None,
            });
            Ok(active.collect())
        })
    }

    async fn deadline(&self, at: &TipsetRef, miner: ActorId) -> Result<DeadlineInfo, ChainError> {
        self.read("read deadline", |_| {
            self.check_miner("read deadline", miner)?;
            let period_start = Epoch(at.epoch.0.div_euclid(PERIOD) * PERIOD);
            let index = (at.epoch - period_start) / WINDOW;
            let open = period_start + index * WINDOW;
            Ok(DeadlineInfo {
                current: at.epoch,
                period_start,
                index: DeadlineIndex(index.unsigned_abs()),
                open,
                close: open + WINDOW,
                challenge: open - 20,
                fault_cutoff: open - 70,
                deadlines: 48,
                proving_period: PERIOD,
                challenge_window: WINDOW,
                challenge_lookback: 20,
                fault_declaration_cutoff: 70,
            })
        })
    }

    async fn partitions(
        &self,
        _: &TipsetRef,
        miner: ActorId,
        deadline: DeadlineIndex,
    ) -> Result<DeadlineState, ChainError> {
        self.read("read partitions", |state| {
            self.check_miner("read partitions", miner)?;
            Ok(state.deadlines.get(&deadline).cloned().unwrap_or_default())
        })
    }

    async fn submit(&self, key: &SubmitKey, call: &Call) -> Result<MessageId, ChainError> {
        self.read("submit", |state| {
            if !state.known.contains_key(key) {
                state.known.insert(key.clone(), None);
                state.pending.push((key.clone(), call.clone()));
            }
            Ok(MessageId::new(key.0.clone()))
        })
    }

    async fn message(&self, id: &MessageId, confidence: i64) -> Result<MessageState, ChainError> {
        self.read("read message", |state| {
            let key = SubmitKey(id.as_str().to_owned());
            let not_found = || Error::new(ChainErrorKind::NotFound, "read message").with("message", id);
            match state.known.get(&key).ok_or_else(not_found)? {
                Some((epoch, exit_code)) if state.head - *epoch >= confidence.max(1) => {
                    Ok(MessageState::Landed(Receipt {
                        message: id.to_string(),
                        exit_code: *exit_code,
                        returned: Vec::new(),
                        error: None,
                        epoch: *epoch,
                        created: None,
                    }))
                }
                _ => Ok(MessageState::Pending { trouble: None }),
            }
        })
    }
}
