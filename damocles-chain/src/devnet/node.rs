//! The devnet itself.

use super::{
    actors::{Actor, Actors, World, code, load_actors},
    block::{Draft, Tipset},
    chain::{Chain, Entry, Spike, Upgrade},
    clock::SHORTEST,
    config::{DevnetConfig, FIRST_HEIGHT, PoolLimits},
    error::{DevnetError, DevnetErrorKind},
    genesis,
    mempool::{Refusal, Trust},
    preseal,
    randomness::{Oracle, TicketId},
    rpc::Faults,
    signed::{SignedMessage, message_cid},
    store::{DevnetStore, Overlay},
};
use crate::lotus_json::text_of;
use cid::Cid;
use damocles_core::{
    Epoch,
    chain::{TipsetKey, TipsetRef},
    verify::ProofVerifier,
};
use fil_actors_shared::v18::{ActorError, runtime::Policy};
use fvm_ipld_encoding::{from_slice, to_vec};
use fvm_shared::{ActorID, address::Address, clock::ChainEpoch, econ::TokenAmount, receipt::Receipt};
use parking_lot::{Mutex, RwLock};
use std::{
    fmt,
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{broadcast, watch};

/// The highest base fee that can be asked for: whatever else a message costs, its price stays a number of FIL.
static MAX_BASE_FEE: LazyLock<TokenAmount> = LazyLock::new(|| TokenAmount::from_whole(1));

/// How many head changes a slow subscriber may lag behind.
const HEADS_KEPT: usize = 4096;

/// A Filecoin network in this process: real miner-actor state, every proof really verified, Lotus' JSON-RPC.
///
/// It grows when it is told to ([`Devnet::mine`], [`Devnet::advance_to`]) or by its clock ([`Devnet::run`]). What it
/// becomes depends on its configuration and on the messages that it gets, never on wall time. It holds no keys.
pub struct Devnet {
    pub(super) config: DevnetConfig,
    pub(super) store: DevnetStore,
    pub(super) verifier: Arc<dyn ProofVerifier>,
    pub(super) oracle: Oracle,
    pub(super) policy: Policy,
    pub(super) chain: RwLock<Chain>,
    /// Held while the chain grows: one block at a time.
    pub(super) growing: Mutex<()>,
    pub(super) heads: broadcast::Sender<Arc<Tipset>>,
    /// How long an epoch takes.
    pub(super) pace: watch::Sender<Duration>,
    /// What goes wrong with its RPC.
    pub(super) faults: Faults,
    /// What failed on the chain since it was opened that is never to fail, the oldest first.
    pub(super) failures: Mutex<Vec<String>>,
    paused: AtomicBool,
}

impl fmt::Debug for Devnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devnet")
            .field("network", &self.config.network_name)
            .field("store", &self.store)
            .field("head", &self.chain.read().head().height)
            .finish_non_exhaustive()
    }
}

/// A message that landed.
#[derive(Clone, Debug)]
pub struct LandedMessage {
    /// The epoch of the tipset that holds it.
    pub epoch: ChainEpoch,
    /// Its receipt.
    pub receipt: Receipt,
    /// What the actor said when it refused; empty on success.
    pub error: String,
}

/// Why a message was not taken. The text is Lotus'.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PushError(#[from] pub(super) Refusal);

impl Devnet {
    /// Opens the devnet that lives in `home`, or makes one there.
    ///
    /// # Errors
    ///
    /// If the file in `home` cannot be used, is another devnet's or is in use.
    pub fn open(config: DevnetConfig, verifier: Arc<dyn ProofVerifier>, home: &Path) -> Result<Arc<Self>, DevnetError> {
        fs_err::create_dir_all(home)
            .map_err(|e| DevnetError::new(DevnetErrorKind::Store, "make the devnet's directory").because(e))?;
        let (store, entries) = DevnetStore::open(&home.join("devnet.db"))?;
        Self::start(config, verifier, store, entries)
    }

    /// Makes a devnet that forgets everything when it is dropped.
    ///
    /// # Errors
    ///
    /// If genesis cannot be built, e.g. because an address to be funded is no account.
    pub fn in_memory(config: DevnetConfig, verifier: Arc<dyn ProofVerifier>) -> Result<Arc<Self>, DevnetError> {
        Self::start(config, verifier, DevnetStore::in_memory(), Vec::new())
    }

