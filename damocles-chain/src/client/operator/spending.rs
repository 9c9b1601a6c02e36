//! What accounts spent of late, and how long the rest lasts.

use super::Operator;
use crate::{
    client::convert,
    lotus_json::ActorState,
    rpc::{RpcCode, RpcError},
};
use damocles_core::{
    Address, Epoch, TokenAmount,
    chain::{ChainError, TipsetRef},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Into how many parts the time is cut that is looked back on. What comes in and goes out again within one is not seen.
const PARTS: i64 = 24;

/// What an account has and spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// The account.
    pub account: Address,
    /// What it owns.
    pub balance: TokenAmount,
    /// What it spent in the epochs that were looked back on. What came in does not count.
    pub spent: TokenAmount,
    /// How many epochs those are.
    pub watched: i64,
}

impl Spending {
    /// For how many epochs its balance lasts at that rate if so much of it is set aside; none where nothing was spent.
    pub fn runway(&self, aside: TokenAmount) -> Option<i64> {
        if self.spent <= TokenAmount::ZERO || self.watched <= 0 {
            return None;
        }
        let free = (self.balance - aside).max(TokenAmount::ZERO);
        let lasts = free.atto().saturating_mul(i128::from(self.watched)) / self.spent.atto();
        Some(i64::try_from(lasts).unwrap_or(i64::MAX))
    }

    /// Takes what it owned at an earlier time than all before.
    fn earlier(&mut self, before: TokenAmount, after: TokenAmount, epochs: i64) {
        self.spent = self.spent + (before - after).max(TokenAmount::ZERO);
        self.watched = epochs;
    }
}

impl Operator {
    /// What accounts have at a tipset, and what they spent in so many epochs before it, or in as many of them as the
    /// node still knows.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn spending(
        &self,
        at: &TipsetRef,
        accounts: &[Address],
        epochs: i64,
    ) -> Result<Vec<Spending>, ChainError> {
        let mut all = Vec::new();
        for account in accounts {
            let balance = self.owned(at, account).await?;
            let none = TokenAmount::ZERO;
            all.push((Spending { account: account.clone(), balance, spent: none, watched: 0 }, balance));
        }
        let step = (epochs / PARTS).max(1);
        let mut back = step;
        while back <= epochs && back <= at.epoch.0 {
            let earlier = self.tipset_at(at, Epoch(at.epoch.0.saturating_sub(back))).await?;
            for (spending, after) in &mut all {
                let before = match self.owned(&earlier, &spending.account).await {
                    Ok(before) => before,
                    // Nodes keep the states of a few days.
                    Err(e) if RpcError::of(&e).is_some() => return Ok(all.into_iter().map(|(done, _)| done).collect()),
                    Err(e) => return Err(e),
                };
                spending.earlier(before, *after, back);
                *after = before;
            }
            back = back.saturating_add(step);
        }
        Ok(all.into_iter().map(|(spending, _)| spending).collect())
    }

    /// What an account owns at a tipset: nothing if it is not there yet.
    async fn owned(&self, at: &TipsetRef, account: &Address) -> Result<TokenAmount, ChainError> {
        match self.reads.at::<ActorState>("StateGetActor", at, vec![json!(account)]).await {
            Ok(actor) => convert::amount(&actor.balance),
            Err(e) if RpcError::of(&e).is_some_and(|said| said.meaning() == RpcCode::ActorNotFound) => {
                Ok(TokenAmount::ZERO)
            }
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_lasts_as_long_as_before() {
        let fil = TokenAmount::from_fil;
        let mut spending = Spending { account: "t0100".parse().unwrap(), balance: fil(80), spent: fil(0), watched: 0 };
        assert_eq!(spending.runway(fil(0)), None, "nobody looked");
        let mut after = fil(80);
        for (epochs, before) in [(10, 90), (20, 70), (30, 80)] {
            spending.earlier(fil(before), after, epochs);
            after = fil(before);
        }
        assert_eq!((spending.spent, spending.watched), (fil(20), 30), "what came in does not count");
        assert_eq!(spending.runway(fil(0)), Some(120));
        assert_eq!(spending.runway(fil(20)), Some(90));
        assert_eq!(spending.runway(fil(100)), Some(0));
    }
}
