//! Actors and the tree that holds them.

use super::{
    policy::PolicyParameters,
    randomness::{Oracle, TicketId, draw},
    store::Overlay,
};
use cid::Cid;
use damocles_core::verify::ProofVerifier;
use fil_actor_init_state::v18 as init;
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, INIT_ACTOR_ID, runtime::Policy},
};
use fvm_ipld_blockstore::Blockstore;
use fvm_ipld_encoding::{
    CborStore,
    de::DeserializeOwned,
    ser::Serialize,
    tuple::{Deserialize_tuple, Serialize_tuple},
};
use fvm_ipld_hamt::{BytesKey, Hamt, Sha256};
use fvm_shared::{
    ActorID,
    address::{Address, Protocol},
    clock::ChainEpoch,
    econ::TokenAmount,
    error::ExitCode,
};
use multihash_codetable::Code;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// An entry of the state tree, in the chain's own encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub(super) struct Actor {
    pub(super) code: Cid,
    pub(super) state: Cid,
    pub(super) sequence: u64,
    pub(super) balance: TokenAmount,
    pub(super) delegated_address: Option<Address>,
}

/// The root of a state tree.
#[derive(Clone, Debug, Serialize_tuple, Deserialize_tuple)]
pub(super) struct StateRoot {
    version: u64,
    actors: Cid,
    info: Cid,
}

/// The state tree's version since nv18.
const STATE_TREE_VERSION: u64 = 5;
const STATE_TREE_WIDTH: u32 = 5;

/// The codes of built-in actors.
pub(super) mod code {
    use cid::{Cid, multihash::Multihash};

    /// The code CID of a built-in actor: an identity hash of its name.
    pub(in crate::devnet) fn of(name: &str) -> Cid {
        let hash = Multihash::wrap(0, format!("fil/18/{name}").as_bytes()).expect("names are short");
        Cid::new_v1(0x55, hash)
    }

    /// The name behind a code CID.
    pub(in crate::devnet) fn name(code: &Cid) -> String {
        String::from_utf8_lossy(code.hash().digest()).rsplit('/').next().unwrap_or_default().to_owned()
    }

    pub(in crate::devnet) const ACCOUNT: &str = "account";
    pub(in crate::devnet) const MINER: &str = "storageminer";
}

pub(super) type Actors = BTreeMap<ActorID, Actor>;
type Tree<'s, S> = Hamt<&'s S, Actor, BytesKey, Sha256>;

/// Reads all actors below a root.
pub(super) fn load_actors<S: Blockstore>(store: &S, root: &Cid) -> Result<Actors, ActorError> {
    let root: StateRoot = load(store, root)?;
    let tree = Tree::load_with_bit_width(&root.actors, store, STATE_TREE_WIDTH)
        .map_err(|e| actor_error_v18!(illegal_state, "state tree: {}", e))?;
    let mut actors = Actors::new();
    tree.for_each(|key: &BytesKey, actor: &Actor| {
        if let Ok(id) = Address::from_bytes(&key.0).and_then(|address| address.id()) {
            actors.insert(id, actor.clone());
        }
        Ok(())
    })
    .map_err(|e| actor_error_v18!(illegal_state, "state tree: {}", e))?;
    Ok(actors)
}

/// Reads a CBOR object that has to be there.
pub(super) fn load<S: Blockstore, T: DeserializeOwned>(store: &S, cid: &Cid) -> Result<T, ActorError> {
    store
        .get_cbor(cid)
        .map_err(|e| actor_error_v18!(illegal_state, "failed to load {}: {}", cid, e))?
        .ok_or_else(|| actor_error_v18!(illegal_state, "object {} not found", cid))
}

/// The state that messages and cron work on at one epoch.
pub(super) struct World<'s> {
    pub(super) store: &'s Overlay<'s>,
    pub(super) policy: &'s Policy,
    /// Where the network departs from public ones.
    pub(super) parameters: &'s PolicyParameters,
    pub(super) oracle: &'s Oracle,
    pub(super) verifier: &'s dyn ProofVerifier,
    /// The ticket of the last tipset at or before an epoch.
    pub(super) ticket_at: &'s dyn Fn(ChainEpoch) -> TicketId,
    pub(super) epoch: ChainEpoch,
    pub(super) actors: Actors,
    /// While something is attempted: the actors that it changed, as they were before.
    pub(super) undo: Option<BTreeMap<ActorID, Option<Actor>>>,
    /// What failed that is never to fail: the protocol goes on without it, and somebody has to know.
    pub(super) failures: Vec<String>,
}