    fn start(
        config: DevnetConfig,
        verifier: Arc<dyn ProofVerifier>,
        store: DevnetStore,
        entries: Vec<Vec<u8>>,
    ) -> Result<Arc<Self>, DevnetError> {
        config.check()?;
        let oracle = Oracle::new(config.genesis_seed);
        let policy = config.policy.policy();
        let mut chain = match replay(&config, &entries)? {
            Some(mut chain) => {
                let head = chain.head();
                chain.actors = Arc::new(load_actors(&store, &head.state).map_err(state_error)?);
                chain
            }
            None => found(&config, &store, &oracle, &policy, verifier.as_ref())?,
        };
        chain.scheduled = config.upgrades.iter().copied().collect();
        let pace = watch::Sender::new(config.epoch_duration.max(SHORTEST));
        let devnet = Self {
            config,
            store,
            verifier,
            oracle,
            policy,
            chain: RwLock::new(chain),
            growing: Mutex::new(()),
            heads: broadcast::Sender::new(HEADS_KEPT),
            pace,
            faults: Faults::default(),
            failures: Mutex::default(),
            paused: AtomicBool::new(false),
        };
        devnet.fund_new()?;
        if devnet.chain.read().head().height < FIRST_HEIGHT {
            devnet.grow_to(FIRST_HEIGHT)?;
        }
        devnet.pre_seal()?;
        Ok(Arc::new(devnet))
    }

    /// Credits the accounts of the configuration that were never credited.
    fn fund_new(&self) -> Result<(), DevnetError> {
        let fund: Vec<(Address, TokenAmount)> = {
            let chain = self.chain.read();
            let new = self.config.fund.iter().filter(|(a, _)| !chain.funded.contains(&text_of(a)));
            new.cloned().collect()
        };
        if fund.is_empty() {
            return Ok(());
        }
        let _growing = self.growing.lock();
        let (head, actors) = self.tip();
        let overlay = Overlay::new(&self.store);
        let ticket_at = |epoch| self.ticket_at(epoch);
        let mut world = self.world(&overlay, &ticket_at, head.height, &actors);
        genesis::fund_accounts(&mut world, &fund).map_err(state_error)?;
        let state = world.flush(Some((&head.state, &actors))).map_err(state_error)?;
        let funded: Vec<String> = fund.iter().map(|(a, _)| text_of(a)).collect();
        let entry = Entry::Fund { funded: funded.clone(), state };
        let actors = world.actors;
        self.commit(&encode(&entry)?, overlay.reachable([state]), actors, |chain| {
            chain.funded.extend(funded);
            chain.replace_head_state(state);
        })?;
        // Reads see the funds only from the next tipset on.
        let next = self.chain.read().head().height + 1;
        self.grow(next)
    }

    /// Makes the miners that the network begins with, if it just began.
    fn pre_seal(&self) -> Result<(), DevnetError> {
        let (head, actors) = self.tip();
        let is_miner = |a: &Actor| a.code == code::of(code::MINER);
        if self.config.miners.is_empty() || head.height != FIRST_HEIGHT || actors.values().any(is_miner) {
            return Ok(());
        }
        let _growing = self.growing.lock();
        let overlay = Overlay::new(&self.store);
        let ticket_at = |epoch| self.ticket_at(epoch);
        let mut world = self.world(&overlay, &ticket_at, head.height, &actors);
        for (index, miner) in self.config.miners.iter().enumerate() {
            preseal::make(&mut world, index, miner).map_err(state_error)?;
        }
        let state = world.flush(Some((&head.state, &actors))).map_err(state_error)?;
        let entry = Entry::Fund { funded: Vec::new(), state };
        let actors = world.actors;
        self.commit(&encode(&entry)?, overlay.reachable([state]), actors, |chain| chain.replace_head_state(state))?;
        self.grow(FIRST_HEIGHT + 1)
    }

    /// The current head.
    pub fn head(&self) -> TipsetRef {
        reference(&self.chain.read().head())
    }

    /// The network's name.
    pub fn network_name(&self) -> &str {
        &self.config.network_name
    }

    /// Stops the clock; the head does not move any more when this returns.
    pub fn pause(&self) {
        let _growing = self.growing.lock();
        self.paused.store(true, Ordering::SeqCst);
    }

    /// Starts the clock again.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }

    /// Whether the clock stands still.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Takes a message into the pool, durably.
    ///
    /// # Errors
    ///
    /// If it can never land.
    pub fn push(&self, message: SignedMessage) -> Result<Cid, PushError> {
        Ok(self.accept(message, Trust::Local)?)
    }

    /// Takes a message into the pool from somebody who is not trusted: without a wide gap of nonces, and not many at a
    /// time.
    ///
    /// # Errors
    ///
    /// If it can never land, or not soon.
    pub fn push_untrusted(&self, message: SignedMessage) -> Result<Cid, PushError> {
        Ok(self.accept(message, Trust::Untrusted)?)
    }

    /// The base fee of the next tipset.
    pub fn base_fee(&self) -> TokenAmount {
        self.chain.read().next_base_fee()
    }

