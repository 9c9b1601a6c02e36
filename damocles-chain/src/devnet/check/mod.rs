//! What holds of every state: the books of miners, power and funds agree with each other.
//!
//! A report of a fault says where it is. There is none in a state that follows from the protocol's rules, so that each is
//! a defect of the devnet (or damage to its file).

mod miner;
mod partition;
mod power;

use super::{
    actors::{Actor, Actors, code, load, load_actors},
    block::Tipset,
    error::DevnetError,
    node::{Devnet, state_error},
    store::DevnetStore,
};
use cid::Cid;
use fil_actor_miner_state::v18::{PowerPair, State};
use fil_actors_shared::v18::{ActorError, STORAGE_POWER_ACTOR_ID, runtime::Policy};
use fvm_shared::{ActorID, clock::ChainEpoch, econ::TokenAmount};
use std::{collections::HashMap, fmt::Display, sync::Arc};

/// What is wrong, and where.
struct Faults {
    at: String,
    found: Vec<String>,
}

impl Faults {
    fn at(place: impl Display) -> Self {
        Self { at: place.to_string(), found: Vec::new() }
    }

    fn unless(&mut self, good: bool, what: impl FnOnce() -> String) {
        if !good {
            self.found.push(format!("{}: {}", self.at, what()));
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, is: &T, should_be: &T) {
        self.unless(is == should_be, || format!("{what} is {is:?} and should be {should_be:?}"));
    }

    fn ok(&mut self, what: &str, result: Result<(), anyhow::Error>) {
        if let Err(e) = result {
            self.found.push(format!("{}: {what}: {e}", self.at));
        }
    }
}

/// What a miner adds to the network.
#[derive(Clone, Debug, Default)]
struct Totals {
    /// The power that its partitions have.
    power: PowerPair,
    /// What is pledged for its sectors and what vests.
    pledged: TokenAmount,
    initial_pledge: TokenAmount,
    /// Whether its deadlines have to be looked after.
    needs_cron: bool,
    cron_active: bool,
    early_terminations: bool,
    next_deadline_end: ChainEpoch,
    found: Vec<String>,
}

/// What a check works on.
struct Books<'a> {
    store: &'a DevnetStore,
    policy: &'a Policy,
    epoch: ChainEpoch,
}

/// Checks the states of a devnet, tipset by tipset: at first that after its head, later those after all that came to the
/// chain since the last check. It remembers miners, so that those that did not change are not looked through again.
///
/// A tipset's null rounds are checked together with it: their states are stored nowhere.
#[derive(Debug, Default)]
pub struct Checker {
    known: HashMap<(ActorID, Cid), Totals>,
    /// The last tipset that was checked.
    last: Option<Arc<Tipset>>,
    /// How many failures were reported.
    told: usize,
}

impl Checker {
    /// Everything that is wrong with those states, and with what their epochs did; empty if nothing is. What was never to
    /// fail and did since the devnet was opened, such as a cron callback, is told once.
    ///
    /// # Errors
    ///
    /// If a state cannot be read.
    pub fn faults(&mut self, devnet: &Devnet) -> Result<Vec<String>, DevnetError> {
        let (head, actors) = devnet.tip();
        let applied = self.last.as_ref().map(|last| devnet.chain.read().way(last).1).unwrap_or_default();
        let mut found: Vec<String> = devnet.failures.lock().iter().skip(self.told).cloned().collect();
        self.told += found.len();
        for tipset in applied.iter().filter(|t| t.height < head.height) {
            let actors = load_actors(&devnet.store, &tipset.state).map_err(state_error)?;
            self.tipset(devnet, tipset, &actors, &mut found).map_err(state_error)?;
        }
        self.tipset(devnet, &head, &actors, &mut found).map_err(state_error)?;
        self.known.retain(|(id, state), _| actors.get(id).is_some_and(|a| a.state == *state));
        self.last = Some(head);
        Ok(found)
    }

