//! Which messages are let into the pool, by Lotus' rules (`checkMessage` and `addTs` in `chain/messagepool`) and in its
//! order. In one thing we are stricter: a sender has to have the value too, and not only what the gas may cost.

use super::{
    actors::{Actor, code, load},
    chain::Entry,
    fees, gas,
    mempool::{Refusal, Trust},
    node::{Devnet, encode},
    signed::{SignedMessage, message_cid},
};
use crate::lotus_json::text_of;
use cid::Cid;
use fil_actor_account_state::v18 as account;
use fil_actor_init_state::v18 as init;
use fil_actors_shared::v18::INIT_ACTOR_ID;
use fvm_ipld_encoding::to_vec;
use fvm_shared::{ActorID, address::Address, econ::TokenAmount, message::Message};

/// What a message may be long.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// All FIL that there will ever be.
const TOTAL_FILECOIN: i64 = 2_000_000_000;

impl Devnet {
    /// Checks a message, records it and puts it into the pool.
    pub(super) fn accept(&self, message: SignedMessage, trust: Trust) -> Result<Cid, Refusal> {
        let from = self.check_shape(&message)?;
        let mut chain = self.chain.write();
        let unknown = || Refusal::Sender { from: text_of(&message.message.from) };
        let sender: &Actor = chain.actors.get(&from).ok_or_else(unknown)?;
        let nonce = message.message.sequence;
        if nonce < sender.sequence {
            return Err(Refusal::NonceTooLow { expected: sender.sequence });
        }
        let least = gas::inclusion_of(&message.message);
        if message.message.gas_limit < least {
            let reason = format!(
                "'GasLimit' field cannot be less than the cost of storing a message on chain {} < {least}",
                message.message.gas_limit
            );
            return Err(Refusal::Excluded { reason });
        }
        let deposit = fees::deposit(&message.message);
        let required = &deposit + &message.message.value;
        let balance = sender.balance.clone();
        if balance < required {
            return Err(Refusal::Funds { required, balance });
        }
        let required = deposit + chain.pool.deposits(from, nonce);
        if balance < required {
            return Err(Refusal::FundsWithPending { required, balance });
        }
        let limits = &self.config.pool;
        chain.pool.check(from, sender.sequence, &message, trust, limits)?;
        let bytes = to_vec(&message).map_err(|e| Refusal::Failed(e.to_string()))?;
        let entry = encode(&Entry::Push { from, message: bytes }).map_err(|e| Refusal::Failed(e.chain()))?;
        // The message is stored too, so that its CID leads somewhere before it lands.
        let block = (message.cid(), message.stored());
        self.store.append(&entry, vec![block]).map_err(|e| Refusal::Failed(e.chain()))?;
        let unsigned = message_cid(&message.message);
        Ok(chain.push(from, message, unsigned, limits))
    }

    /// What can be said without looking at the sender's nonce and balance. Returns the sender.
    fn check_shape(&self, signed: &SignedMessage) -> Result<ActorID, Refusal> {
        let bytes = to_vec(signed).map_err(|e| Refusal::Failed(e.to_string()))?.len();
        if bytes > MAX_MESSAGE_BYTES {
            return Err(Refusal::TooBig { bytes });
        }
        if let Some(reason) = fault(&signed.message) {
            return Err(Refusal::Invalid { reason });
        }
        if signed.message.gas_fee_cap < fees::minimum_base_fee() {
            return Err(Refusal::FeeCapTooLow);
        }
        let (id, key) = self.account(&signed.message.from)?;
        if !signed.verify(&key) {
            return Err(Refusal::Signature {
                reason: format!("{} signature of {} did not verify", kind_text(signed), text_of(&signed.message.from)),
            });
        }
        Ok(id)
    }

    /// The account behind an address, and its key.
    pub(super) fn account(&self, address: &Address) -> Result<(ActorID, Address), Refusal> {
        let unknown = || Refusal::Sender { from: text_of(address) };
        let (_, actors) = self.tip();
        let id = match address.id() {
            Ok(id) => id,
            Err(_) => {
                let init = actors.get(&INIT_ACTOR_ID).ok_or_else(unknown)?;
                let state: init::State = load(&self.store, &init.state).map_err(|e| Refusal::Failed(e.to_string()))?;
                let found = state.resolve_address(&self.store, address).map_err(|e| Refusal::Failed(e.to_string()))?;
                found.and_then(|a| a.id().ok()).ok_or_else(unknown)?
            }
        };
        let actor = actors.get(&id).filter(|a| a.code == code::of(code::ACCOUNT)).ok_or_else(unknown)?;
        let state: account::State = load(&self.store, &actor.state).map_err(|_| unknown())?;
        Ok((id, state.address))
    }
}

/// Why no block may hold a message, in Lotus' words (`ValidForBlockInclusion`).
fn fault(message: &Message) -> Option<String> {
    let fixed = if message.version != 0 {
        "'Version' unsupported"
    } else if message.value.is_negative() {
        "'Value' field cannot be negative"
    } else if message.value > TokenAmount::from_whole(TOTAL_FILECOIN) {
        "'Value' field cannot be greater than total filecoin supply"
    } else if message.gas_fee_cap.is_negative() {
        "'GasFeeCap' field cannot be negative"
    } else if message.gas_premium.is_negative() {
        "'GasPremium' field cannot be negative"
    } else if message.gas_premium > message.gas_fee_cap {
        "'GasFeeCap' less than 'GasPremium'"
    } else if message.gas_limit > fees::BLOCK_GAS_LIMIT {
        return Some(format!(
            "'GasLimit' field cannot be greater than a block's gas limit ({} > {})",
            message.gas_limit,
            fees::BLOCK_GAS_LIMIT
        ));
    } else {
        return None;
    };
    Some(fixed.to_owned())
}

const fn kind_text(signed: &SignedMessage) -> &'static str {
    match signed.signature.sig_type {
        fvm_shared::crypto::signature::SignatureType::Secp256k1 => "secp256k1",
        fvm_shared::crypto::signature::SignatureType::BLS => "bls",
    }
}