    /// Sets the base fee of the next tipsets, whatever the chain says. After them it goes on from there.
    ///
    /// # Errors
    ///
    /// If it is below the protocol's minimum or cannot be recorded.
    pub fn spike_base_fee(&self, base_fee: TokenAmount, tipsets: u64) -> Result<(), DevnetError> {
        if base_fee < super::fees::minimum_base_fee() || base_fee > *MAX_BASE_FEE {
            return Err(DevnetError::new(DevnetErrorKind::Refused, "set the base fee")
                .with("reason", "it is not between 100 attoFIL and 1 FIL"));
        }
        let spike = (tipsets > 0).then_some(Spike { base_fee, left: tipsets });
        let Some(spike) = spike else { return Ok(()) };
        let mut chain = self.chain.write();
        self.store.append(&encode(&Entry::BaseFee(spike.clone()))?, Vec::new())?;
        chain.spike = Some(spike);
        Ok(())
    }

    /// Has the network say that it is another version from an epoch on. Nothing else about it changes: this is for
    /// clients, which must not send what they do not know the form of.
    ///
    /// # Errors
    ///
    /// If the epoch has gone by, or the change cannot be recorded.
    pub fn upgrade(&self, version: u32, height: ChainEpoch) -> Result<(), DevnetError> {
        let mut chain = self.chain.write();
        if height <= chain.head().height {
            return Err(DevnetError::new(DevnetErrorKind::Refused, "change the network version")
                .with("height", height)
                .with("reason", "the epoch has gone by"));
        }
        let upgrade = Upgrade { version, height };
        self.store.append(&encode(&Entry::Upgrade(upgrade))?, Vec::new())?;
        chain.upgrades.push(upgrade);
        Ok(())
    }

    /// Writes all of it into a new file at `path`: [`Devnet::restore`] and [`Devnet::restore_into`] go on from there.
    ///
    /// # Errors
    ///
    /// If there is a file already, or it cannot be written.
    pub fn snapshot(&self, path: &Path) -> Result<TipsetRef, DevnetError> {
        let _growing = self.growing.lock();
        // Nothing is appended while the chain is read.
        let chain = self.chain.read();
        self.store.snapshot(path)?;
        Ok(reference(&chain.head()))
    }

    /// Goes on from a snapshot, in memory.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is damaged, or is another devnet's.
    pub fn restore(
        config: DevnetConfig,
        verifier: Arc<dyn ProofVerifier>,
        snapshot: &Path,
    ) -> Result<Arc<Self>, DevnetError> {
        let (store, entries) = DevnetStore::load(snapshot)?;
        Self::start(config, verifier, store, entries)
    }

    /// Goes on from a snapshot in `home`, where no devnet may be yet.
    ///
    /// # Errors
    ///
    /// If there is one, or the snapshot cannot be read, is damaged, or is another devnet's.
    pub fn restore_into(
        config: DevnetConfig,
        verifier: Arc<dyn ProofVerifier>,
        snapshot: &Path,
        home: &Path,
    ) -> Result<Arc<Self>, DevnetError> {
        let failed = |e: std::io::Error| {
            DevnetError::new(DevnetErrorKind::Store, "copy a snapshot").with("path", home.display()).because(e)
        };
        fs_err::create_dir_all(home).map_err(failed)?;
        let file = home.join("devnet.db");
        if file.exists() {
            return Err(DevnetError::new(DevnetErrorKind::Refused, "copy a snapshot")
                .with("path", file.display())
                .with("reason", "there is a devnet already"));
        }
        // Under another name first: a copy that a kill cut off is no devnet.
        let part = home.join("devnet.db.part");
        fs_err::copy(snapshot, &part).map_err(failed)?;
        fs_err::rename(&part, &file).map_err(failed)?;
        Self::open(config, verifier, home)
    }

    /// What became of a message, once a tipset holds it.
    pub fn landed(&self, cid: &Cid) -> Option<LandedMessage> {
        let (tipset, executed) = self.chain.read().message(cid)?;
        Some(LandedMessage { epoch: tipset.height, receipt: executed.receipt, error: executed.error })
    }

    /// The head with the actors in its state.
    pub(super) fn tip(&self) -> (Arc<Tipset>, Arc<Actors>) {
        let chain = self.chain.read();
        (chain.head(), Arc::clone(&chain.actors))
    }

    pub(super) fn world<'w>(
        &'w self,
        overlay: &'w Overlay<'w>,
        ticket_at: &'w dyn Fn(ChainEpoch) -> TicketId,
        epoch: ChainEpoch,
        actors: &Actors,
    ) -> World<'w> {
        World {
            store: overlay,
            policy: &self.policy,
            parameters: &self.config.policy,
            oracle: &self.oracle,
            verifier: self.verifier.as_ref(),
            ticket_at,
            epoch,
            actors: actors.clone(),
            undo: None,
            failures: Vec::new(),
        }
    }
}

