//! Messages that take the place of others: dearer ones that do the same, and ones that do nothing in the place of what
//! was cancelled.

use super::{
    Account, InFlight, Outbox, OutboxState, Replacement,
    deliver::time_left,
    lane::Lane,
    limits::in_chain,
    pricing::{self, Price, is_due, least_premium, replacement, roomy},
    run::{Notes, Went},
    sign::{check_funds, closes, cost, is_transfer, nothing},
    store::{Purpose, Signing, Version},
};
use damocles_core::{
    Recovery,
    chain::{CallKind, ChainError, ChainErrorKind, TipsetRef},
};
use fvm_shared::{econ::TokenAmount, message::Message};
use tracing::{debug, warn};

/// Messages that are replaced together.
const TOGETHER: usize = 100;

/// Why a message is replaced.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// It waits too long.
    Age,
    /// An operator asked for it.
    Asked(Replacement),
    /// It was cancelled.
    Cancelled,
}

/// A message that may have to be replaced.
struct Due<'r> {
    why: Why,
    row: &'r InFlight,
    /// A proof of spacetime that is still of use waits for it, or it is one.
    before_proof: bool,
    /// The gas limit that it is to have if that can be paid.
    limit: u64,
}

/// What lands at a head.
struct Market {
    base_fee: TokenAmount,
    premium: TokenAmount,
}

impl Outbox {
    /// Replaces the messages that wait too long, or that an operator wants replaced.
    pub(super) async fn reprice(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        account: &Account,
        rows: &[InFlight],
        notes: &mut Notes,
    ) -> Went {
        let due = self.due(head, account, rows);
        let Some(Due { row: first, .. }) = due.first() else { return Went::Well };
        let market = match self.market(head, first).await {
            Ok(market) => market,
            Err(e) => {
                notes.take(&first.key, OutboxState::Signed, first.error.as_deref(), Some(&e));
                return Went::of(&e);
            }
        };
        let (mut went, mut batch, mut questions) = (Went::Well, Vec::new(), TOGETHER);
        let mut committed: TokenAmount = rows.iter().map(|row| cost(&row.version.signed.message)).sum();
        for mut due in due {
            let row = due.row;
            if matches!(due.why, Why::Age) {
                if !is_at_fault(account, &due, &market) {
                    continue;
                }
                due.limit = self.limit_now(lane, head, &due, &mut questions).await;
            }
            let others = &committed - cost(&row.version.signed.message);
            match self.redraw(head, account, &others, &due, &market).await {
                Ok(version) => {
                    committed = others + cost(&version.signed.message);
                    batch.push((Signing { key: row.key.clone(), version }, row.version.clone()));
                }
                Err(e) => {
                    notes.take(&row.key, OutboxState::Signed, row.error.as_deref(), Some(&e));
                    if matches!(due.why, Why::Asked(_)) && self.store.ask(&row.key, None).await.is_err() {
                        went = went.max(Went::Badly);
                    }
                    // A message at its ceiling waits for other days and not for another try.
                    if e.kind() != ChainErrorKind::Rejected {
                        went = went.max(Went::of(&e));
                    }
                }
            }
        }
        for part in batch.chunks(TOGETHER) {
            // What the pool has is the old one, and stays so if the push fails.
            for (new, _) in part {
                lane.forget(&new.key);
            }
            // Recorded first: whichever of them lands is known to be ours.
            if let Err(e) = self.store.replace(part).await {
                warn!(error = e.chain(), "the outbox cannot be written");
                return Went::Badly;
            }
            let new: Vec<Signing> = part.iter().map(|(new, _)| new.clone()).collect();
            went = went.max(self.push_signed(lane, head, &new, notes).await);
        }
        went
    }

