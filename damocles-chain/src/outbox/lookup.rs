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
