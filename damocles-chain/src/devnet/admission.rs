//! Which messages are let into the pool.

use super::{
    actors::{Actor, code, load},
    chain::{Entry, Pushed},
    gas,
    mempool::Refusal,
    node::{Devnet, encode},
    signed::{SignedMessage, message_cid},
};
use crate::lotus_json::text_of;
use cid::Cid;
use fil_actor_account_state::v18 as account;
use fil_actor_init_state::v18 as init;
use fil_actors_shared::v18::INIT_ACTOR_ID;
use fvm_ipld_encoding::to_vec;
use fvm_shared::{ActorID, address::Address};

/// What a message may be long.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

impl Devnet {
    /// Checks a message, records it and puts it into the pool.
    pub(super) fn accept(&self, message: SignedMessage) -> Result<Cid, Refusal> {
        let from = self.check_shape(&message)?;
        let mut chain = self.chain.write();
        let unknown = || Refusal::Sender { from: text_of(&message.message.from) };
        let sender: &Actor = chain.actors.get(&from).ok_or_else(unknown)?;
        if message.message.sequence < sender.sequence {
            return Err(Refusal::NonceTooLow { expected: sender.sequence });
        }
        let required = gas::worst_case(&message.message) + &message.message.value;
        if sender.balance < required {
            return Err(Refusal::Funds { required, balance: sender.balance.clone() });
        }
        chain.pool.check(from, &message)?;
        let bytes = to_vec(&message).map_err(|e| Refusal::Failed(e.to_string()))?;
        let nonce = message.message.sequence;
        let entry = encode(&Entry::Push { from, message: bytes }).map_err(|e| Refusal::Failed(e.chain()))?;
        // The message is stored too, so that its CID leads somewhere before it lands.
        let block = (message.cid(), message.stored());
        self.store.append(&entry, vec![block]).map_err(|e| Refusal::Failed(e.chain()))?;
        let unsigned = message_cid(&message.message);
        let cid = chain.pool.insert(from, message)?;
        chain.remember_push(unsigned, Pushed { cid, from, nonce });
        Ok(cid)
    }

    /// What can be said without looking at the sender's balance. Returns the sender.
    fn check_shape(&self, signed: &SignedMessage) -> Result<ActorID, Refusal> {
        let message = &signed.message;
        let invalid = |reason: String| Refusal::Invalid { reason };
        let bytes = to_vec(signed).map_err(|e| Refusal::Failed(e.to_string()))?.len();
        if message.version != 0 {
            return Err(invalid("'Version' unsupported".to_owned()));
        }
        if bytes > MAX_MESSAGE_BYTES {
            return Err(invalid(format!("message too large: {bytes}")));
        }
        if message.value.is_negative() || message.gas_premium.is_negative() || message.gas_fee_cap.is_negative() {
            return Err(invalid("'Value', 'GasPremium' and 'GasFeeCap' field cannot be negative".to_owned()));
        }
        if message.gas_premium > message.gas_fee_cap {
            return Err(invalid("'GasFeeCap' less than 'GasPremium'".to_owned()));
        }
        if message.gas_fee_cap < gas::base_fee() {
            return Err(invalid(format!(
                "gas fee cap too low: {} < base fee {}",
                message.gas_fee_cap,
                gas::base_fee()
            )));
        }
        let least = gas::inclusion(to_vec(message).map(|b| b.len() as u64).unwrap_or_default());
        if message.gas_limit < least {
            return Err(invalid(format!(
                "'GasLimit' field cannot be less than the cost of storing a message on chain {} < {least}",
                message.gas_limit
            )));
        }
        if message.gas_limit > gas::BLOCK_GAS_LIMIT {
            return Err(invalid(format!(
                "'GasLimit' field cannot be greater than a block's gas limit ({} > {})",
                message.gas_limit,
                gas::BLOCK_GAS_LIMIT
            )));
        }
        let (id, key) = self.account(&message.from)?;
        if !signed.verify(&key) {
            return Err(Refusal::Signature {
                reason: format!("{} signature of {} did not verify", kind_text(signed), text_of(&message.from)),
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

const fn kind_text(signed: &SignedMessage) -> &'static str {
    match signed.signature.sig_type {
        fvm_shared::crypto::signature::SignatureType::Secp256k1 => "secp256k1",
        fvm_shared::crypto::signature::SignatureType::BLS => "bls",
    }
}
