//! One call of a miner's method.

use crate::devnet::actors::World;
use fil_actor_miner_state::v18::{ERR_BALANCE_INVARIANTS_BROKEN, MinerInfo, State};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorDowncast, ActorError, BURNT_FUNDS_ACTOR_ID},
};
use fvm_shared::{ActorID, address::Address, econ::TokenAmount, error::ExitCode};

/// One call of a miner's method. The value is in the miner's balance already.
pub(in crate::devnet) struct Invocation<'w, 's> {
    pub(in crate::devnet) world: &'w mut World<'s>,
    pub(in crate::devnet) caller: ActorID,
    pub(in crate::devnet) miner: ActorID,
}

impl Invocation<'_, '_> {
    pub(super) fn state(&self) -> Result<State, ActorError> {
        self.world.state(self.miner)
    }

    pub(super) fn save(&mut self, state: &State) -> Result<(), ActorError> {
        self.world.save(self.miner, state)
    }

    pub(super) fn balance(&self) -> TokenAmount {
        self.world.balance(self.miner)
    }

    pub(super) fn info(&self, state: &State) -> Result<MinerInfo, ActorError> {
        state
            .get_info(self.world.store)
            .map_err(|e| e.downcast_default(ExitCode::USR_ILLEGAL_STATE, "could not read miner info"))
    }

    /// Only owner, worker and control addresses may go on.
    pub(super) fn only_controllers(&self, info: &MinerInfo) -> Result<(), ActorError> {
        let mut allowed = info.control_addresses.clone();
        allowed.extend([info.worker, info.owner]);
        self.only(&allowed)
    }

    /// Only these may go on.
    pub(super) fn only(&self, allowed: &[Address]) -> Result<(), ActorError> {
        let caller = Address::new_id(self.caller);
        if allowed.contains(&caller) {
            return Ok(());
        }
        Err(actor_error_v18!(forbidden, "caller {} is not one of supported", caller))
    }

    /// Whether there are free funds for so much more pledge.
    pub(super) fn pledge(&self, state: &State, pledge: &TokenAmount) -> Result<(), ActorError> {
        let unlocked = state
            .get_unlocked_balance(&self.balance())
            .map_err(illegal_state("failed to calculate unlocked balance"))?;
        if &unlocked < pledge {
            return Err(actor_error_v18!(
                insufficient_funds,
                "insufficient funds for aggregate initial pledge requirement {}, available: {}",
                pledge,
                unlocked
            ));
        }
        Ok(())
    }

    pub(super) fn burn(&mut self, amount: &TokenAmount) -> Result<(), ActorError> {
        if amount.is_positive() {
            self.world.transfer(self.miner, BURNT_FUNDS_ACTOR_ID, amount)?;
        }
        Ok(())
    }

    /// Pays all fee debt, or fails.
    pub(super) fn repay_debts(&self, state: &mut State) -> Result<TokenAmount, ActorError> {
        state
            .repay_debts(&self.balance())
            .map_err(|e| e.downcast_default(ExitCode::USR_ILLEGAL_STATE, "unlocked balance can not repay fee debt"))
    }

    pub(super) fn check_balance(&self, state: &State) -> Result<(), ActorError> {
        state.check_balance_invariants(&self.balance()).map_err(|e| {
            ActorError::unchecked(ERR_BALANCE_INVARIANTS_BROKEN, format!("balance invariants broken: {e}"))
        })
    }
}

/// Gives an error of the state machine a code, unless it has one.
pub(super) fn illegal_state(what: &'static str) -> impl Fn(anyhow::Error) -> ActorError {
    move |e| e.downcast_default(ExitCode::USR_ILLEGAL_STATE, what)
}

/// The same for errors of arrays.
pub(super) fn illegal_array(what: &'static str) -> impl Fn(fvm_ipld_amt::Error) -> ActorError {
    move |e| e.downcast_default(ExitCode::USR_ILLEGAL_STATE, what)
}
