//! What senders have, and how long it lasts.

use super::Outbox;
use crate::lotus_json::to_core;
use damocles_core::{
    Address, Event, FundsEvent, TokenAmount,
    chain::{ChainError, TipsetRef},
};
use fvm_shared::{address::Address as ChainAddress, econ};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use tracing::debug;

use super::sign::cost;

/// Balances are looked at so often, in epochs, and so many of them are kept: a day.
const EVERY: i64 = 10;
const KEPT: usize = 288;

/// What a sender has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderFunds {
    /// The sender.
    pub sender: Address,
    /// What it owns at the head.
    pub balance: TokenAmount,
    /// What its messages on their way may cost.
    pub locked: TokenAmount,
    /// How many of them there are.
    pub in_flight: usize,
    /// What it spent in the epochs that were watched.
    pub spent: TokenAmount,
    /// How many epochs were watched.
    pub watched: i64,
    /// For how many epochs what is free lasts at that rate; none where nothing was spent.
    pub runway: Option<i64>,
}

/// The balances of the senders.
#[derive(Debug, Default)]
pub(super) struct Purses(Mutex<HashMap<ChainAddress, Purse>>);

#[derive(Debug, Default)]
struct Purse {
    balances: VecDeque<(i64, TokenAmount)>,
    is_low: bool,
}

impl Purses {
    /// Whether a sender was seen to be short of money when it was looked at last.
    pub(super) fn is_low(&self, sender: &ChainAddress) -> bool {
        self.0.lock().get(sender).is_some_and(|purse| purse.is_low)
    }
}

impl Purse {
    fn take(&mut self, epoch: i64, balance: TokenAmount) {
        // What was seen above this head was reverted.
        while self.balances.back().is_some_and(|(at, _)| *at >= epoch) {
            self.balances.pop_back();
        }
        self.balances.push_back((epoch, balance));
        while self.balances.len() > KEPT {
            self.balances.pop_front();
        }
    }

    /// What was spent, and in how many epochs. What came in does not count.
    fn spent(&self) -> (TokenAmount, i64) {
        let steps = self.balances.iter().zip(self.balances.iter().skip(1));
        let falls = steps.map(|((_, before), (_, after))| (*before - *after).max(TokenAmount::ZERO));
        let epochs = match (self.balances.front(), self.balances.back()) {
            (Some((first, _)), Some((last, _))) => last - first,
            _ => 0,
        };
        (falls.fold(TokenAmount::ZERO, |sum, fall| sum + fall), epochs)
    }

    fn is_due(&self, epoch: i64) -> bool {
        self.balances.back().is_none_or(|(at, _)| !(*at..at.saturating_add(EVERY)).contains(&epoch))
    }
}

/// For how many epochs an amount lasts.
fn runway(free: TokenAmount, spent: TokenAmount, epochs: i64) -> Option<i64> {
    if spent <= TokenAmount::ZERO || epochs <= 0 {
        return None;
    }
    let lasts = free.max(TokenAmount::ZERO).atto().saturating_mul(i128::from(epochs)) / spent.atto();
    Some(i64::try_from(lasts).unwrap_or(i64::MAX))
}

fn to_amount(amount: &econ::TokenAmount) -> TokenAmount {
    TokenAmount::from_atto(i128::try_from(amount.atto()).unwrap_or(i128::MAX))
}

impl Outbox {
    /// What every sender of ours has at a head.
    pub(crate) async fn funds(&self, head: &TipsetRef) -> Result<Vec<SenderFunds>, ChainError> {
        let mut out = Vec::new();
        for sender in self.senders.used() {
            out.push(self.funds_of(head, &sender).await?);
        }
        Ok(out)
    }

    async fn funds_of(&self, head: &TipsetRef, sender: &ChainAddress) -> Result<SenderFunds, ChainError> {
        let account = self.node.account(head, sender).await?;
        let in_flight = self.store.signed_from(sender, account.nonce).await?;
        let locked: econ::TokenAmount = in_flight.values().flatten().map(|signed| cost(&signed.message)).sum();
        let (balance, locked) = (to_amount(&account.balance), to_amount(&locked));
        let (spent, watched) = self.purses.0.lock().get(sender).map_or((TokenAmount::ZERO, 0), Purse::spent);
        Ok(SenderFunds {
            sender: to_core(sender),
            balance,
            locked,
            in_flight: in_flight.len(),
            spent,
            watched,
            runway: runway(balance - locked, spent, watched),
        })
    }

    /// Watches what the senders spend, and tells of those that cannot go on for long.
    pub(super) async fn look_at_funds(&self, head: &TipsetRef) {
        for sender in self.senders.used() {
            let due = self.purses.0.lock().entry(sender).or_default().is_due(head.epoch.0);
            if !due {
                continue;
            }
            let funds = match self.funds_of(head, &sender).await {
                Ok(funds) => funds,
                Err(e) => {
                    debug!(error = e.chain(), "the funds of a sender are not known");
                    continue;
                }
            };
            let mut purses = self.purses.0.lock();
            let purse = purses.entry(sender).or_default();
            purse.take(head.epoch.0, funds.balance);
            let (spent, watched) = purse.spent();
            let free = funds.balance - funds.locked;
            let lasts = runway(free, spent, watched);
            let reserve = if self.senders.proves(&sender) { to_amount(&self.reserve) } else { TokenAmount::ZERO };
            let low = free <= TokenAmount::ZERO || free < reserve || lasts.is_some_and(|l| l < self.fees.runway_alert);
            if low == purse.is_low {
                continue;
            }
            purse.is_low = low;
            drop(purses);
            let what = if low {
                FundsEvent::Low { balance: funds.balance, locked: funds.locked, runway: lasts }
            } else {
                FundsEvent::Enough { balance: funds.balance }
            };
            self.tell(Event::Funds { sender: funds.sender, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runway_is_what_is_left_at_the_rate_of_late() {
        let fil = TokenAmount::from_fil;
        let mut purse = Purse::default();
        for (epoch, balance) in [(0, 100), (10, 90), (20, 95), (30, 85)] {
            purse.take(epoch, fil(balance));
        }
        assert_eq!(purse.spent(), (fil(20), 30), "what came in does not count");
        assert_eq!(runway(fil(85), fil(20), 30), Some(127));
        assert_eq!(runway(fil(85), fil(0), 30), None);
        assert_eq!(runway(fil(-5), fil(20), 30), Some(0));
        // A reorganisation takes the head back.
        purse.take(15, fil(90));
        assert_eq!(purse.spent(), (fil(10), 15));
        assert!(!purse.is_due(24) && purse.is_due(25) && purse.is_due(14));
    }
}
