//! Which messages a block takes.
//!
//! Lotus' greedy selection (`selectMessagesGreedy` in `chain/messagepool/selection.go`), which a block's maker uses that is
//! sure to be the first of its tipset: the messages of each sender become chains of nonces, each of which offers more per
//! gas than the next; the best chains go first, and the one that does not fit any more is cut to what fits. Two things
//! differ: offers are compared exactly and not as floating point, and a message whose fee cap is below the base fee ends
//! its sender's chains, whatever comes after it.

use super::{
    actors::Actor,
    fees::{self, BLOCK_GAS_LIMIT, BLOCK_MESSAGE_LIMIT},
    gas,
    signed::SignedMessage,
};
use fvm_shared::{ActorID, bigint::BigInt, econ::TokenAmount};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
};

/// What a sender has on chain.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) nonce: u64,
    pub(super) balance: TokenAmount,
}

impl Account {
    pub(super) fn of(actor: &Actor) -> Self {
        Self { nonce: actor.sequence, balance: actor.balance.clone() }
    }
}

/// Messages of one sender, by nonce.
type Waiting = BTreeMap<u64, SignedMessage>;

/// Messages of one sender that go together, with what they offer.
struct Chain<'m> {
    from: ActorID,
    messages: Vec<(&'m SignedMessage, BigInt)>,
    reward: BigInt,
    gas: u64,
    /// The chains after this one, the next one last.
    rest: Vec<Self>,
}

impl<'m> Chain<'m> {
    fn new(from: ActorID, message: &'m SignedMessage, reward: BigInt) -> Self {
        let gas = message.message.gas_limit;
        Self { from, reward: reward.clone(), gas, messages: vec![(message, reward)], rest: Vec::new() }
    }

    fn absorb(&mut self, other: Self) {
        self.reward += other.reward;
        self.gas += other.gas;
        self.messages.extend(other.messages);
    }

    /// Compares what two chains offer per gas.
    fn per_gas(&self, other: &Self) -> Ordering {
        (&self.reward * other.gas).cmp(&(&other.reward * self.gas))
    }

    /// Drops messages from the end until it fits. What came after it cannot land without them.
    fn trim(&mut self, gas: u64, messages: usize) {
        self.rest.clear();
        while self.gas > gas || self.messages.len() > messages {
            let Some((message, reward)) = self.messages.pop() else { return };
            self.gas -= message.message.gas_limit;
            self.reward -= reward;
        }
    }
}

impl PartialEq for Chain<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Chain<'_> {}

impl PartialOrd for Chain<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Chain<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.per_gas(other).then_with(|| self.reward.cmp(&other.reward)).then_with(|| other.from.cmp(&self.from))
    }
}

/// The messages of a block with this base fee, with their senders. `free` says which may be taken at all.
pub(super) fn block<'m>(
    senders: impl Iterator<Item = (ActorID, Account, &'m Waiting)>,
    base_fee: &TokenAmount,
    free: impl Fn(&SignedMessage) -> bool,
) -> Vec<(SignedMessage, ActorID)> {
    let mut best: BinaryHeap<Chain<'m>> =
        senders.filter_map(|(from, account, set)| chains(from, account, set, base_fee, &free)).collect();
    let mut chosen = Vec::new();
    let mut gas = BLOCK_GAS_LIMIT;
    while let Some(mut chain) = best.pop() {
        let room = BLOCK_MESSAGE_LIMIT - chosen.len();
        if chain.gas > gas || chain.messages.len() > room {
            chain.trim(gas, room);
            if !chain.messages.is_empty() {
                best.push(chain);
            }
            continue;
        }
        gas -= chain.gas;
        chosen.extend(chain.messages.iter().map(|(message, _)| ((*message).clone(), chain.from)));
        if let Some(mut next) = chain.rest.pop() {
            next.rest = chain.rest;
            best.push(next);
        }
    }
    chosen
}

/// The chains of one sender: the first, with the others behind it.
fn chains<'m>(
    from: ActorID,
    account: Account,
    set: &'m Waiting,
    base_fee: &TokenAmount,
    free: impl Fn(&SignedMessage) -> bool,
) -> Option<Chain<'m>> {
    let mut chains: Vec<Chain<'m>> = Vec::new();
    for (message, reward) in candidates(account, set, base_fee, free) {
        chains.push(Chain::new(from, message, reward));
        // A chain that offers no less than the one before it makes that one better.
        while let [.., before, last] = chains.as_slice() {
            if last.per_gas(before) == Ordering::Less {
                break;
            }
            if let (Some(last), Some(before)) = (chains.pop(), chains.last_mut()) {
                before.absorb(last);
            }
        }
    }
    chains.reverse();
    let mut first = chains.pop()?;
    first.rest = chains;
    Some(first)
}

