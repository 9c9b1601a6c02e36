//! The devnet itself.

use super::{
    actors::{Actors, World, load_actors},
    block::{Draft, Tipset},
    chain::{Chain, Entry, Pushed},
    config::{DevnetConfig, FIRST_HEIGHT, policy},
    error::{DevnetError, DevnetErrorKind},
    genesis,
    mempool::Refusal,
    randomness::Oracle,
    signed::{SignedMessage, message_cid},
    store::{DevnetStore, Overlay},
    vm,
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
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::broadcast;

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
        let oracle = Oracle::new(config.genesis_seed);
        let policy = policy();
        let chain = match replay(&config, &entries)? {
            Some(mut chain) => {
                let head = chain.head();
                chain.actors = Arc::new(load_actors(&store, &head.state).map_err(state_error)?);
                chain
            }
            None => found(&config, &store, &oracle, &policy, verifier.as_ref())?,
        };
        let devnet = Self {
            config,
            store,
            verifier,
            oracle,
            policy,
            chain: RwLock::new(chain),
            growing: Mutex::new(()),
            heads: broadcast::Sender::new(HEADS_KEPT),
            paused: AtomicBool::new(false),
        };
        devnet.fund_new()?;
        if devnet.chain.read().head().height < FIRST_HEIGHT {
            devnet.grow_to(FIRST_HEIGHT)?;
        }
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
        let tipset_at = |epoch| self.tipset_at(epoch, head.height);
        let mut world = self.world(&overlay, &tipset_at, head.height, &actors);
        genesis::fund_accounts(&mut world, &fund).map_err(state_error)?;
        let state = world.flush(Some((&head.state, &actors))).map_err(state_error)?;
        let funded: Vec<String> = fund.iter().map(|(a, _)| text_of(a)).collect();
        let entry = Entry::Fund { funded: funded.clone(), state };
        let actors = world.actors;
        self.store.append(&encode(&entry)?, overlay.reachable([state]))?;
        {
            let mut chain = self.chain.write();
            chain.funded.extend(funded);
            chain.replace_head_state(state);
            chain.actors = Arc::new(actors);
        }
        // Reads see the funds only from the next tipset on.
        let next = self.chain.read().head().height + 1;
        self.grow(next)
    }

    /// The current head.
    pub fn head(&self) -> TipsetRef {
        reference(&self.chain.read().head())
    }

    /// The network's name.
    pub fn network_name(&self) -> &str {
        &self.config.network_name
    }

    /// Mines `n` tipsets, one per epoch.
    ///
    /// # Errors
    ///
    /// If they cannot be recorded; the head is then the last one that could.
    pub fn mine(&self, n: u64) -> Result<TipsetRef, DevnetError> {
        for _ in 0..n {
            let _growing = self.growing.lock();
            let next = self.chain.read().head().height + 1;
            self.grow(next)?;
        }
        Ok(self.head())
    }

    /// Mines one tipset at `height`; the epochs before it are null rounds, with cron in each.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded.
    pub fn grow_to(&self, height: ChainEpoch) -> Result<TipsetRef, DevnetError> {
        let _growing = self.growing.lock();
        self.grow(height)?;
        Ok(self.head())
    }

    /// A tick of the clock.
    pub(super) fn mine_unless_paused(&self) -> Result<(), DevnetError> {
        let _growing = self.growing.lock();
        // Looked at under the lock: once `pause` has returned and a growth has ended, no tick moves the head.
        if self.is_paused() {
            return Ok(());
        }
        let next = self.chain.read().head().height + 1;
        self.grow(next)
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
        Ok(self.accept(message)?)
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
        tipset_at: &'w dyn Fn(ChainEpoch) -> ChainEpoch,
        epoch: ChainEpoch,
        actors: &Actors,
    ) -> World<'w> {
        World {
            store: overlay,
            policy: &self.policy,
            oracle: &self.oracle,
            verifier: self.verifier.as_ref(),
            tipset_at,
            epoch,
            actors: actors.clone(),
        }
    }

    /// The height of the tipset at or before an epoch, if one is being mined at `current`.
    pub(super) fn tipset_at(&self, epoch: ChainEpoch, current: ChainEpoch) -> ChainEpoch {
        if epoch >= current {
            return current;
        }
        self.chain.read().at_or_before(epoch).map_or(0, |t| t.height)
    }

    /// Mines one tipset at `height`. The caller holds `growing`.
    pub(super) fn grow(&self, height: ChainEpoch) -> Result<(), DevnetError> {
        let (head, actors) = self.tip();
        if height <= head.height {
            return Ok(());
        }
        let overlay = Overlay::new(&self.store);
        let tipset_at = |epoch| self.tipset_at(epoch, height);
        let mut world = self.world(&overlay, &tipset_at, height, &actors);
        for null in head.height + 1..height {
            world.epoch = null;
            vm::cron(&mut world).map_err(state_error)?;
        }
        world.epoch = height;
        let chosen = {
            let chain = self.chain.read();
            chain.pool.select(|id| world.actors.get(&id).map(|a| (a.sequence, a.balance.clone())))
        };
        let messages = chosen
            .into_iter()
            .map(|(message, from)| {
                let applied = vm::apply(&mut world, &message.message, from);
                (message, from, applied)
            })
            .collect();
        vm::cron(&mut world).map_err(state_error)?;
        let state = world.flush(Some((&head.state, &actors))).map_err(state_error)?;
        let draft =
            Draft { oracle: &self.oracle, parent: Some(&head), height, parent_state: head.state, state, messages };
        let tipset = draft.seal(&overlay).map_err(state_error)?;
        let blocks = overlay.reachable([tipset.cid, tipset.state, tipset.receipts]);
        let actors = world.actors;
        self.store.append(&encode(&Entry::Tipset(tipset.clone()))?, blocks)?;
        let head = {
            let mut chain = self.chain.write();
            chain.grow(tipset);
            chain.actors = Arc::new(actors);
            chain.head()
        };
        // Nobody may be listening.
        let _ = self.heads.send(head);
        Ok(())
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
            (None, Entry::Genesis { network, seed, funded, tipset }) => {
                if network != config.network_name || seed != config.genesis_seed {
                    return Err(DevnetError::new(DevnetErrorKind::Mismatch, "open the devnet")
                        .with("network", &network)
                        .with("wanted", &config.network_name)
                        .hint_with("use another home directory for another network"));
                }
                chain = Some(Chain::new(tipset, funded));
            }
            (Some(chain), Entry::Tipset(tipset)) => chain.grow(tipset),
            (Some(chain), Entry::Push { from, message }) => restore_push(chain, from, &message)?,
            (Some(chain), Entry::Fund { funded, state }) => {
                chain.funded.extend(funded);
                chain.replace_head_state(state);
            }
            _ => return Err(DevnetError::new(DevnetErrorKind::Corrupt, "read a record").with("record", "out of order")),
        }
    }
    Ok(chain)
}