    /// The messages that may have to be replaced.
    fn due<'r>(&self, head: &TipsetRef, account: &Account, rows: &'r [InFlight]) -> Vec<Due<'r>> {
        let left = time_left(rows, head.epoch.0);
        let why = |(row, left): (&'r InFlight, Option<i64>)| {
            let limit = row.version.signed.message.gas_limit;
            let due = |why| Some(Due { why, row, before_proof: left.is_some(), limit });
            if row.cancel && row.version.purpose == Purpose::Call {
                return due(Why::Cancelled);
            }
            if let Some(fees) = row.asked {
                return due(Why::Asked(fees));
            }
            let policy = self.fees.policy(class(head, row, left.is_some()));
            let age = row.version.signed_at.map_or(i64::MAX, |at| head.epoch.0.saturating_sub(at));
            // A reorganisation may have taken the head back below the epoch at which it was signed.
            let is_old = row.nonce() >= account.nonce && is_due(policy, age, left);
            if is_old { due(Why::Age) } else { None }
        };
        rows.iter().zip(left).filter_map(why).collect()
    }

    async fn market(&self, head: &TipsetRef, row: &InFlight) -> Result<Market, ChainError> {
        let base_fee = self.node.base_fee(head).await?;
        // With its limit set, nothing but the premium is estimated.
        let newest = &row.version.signed.message;
        let premium = self.node.estimate(row.call.as_ref(), unpriced(newest, newest.gas_limit)).await?.premium;
        Ok(Market { base_fee, premium })
    }

    /// The gas limit of a message by what the node says now, and never less than it has: what it needs may have grown while
    /// it waited, and with too little it lands and fails. `questions` are those that are left for this pass, for a node
    /// runs all that waits before a message to tell what it needs.
    async fn limit_now(&self, lane: &Lane, head: &TipsetRef, due: &Due<'_>, questions: &mut usize) -> u64 {
        let newest = &due.row.version.signed.message;
        let old = newest.gas_limit;
        if due.row.version.purpose == Purpose::Cancel {
            return old;
        }
        let policy = self.fees.policy(class(head, due.row, due.before_proof));
        let known = lane.transfer_limit(&newest.to, head.epoch.0).filter(|_| is_transfer(newest));
        if let Some(known) = known {
            return roomy(policy, known).max(old);
        }
        if *questions == 0 {
            return old;
        }
        *questions -= 1;
        match self.node.estimate(due.row.call.as_ref(), unpriced(newest, 0)).await {
            // What the node could not run now may run when it lands, and is not measured.
            Ok(said) if said.is_guess => old,
            Ok(said) => roomy(policy, said.limit).max(old),
            Err(e) => {
                debug!(key = %due.row.key, error = e.chain(), "what a message needs now is not known");
                if Went::of(&e) == Went::Away {
                    *questions = 0;
                }
                old
            }
        }
    }

    /// Makes the message that takes the place of a call's newest one.
    async fn redraw(
        &self,
        head: &TipsetRef,
        account: &Account,
        others: &TokenAmount,
        due: &Due<'_>,
        market: &Market,
    ) -> Result<Version, ChainError> {
        let Due { why, row, before_proof, limit } = *due;
        let purpose = match why {
            Why::Cancelled => Purpose::Cancel,
            Why::Age | Why::Asked(_) => row.version.purpose,
        };
        // The same bytes but for the price: whatever of it lands does what was asked for.
        let content = match why {
            Why::Cancelled => self.nothing(row).await?,
            Why::Age | Why::Asked(_) => row.version.signed.message.clone(),
        };
        let old = Price { limit: content.gas_limit, ..Price::of(&row.version.signed.message) };
        let policy = self.fees.policy(class(head, row, before_proof));
        // What fills a nonce, or stands before a proof, is there for what comes after it.
        let may_use_all = before_proof || purpose == Purpose::Cancel || row.kind() == Some(CallKind::PoSt);
        let reserve = if may_use_all { TokenAmount::default() } else { self.reserve_of(&content.from) };
        let usual = |old: &Price| replacement(policy, self.fees.replace_ratio, &market.base_fee, &market.premium, old);
        let paid = |price: Price| {
            let message = price.onto(content.clone());
            check_funds(account, others, &message, reserve.clone()).map(|()| message)
        };
        let message = match why {
            // More gas than its ceiling or its sender pays for must not keep it from landing.
            Why::Age => {
                usual(&Price { limit, ..old.clone() }).and_then(paid).or_else(|_| usual(&old).and_then(paid))?
            }
            Why::Cancelled => usual(&old).and_then(paid)?,
            Why::Asked(fees) => paid(by_hand(fees, usual(&old), market, &old)?)?,
        };
        let signed = self.signed(message).await?;
        Ok(Version::new(purpose, signed, head.epoch.0))
    }

    /// A message that does nothing but fill the nonce of another.
    async fn nothing(&self, row: &InFlight) -> Result<Message, ChainError> {
        let mut message = nothing(row.version.signed.message.from, row.nonce());
        message.gas_limit = self.node.estimate(None, message.clone()).await?.limit;
        Ok(message)
    }
}