impl World<'_> {
    /// Takes down what is never to fail and did.
    pub(super) fn failed(&mut self, what: String) {
        tracing::error!("{what}");
        self.failures.push(what);
    }

    /// An actor that has to be there.
    pub(super) fn actor(&self, id: ActorID) -> Result<&Actor, ActorError> {
        self.actors.get(&id).ok_or_else(|| actor_error_v18!(not_found, "actor {} not found", id))
    }

    /// Runs something that leaves nothing behind if it fails. A panic is a failure too, as it is for an actor on public
    /// networks: what a message holds must not keep the chain from growing, now or when its file is read again.
    pub(super) fn attempt<T>(
        &mut self,
        what: impl FnOnce(&mut Self) -> Result<T, ActorError>,
    ) -> Result<T, ActorError> {
        self.undo = Some(BTreeMap::new());
        let result = catch_unwind(AssertUnwindSafe(|| what(self))).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(ActorError::unchecked(ExitCode::USR_ASSERTION_FAILED, format!("panicked: {said}")))
        });
        let changed = self.undo.take().unwrap_or_default();
        if result.is_err() {
            for (id, before) in changed {
                match before {
                    Some(actor) => self.actors.insert(id, actor),
                    None => self.actors.remove(&id),
                };
            }
        }
        result
    }

    /// Remembers an actor before it changes.
    fn remember(&mut self, id: ActorID) {
        if let Some(undo) = &mut self.undo {
            undo.entry(id).or_insert_with(|| self.actors.get(&id).cloned());
        }
    }

    pub(super) fn actor_mut(&mut self, id: ActorID) -> Result<&mut Actor, ActorError> {
        self.remember(id);
        self.actors.get_mut(&id).ok_or_else(|| actor_error_v18!(not_found, "actor {} not found", id))
    }

    /// An actor's balance; zero if there is none.
    pub(super) fn balance(&self, id: ActorID) -> TokenAmount {
        self.actors.get(&id).map(|a| a.balance.clone()).unwrap_or_default()
    }

    /// An actor's state.
    pub(super) fn state<T: DeserializeOwned>(&self, id: ActorID) -> Result<T, ActorError> {
        load(self.store, &self.actor(id)?.state)
    }

    /// Replaces an actor's state.
    pub(super) fn save<T: Serialize>(&mut self, id: ActorID, state: &T) -> Result<(), ActorError> {
        let cid = self.put(state)?;
        self.actor_mut(id)?.state = cid;
        Ok(())
    }

    /// Stores an object.
    pub(super) fn put<T: Serialize>(&self, object: &T) -> Result<Cid, ActorError> {
        self.store
            .put_cbor(object, Code::Blake2b256)
            .map_err(|e| actor_error_v18!(illegal_state, "failed to store an object: {}", e))
    }

    /// Moves funds.
    pub(super) fn transfer(&mut self, from: ActorID, to: ActorID, amount: &TokenAmount) -> Result<(), ActorError> {
        if amount.is_negative() {
            return Err(actor_error_v18!(illegal_argument, "cannot transfer a negative amount {}", amount));
        }
        let sender = self.actor_mut(from)?;
        if &sender.balance < amount {
            return Err(actor_error_v18!(
                insufficient_funds,
                "sender {} does not have enough funds: balance {} < {}",
                from,
                sender.balance,
                amount
            ));
        }
        sender.balance -= amount;
        self.actor_mut(to)?.balance += amount;
        Ok(())
    }

    /// The ID that an address stands for.
    pub(super) fn resolve(&self, address: &Address) -> Result<Option<ActorID>, ActorError> {
        if let Ok(id) = address.id() {
            return Ok(Some(id));
        }
        let state: init::State = self.state(INIT_ACTOR_ID)?;
        Ok(state.resolve_address(self.store, address)?.and_then(|a| a.id().ok()))
    }

    /// Gives an address an ID and an actor.
    pub(super) fn create(&mut self, robust: &Address, actor: Actor) -> Result<ActorID, ActorError> {
        let mut state: init::State = self.state(INIT_ACTOR_ID)?;
        let (id, _) = state.map_addresses_to_id(self.store, robust, None)?;
        self.save(INIT_ACTOR_ID, &state)?;
        self.remember(id);
        self.actors.insert(id, actor);
        Ok(id)
    }

    /// Gives a key address an account.
    pub(super) fn create_account(&mut self, key: &Address) -> Result<ActorID, ActorError> {
        if !matches!(key.protocol(), Protocol::Secp256k1 | Protocol::BLS) {
            return Err(actor_error_v18!(illegal_argument, "no account can be made for {}", key));
        }
        let state = self.put(&fil_actor_account_state::v18::State { address: *key })?;
        let account = Actor {
            code: code::of(code::ACCOUNT),
            state,
            sequence: 0,
            balance: TokenAmount::default(),
            delegated_address: None,
        };
        self.create(key, account)
    }

    /// Randomness from the ticket chain.
    pub(super) fn ticket_randomness(&self, tag: i64, epoch: ChainEpoch, entropy: &[u8]) -> [u8; 32] {
        draw(&self.oracle.ticket_digest((self.ticket_at)(epoch)), tag, epoch, entropy)
    }

    /// Randomness from the beacon.
    pub(super) fn beacon_randomness(&self, tag: i64, epoch: ChainEpoch, entropy: &[u8]) -> [u8; 32] {
        draw(&self.oracle.beacon_digest(epoch), tag, epoch, entropy)
    }

    /// Writes the tree and returns its root. Only actors that differ from `before` are touched.
    pub(super) fn flush(&self, before: Option<(&Cid, &Actors)>) -> Result<Cid, ActorError> {
        let failed = |e: fvm_ipld_hamt::Error| actor_error_v18!(illegal_state, "state tree: {}", e);
        let empty = Actors::new();
        let (mut tree, info, known) = match before {
            Some((root, known)) => {
                if known == &self.actors {
                    return Ok(*root);
                }
                let root: StateRoot = load(self.store, root)?;
                let tree = Tree::load_with_bit_width(&root.actors, self.store, STATE_TREE_WIDTH).map_err(failed)?;
                (tree, root.info, known)
            }
            None => (Tree::new_with_bit_width(self.store, STATE_TREE_WIDTH), self.put(&Vec::<u8>::new())?, &empty),
        };
        for (id, actor) in &self.actors {
            if known.get(id) != Some(actor) {
                tree.set(BytesKey(Address::new_id(*id).to_bytes()), actor.clone()).map_err(failed)?;
            }
        }
        for id in known.keys().filter(|id| !self.actors.contains_key(id)) {
            tree.delete(&BytesKey(Address::new_id(*id).to_bytes())).map_err(failed)?;
        }
        let actors = tree.flush().map_err(failed)?;
        self.put(&StateRoot { version: STATE_TREE_VERSION, actors, info })
    }
}