/// The messages that can land one after the other, with what each offers.
fn candidates<'m>(
    account: Account,
    set: &'m Waiting,
    base_fee: &TokenAmount,
    free: impl Fn(&SignedMessage) -> bool,
) -> Vec<(&'m SignedMessage, BigInt)> {
    let Account { mut nonce, mut balance } = account;
    let mut gas_limit = 0_u64;
    let mut out = Vec::new();
    while let Some(signed) = set.get(&nonce) {
        let message = &signed.message;
        let deposit = fees::deposit(message);
        gas_limit = gas_limit.saturating_add(message.gas_limit);
        if message.gas_fee_cap < *base_fee
            || message.gas_limit < gas::inclusion_of(message)
            || gas_limit > BLOCK_GAS_LIMIT
            || balance < deposit
            || out.len() >= BLOCK_MESSAGE_LIMIT
            || !free(signed)
        {
            break;
        }
        // A value that is not there any more is the actor's failure and not the block's.
        balance -= deposit + &message.value;
        let reward = fees::effective_premium(message, base_fee).atto() * message.gas_limit;
        out.push((signed, reward));
        nonce += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_shared::{address::Address, crypto::signature::Signature, message::Message};

    fn waiting(from: ActorID, offers: &[(i64, u64)]) -> Waiting {
        let message = |nonce: usize, premium: i64, limit: u64| Message {
            version: 0,
            from: Address::new_id(from),
            to: Address::new_id(99),
            sequence: nonce as u64,
            value: TokenAmount::default(),
            method_num: 0,
            params: Default::default(),
            gas_limit: limit,
            gas_fee_cap: TokenAmount::from_atto(1000),
            gas_premium: TokenAmount::from_atto(premium),
        };
        offers
            .iter()
            .enumerate()
            .map(|(nonce, (premium, limit))| {
                let signature = Signature::new_bls(vec![0; 96]);
                (nonce as u64, SignedMessage { message: message(nonce, *premium, *limit), signature })
            })
            .collect()
    }

    fn run(sets: &[(ActorID, Waiting)], balance: i64, base_fee: i64) -> Vec<(ActorID, u64)> {
        let senders = sets
            .iter()
            .map(|(from, set)| (*from, Account { nonce: 0, balance: TokenAmount::from_whole(balance) }, set));
        block(senders, &TokenAmount::from_atto(base_fee), |_| true)
            .into_iter()
            .map(|(message, from)| (from, message.message.sequence))
            .collect()
    }

    const M: u64 = 1_000_000;

    #[test]
    fn better_offers_go_first_and_nonces_keep_their_order() {
        let sets = [
            (1, waiting(1, &[(10, M), (90, M)])), // one chain of 50
            (2, waiting(2, &[(60, M), (20, M)])), // two chains
            (3, waiting(3, &[(40, M)])),
        ];
        assert_eq!(run(&sets, 1, 100), [(2, 0), (1, 0), (1, 1), (3, 0), (2, 1)]);
    }

    #[test]
    fn a_fee_cap_below_the_base_fee_is_not_included() {
        let mut set = waiting(1, &[(10, M), (10, M), (10, M)]);
        set.get_mut(&1).unwrap().message.gas_fee_cap = TokenAmount::from_atto(499);
        assert_eq!(run(&[(1, set.clone())], 1, 499).len(), 3);
        assert_eq!(run(&[(1, set)], 1, 500), [(1, 0)]);
    }

    #[test]
    fn a_full_block_takes_what_fits() {
        let half = BLOCK_GAS_LIMIT / 2;
        let sets = [
            (1, waiting(1, &[(50, half), (50, half / 2)])),
            (2, waiting(2, &[(40, half)])),
            (3, waiting(3, &[(30, half / 2), (30, 1 + half / 2)])),
            (4, waiting(4, &[(20, half / 2), (90, 2 * M)])),
        ];
        // The second does not fit beside the first; of the third the first half does.
        assert_eq!(run(&sets, 1, 100), [(1, 0), (1, 1), (3, 0)]);
        let many: Vec<(i64, u64)> = vec![(1, M); BLOCK_MESSAGE_LIMIT + 5];
        let sets = [(1, waiting(1, &many[..6000])), (2, waiting(2, &many[..6000]))];
        assert_eq!(run(&sets, 1, 100).len(), BLOCK_MESSAGE_LIMIT);
    }

    #[test]
    fn what_cannot_be_paid_waits() {
        let set = waiting(1, &[(10, M), (10, M)]);
        let account = |balance| Account { nonce: 0, balance: TokenAmount::from_atto(balance) };
        let run = |balance: i64| {
            block([(1, account(balance), &set)].into_iter(), &TokenAmount::from_atto(100), |_| true).len()
        };
        assert_eq!((run(999_999_999), run(1_000_000_000), run(2_000_000_000)), (0, 1, 2));
    }
}