    /// The same of the state after one tipset.
    fn tipset(
        &mut self,
        devnet: &Devnet,
        tipset: &Tipset,
        actors: &Actors,
        found: &mut Vec<String>,
    ) -> Result<(), ActorError> {
        let before = load_actors(&devnet.store, &tipset.parent_state)?;
        let books = Books { store: &devnet.store, policy: &devnet.policy, epoch: tipset.height };
        // A state whose funds were added to follows from no epoch.
        let funded = devnet.chain.read().floor == tipset.height;
        let after = self.miners(&books, actors, found)?;
        if !funded {
            conserved(&before, actors, found);
            let then = self.miners(&books, &before, &mut Vec::new())?;
            pledges(&books, (&before, &then), (actors, &after), found)?;
        }
        power::check(&books, actors, &after, found)
    }

    /// What all miners of a state add to the network.
    fn miners(
        &mut self,
        books: &Books<'_>,
        actors: &Actors,
        found: &mut Vec<String>,
    ) -> Result<HashMap<ActorID, Totals>, ActorError> {
        let miner = code::of(code::MINER);
        let mut out = HashMap::new();
        for (id, actor) in actors.iter().filter(|(_, a)| a.code == miner) {
            let key = (*id, actor.state);
            let totals = match self.known.get(&key) {
                Some(known) => known.clone(),
                None => miner::totals(books, *id, actor)?,
            };
            found.extend(totals.found.iter().cloned());
            let state: State = load(books.store, &actor.state)?;
            let mut faults = Faults::at(format_args!("miner t0{id}"));
            faults.ok("balance", state.check_balance_invariants(&actor.balance));
            found.append(&mut faults.found);
            self.known.insert(key, totals.clone());
            out.insert(*id, totals);
        }
        Ok(out)
    }
}

/// No epoch makes or destroys funds.
fn conserved(before: &Actors, after: &Actors, found: &mut Vec<String>) {
    let sum = |actors: &Actors| actors.values().map(|a| &a.balance).sum::<TokenAmount>();
    let mut faults = Faults::at("all balances");
    faults.same("their sum", &sum(after), &sum(before));
    let negative = |(id, a): (&ActorID, &Actor)| a.balance.is_negative().then_some(*id);
    faults.same("the first negative one", &after.iter().find_map(negative), &None);
    found.append(&mut faults.found);
}

/// The power actor hears of every change of what is pledged and of what vests. The deposit that a miner is made with it
/// does not hear of (FIP-0077), though of what vests of it.
fn pledges(
    books: &Books<'_>,
    (before, then): (&Actors, &HashMap<ActorID, Totals>),
    (after, now): (&Actors, &HashMap<ActorID, Totals>),
    found: &mut Vec<String>,
) -> Result<(), ActorError> {
    let total = |actors: &Actors| -> Result<TokenAmount, ActorError> {
        match actors.get(&STORAGE_POWER_ACTOR_ID) {
            Some(actor) => {
                let state: fil_actor_power_state::v18::State = load(books.store, &actor.state)?;
                Ok(state.total_pledge_collateral)
            }
            None => Ok(TokenAmount::default()),
        }
    };
    let mut change = TokenAmount::default();
    for (id, totals) in now {
        match then.get(id) {
            Some(then) => change += &totals.pledged - &then.pledged,
            None => change += &totals.initial_pledge,
        }
    }
    let mut faults = Faults::at("power actor");
    faults.same("the change of the total pledge", &(total(after)? - total(before)?), &change);
    found.append(&mut faults.found);
    Ok(())
}

impl Devnet {
    /// Checks the state after the head from scratch, and tells what failed since the devnet was opened: see
    /// [`Checker::faults`].
    ///
    /// # Errors
    ///
    /// If the state cannot be read.
    pub fn check(&self) -> Result<Vec<String>, DevnetError> {
        Checker::default().faults(self)
    }
}

#[cfg(test)]
mod tests;
