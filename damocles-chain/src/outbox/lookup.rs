//! From a message on chain to a receipt.

use super::Found;
use crate::actor::created_miner;
use damocles_core::{
    Epoch,
    chain::{CallKind, Receipt},
};
use fvm_shared::{econ::TokenAmount, message::Message};

/// Whether two messages do the same and differ in nothing but what they pay for it: what Lotus lets a message be
/// replaced by.
pub(crate) fn same_call(one: &Message, other: &Message) -> bool {
    let unpriced = |message: &Message| Message {
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        ..message.clone()
    };
    unpriced(one) == unpriced(other)
}

/// Whether a message that a node names in the place of another does the same; none where it cannot be in that place,
/// having another sender or nonce.
pub(super) fn has_replaced(message: &Message, other: &Message) -> Option<bool> {
    let place = |message: &Message| (message.from, message.sequence);
    (place(message) == place(other)).then(|| same_call(message, other))
}

/// The receipt of a message of this class, if that is known.
pub(crate) fn receipt_of(kind: Option<CallKind>, found: &Found, said: Option<String>) -> Receipt {
    let created = (kind == Some(CallKind::CreateMiner) && found.exit_code == 0).then(|| created_miner(&found.returned));
    Receipt {
        message: found.message.to_string(),
        exit_code: found.exit_code,
        returned: found.returned.clone(),
        error: said,
        epoch: Epoch(found.epoch),
        created: created.flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_shared::address::Address;

    #[test]
    fn a_message_has_replaced_another_only_in_its_place() {
        let message = Message {
            version: 0,
            from: Address::new_id(1000),
            to: Address::new_id(2000),
            sequence: 7,
            value: TokenAmount::from_atto(5),
            method_num: 0,
            params: Default::default(),
            gas_limit: 10,
            gas_fee_cap: TokenAmount::from_atto(3),
            gas_premium: TokenAmount::from_atto(2),
        };
        let dearer = Message { gas_premium: TokenAmount::from_atto(3), gas_limit: 12, ..message.clone() };
        let other = Message { value: TokenAmount::from_atto(6), ..message.clone() };
        let later = Message { sequence: 8, ..message.clone() };
        let foreign = Message { from: Address::new_id(1001), ..message.clone() };
        let said = [&dearer, &other, &later, &foreign].map(|said| has_replaced(&message, said));
        assert_eq!(said, [Some(true), Some(false), None, None]);
    }
}