fn restore_push(chain: &mut Chain, from: ActorID, bytes: &[u8]) -> Result<(), DevnetError> {
    let message: SignedMessage =
        from_slice(bytes).map_err(|e| DevnetError::new(DevnetErrorKind::Corrupt, "read a message").because(e))?;
    let pushed = Pushed { cid: message.cid(), from, nonce: message.message.sequence };
    chain.remember_push(message_cid(&message.message), pushed);
    chain
        .pool
        .insert(from, message)
        .map_err(|e| DevnetError::new(DevnetErrorKind::Corrupt, "read a message").because(e))?;
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
    let mut world =
        World { store: &overlay, policy, oracle, verifier, tipset_at: &|_| 0, epoch: 0, actors: Actors::new() };
    genesis::build(&mut world, &config.network_name, &config.fund).map_err(state_error)?;
    let state = world.flush(None).map_err(state_error)?;
    let draft = Draft { oracle, parent: None, height: 0, parent_state: state, state, messages: Vec::new() };
    let tipset = draft.seal(&overlay).map_err(state_error)?;
    let funded: Vec<String> = config.fund.iter().map(|(a, _)| text_of(a)).collect();
    let entry = Entry::Genesis {
        network: config.network_name.clone(),
        seed: config.genesis_seed.to_vec(),
        funded: funded.clone(),
        tipset: tipset.clone(),
    };
    let actors = world.actors;
    store.append(&encode(&entry)?, overlay.reachable([tipset.cid, tipset.state, tipset.receipts]))?;
    let mut chain = Chain::new(tipset, funded);
    chain.actors = Arc::new(actors);
    Ok(chain)
}