/// A message whose price is asked for.
fn unpriced(message: &Message, gas_limit: u64) -> Message {
    Price { limit: gas_limit, cap: TokenAmount::default(), premium: TokenAmount::default() }.onto(message.clone())
}

/// The class whose fees a message may pay. What stands before a proof may pay what the proof may, and a proof whose window
/// has closed is worth no more than anything else.
fn class(head: &TipsetRef, row: &InFlight, before_proof: bool) -> CallKind {
    let is_closed = row.call.as_ref().and_then(closes).is_some_and(|close| close <= head.epoch.0);
    match row.kind() {
        _ if before_proof => CallKind::PoSt,
        Some(kind) if !is_closed => kind,
        _ => CallKind::Other,
    }
}

/// Whether it is the message's own price that keeps it from landing, and not the message before it. Before a proof nobody
/// waits to learn that.
fn is_at_fault(account: &Account, due: &Due<'_>, market: &Market) -> bool {
    let message = &due.row.version.signed.message;
    due.row.nonce() == account.nonce
        || message.gas_fee_cap < market.base_fee
        || (due.before_proof && message.gas_premium < market.premium)
}

/// The price that an operator asks for, with what was left open filled in.
fn by_hand(
    fees: Replacement,
    usual: Result<Price, ChainError>,
    market: &Market,
    old: &Price,
) -> Result<Price, ChainError> {
    let limit = fees.gas_limit.unwrap_or(old.limit);
    let least = least_premium(&old.premium);
    let premium = match (fees.premium, &usual) {
        (Some(premium), _) => in_chain(premium),
        (None, Ok(usual)) => usual.premium.clone(),
        (None, Err(_)) => least,
    };
    let cap = match (fees.fee_cap, usual) {
        (Some(cap), _) => in_chain(cap),
        (None, Ok(usual)) => usual.cap.max(&market.base_fee + &premium),
        (None, Err(e)) if fees.premium.is_none() => return Err(e),
        (None, Err(_)) => old.cap.clone().max(&market.base_fee + &premium),
    };
    let price = Price { limit, cap, premium };
    check_offer(&price, old)?;
    Ok(price)
}

/// Refuses an offer that no pool takes in the place of another.
pub(super) fn check_offer(price: &Price, old: &Price) -> Result<(), ChainError> {
    let least = least_premium(&old.premium);
    let refused = |what: &'static str| {
        ChainError::new(ChainErrorKind::Rejected, "replace message").recover_by(Recovery::Park).with("what", what)
    };
    if price.premium < least {
        return Err(refused("the premium is too low for a replacement")
            .with("premium", &price.premium)
            .with("least", &least)
            .hint_with("offer at least 1.10 times the premium of the message that it replaces, and one attoFIL more"));
    }
    if price.cap < price.premium {
        return Err(refused("the fee cap does not cover the premium")
            .with("fee cap", &price.cap)
            .with("premium", &price.premium));
    }
    if price.limit < old.limit || price.limit > pricing::BLOCK_GAS {
        return Err(refused("the gas limit is lower than before, or higher than a block's").with("limit", price.limit));
    }
    Ok(())
}