/// A tipset as the rest of the workspace names it.
pub(super) fn reference(tipset: &Tipset) -> TipsetRef {
    TipsetRef { epoch: Epoch(tipset.height), key: TipsetKey(vec![tipset.cid]) }
}

pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>, DevnetError> {
    to_vec(entry).map_err(|e| DevnetError::new(DevnetErrorKind::State, "encode a record").because(e))
}

pub(super) fn state_error(e: ActorError) -> DevnetError {
    DevnetError::new(DevnetErrorKind::State, "work on the state").because(e)
}

/// Rebuilds a chain from its records.
fn replay(config: &DevnetConfig, entries: &[Vec<u8>]) -> Result<Option<Chain>, DevnetError> {
    let mut chain: Option<Chain> = None;
    for bytes in entries {
        let entry: Entry =
            from_slice(bytes).map_err(|e| DevnetError::new(DevnetErrorKind::Corrupt, "read a record").because(e))?;
        match (&mut chain, entry) {
            (None, Entry::Genesis { network, seed, funded, tipset, parameters }) => {
                let mismatch = || {
                    DevnetError::new(DevnetErrorKind::Mismatch, "open the devnet")
                        .with("network", &network)
                        .with("wanted", &config.network_name)
                        .hint_with("use another home directory for another network")
                };
                if network != config.network_name || seed != config.genesis_seed {
                    return Err(mismatch());
                }
                if !config.policy.matches(&parameters) {
                    return Err(mismatch().with("policy", parameters));
                }
                chain = Some(Chain::new(tipset, funded));
            }
            (Some(chain), Entry::Tipset(tipset)) => chain.grow(tipset),
            (Some(chain), Entry::Push { from, message }) => restore_push(chain, from, &message, &config.pool)?,
            (Some(chain), Entry::Fund { funded, state }) => {
                chain.funded.extend(funded);
                chain.replace_head_state(state);
            }
            (Some(chain), Entry::Fork(fork)) => chain.fork(fork),
            (Some(chain), Entry::BaseFee(spike)) => chain.spike = Some(spike),
            (Some(chain), Entry::Upgrade(upgrade)) => chain.upgrades.push(upgrade),
            (Some(_), Entry::Blocks) => {}
            _ => return Err(DevnetError::new(DevnetErrorKind::Corrupt, "read a record").with("record", "out of order")),
        }
    }
    Ok(chain)
}

fn restore_push(chain: &mut Chain, from: ActorID, bytes: &[u8], limits: &PoolLimits) -> Result<(), DevnetError> {
    let message: SignedMessage =
        from_slice(bytes).map_err(|e| DevnetError::new(DevnetErrorKind::Corrupt, "read a message").because(e))?;
    let unsigned = message_cid(&message.message);
    chain.push(from, message, unsigned, limits);
    Ok(())
}

/// Makes genesis.
fn found(
    config: &DevnetConfig,
    store: &DevnetStore,
    oracle: &Oracle,
    policy: &Policy,
    verifier: &dyn ProofVerifier,
) -> Result<Chain, DevnetError> {
    let overlay = Overlay::new(store);
    let ticket_at = |_| TicketId::default();
    let mut world = World {
        store: &overlay,
        policy,
        parameters: &config.policy,
        oracle,
        verifier,
        ticket_at: &ticket_at,
        epoch: 0,
        actors: Actors::new(),
        undo: None,
        failures: Vec::new(),
    };
    genesis::build(&mut world, &config.network_name, &config.fund).map_err(state_error)?;
    let state = world.flush(None).map_err(state_error)?;
    let draft = Draft {
        oracle,
        parent: None,
        ticket: TicketId::default(),
        base_fee: config.initial_base_fee.clone(),
        winner: None,
        parent_state: state,
        state,
        messages: Vec::new(),
    };
    let tipset = draft.seal(&overlay).map_err(state_error)?;
    let funded: Vec<String> = config.fund.iter().map(|(a, _)| text_of(a)).collect();
    let entry = Entry::Genesis {
        network: config.network_name.clone(),
        seed: config.genesis_seed.to_vec(),
        funded: funded.clone(),
        tipset: tipset.clone(),
        parameters: config.policy.recorded(),
    };
    let actors = world.actors;
    store.append(&encode(&entry)?, overlay.reachable([tipset.cid, tipset.state, tipset.receipts]))?;
    let mut chain = Chain::new(tipset, funded);
    chain.actors = Arc::new(actors);
    Ok(chain)
}
