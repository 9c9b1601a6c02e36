//! What a key may sign.

use super::{Method, WalletError, WalletErrorKind};
use crate::{
    lotus_json::{from_core, text_of, to_core},
    signer::{Purpose, SignRequest, is_message_cid},
};
use damocles_core::{Address, TokenAmount};
use fvm_shared::{address::Address as ChainAddress, message::Message};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A gateway's question is some 40 bytes, a block header has hundreds.
const LONGEST_QUESTION: usize = 128;

/// What a key may sign. A key without a policy may sign everything; one with a policy only what this allows.
///
/// - A message must be from the key itself, call one of `methods` and go to one of `receivers`; where a set is not
///   given, any will do.
/// - `daily` bounds what messages of one day (UTC) can cost the key: value and the most that their gas can cost. Of
///   messages with the same nonce, of which only one can land, the dearest counts.
/// - Bytes that are no message must be of one of `purposes`. Bytes that have the form of a message's CID are never
///   signed as something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    methods: Option<BTreeSet<Method>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receivers: Option<BTreeSet<Address>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    daily: Option<TokenAmount>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    purposes: BTreeSet<Purpose>,
}

impl Policy {
    /// Any message, and nothing else.
    #[must_use]
    pub fn messages() -> Self {
        Self::default()
    }

    /// Allows a method, and no method that is not allowed.
    #[must_use]
    pub fn with_method(mut self, method: Method) -> Self {
        self.methods.get_or_insert_default().insert(method);
        self
    }

    /// Allows a receiver, and no receiver that is not allowed. It is compared as messages write it: an actor's ID is
    /// not the same as its other address.
    ///
    /// # Errors
    ///
    /// It is no address.
    pub fn with_receiver(mut self, receiver: &Address) -> Result<Self, WalletError> {
        let known = from_core(receiver).map_err(|e| {
            WalletError::new(WalletErrorKind::BadSetting, "set policy")
                .with("receiver", receiver)
                .hint_with("give the address as messages will write it, for a miner `t01000`")
                .because(e)
        })?;
        self.receivers.get_or_insert_default().insert(to_core(&known));
        Ok(self)
    }

    /// Bounds what messages of a day can cost.
    ///
    /// # Errors
    ///
    /// The amount is negative.
    pub fn with_daily(mut self, most: TokenAmount) -> Result<Self, WalletError> {
        if most < TokenAmount::ZERO {
            return Err(WalletError::new(WalletErrorKind::BadSetting, "set policy")
                .with("daily", most)
                .hint_with("give an amount of FIL that is not negative"));
        }
        self.daily = Some(most);
        Ok(self)
    }

    /// Allows bytes that are no message.
    #[must_use]
    pub fn with_purpose(mut self, purpose: Purpose) -> Self {
        self.purposes.insert(purpose);
        self
    }

    /// The allowed methods; `None` for any.
    pub fn methods(&self) -> Option<&BTreeSet<Method>> {
        self.methods.as_ref()
    }

    /// The allowed receivers; `None` for any.
    pub fn receivers(&self) -> Option<&BTreeSet<Address>> {
        self.receivers.as_ref()
    }

    /// The most that messages of a day may cost.
    pub fn daily(&self) -> Option<TokenAmount> {
        self.daily
    }

    /// What else than messages may be signed.
    pub fn purposes(&self) -> &BTreeSet<Purpose> {
        &self.purposes
    }

    /// Whether `key` may sign what is asked, its daily limit aside. The cost of the message, for that limit.
    pub(super) fn check(&self, key: &ChainAddress, request: &SignRequest) -> Result<Option<Cost>, WalletError> {
        let refused = |what: &'static str| {
            WalletError::new(WalletErrorKind::Refused, "sign").with("key", text_of(key)).with("what", what)
        };
        match request {
            SignRequest::Message(message) => {
                if message.from != *key {
                    return Err(refused("the message is from another address").with("from", text_of(&message.from)));
                }
                if self.methods.as_ref().is_some_and(|all| !all.iter().any(|method| method.is_called_by(message))) {
                    return Err(refused("this method is not allowed")
                        .with("method", message.method_num)
                        .with("to", text_of(&message.to)));
                }
                let is_receiver = |address: &Address| from_core(address).is_ok_and(|known| known == message.to);
                if self.receivers.as_ref().is_some_and(|all| !all.iter().any(is_receiver)) {
                    return Err(refused("this receiver is not allowed").with("to", text_of(&message.to)));
                }
                let amount = cost_of(message).ok_or_else(|| refused("the amounts are beyond any that exist"))?;
                Ok(Some(Cost { nonce: message.sequence, amount }))
            }
            SignRequest::Bytes { purpose, bytes } => {
                if is_message_cid(bytes) {
                    return Err(refused("the bytes could be the CID of a message, which does not come with them"));
                }
                if !self.purposes.contains(purpose) || *purpose == Purpose::MESSAGE {
                    return Err(refused("bytes for this purpose are not allowed").with("purpose", purpose));
                }
                if *purpose == Purpose::VERIFY_ADDRESS && bytes.len() > LONGEST_QUESTION {
                    return Err(refused("a question whether the key is here is shorter").with("bytes", bytes.len()));
                }
                Ok(None)
            }
        }
    }
}

/// What a message can cost its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) nonce: u64,
    pub(super) amount: TokenAmount,
}

fn cost_of(message: &Message) -> Option<TokenAmount> {
    if message.value.is_negative() || message.gas_fee_cap.is_negative() {
        return None;
    }
    let most = message.gas_fee_cap.clone() * message.gas_limit + &message.value;
    i128::try_from(most.atto()).ok().map(TokenAmount::from_atto)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_ipld_encoding::RawBytes;
    use fvm_shared::{bigint::BigInt, econ};

    fn key() -> ChainAddress {
        ChainAddress::new_secp256k1(&[7; 65]).unwrap()
    }

    fn message(to: u64, method: u64) -> Message {
        Message {
            version: 0,
            from: key(),
            to: ChainAddress::new_id(to),
            sequence: 3,
            value: econ::TokenAmount::from_whole(2),
            method_num: method,
            params: RawBytes::default(),
            gas_limit: 1_000,
            gas_fee_cap: econ::TokenAmount::from_atto(5),
            gas_premium: econ::TokenAmount::from_atto(1),
        }
    }

    fn asked(policy: &Policy, message: Message) -> Result<Option<Cost>, WalletErrorKind> {
        policy.check(&key(), &SignRequest::message(message)).map_err(|e| e.kind())
    }

    #[test]
    fn messages_are_checked_against_methods_and_receivers() {
        let any = Policy::messages();
        let amount = TokenAmount::from_fil(2) + TokenAmount::from_atto(5_000);
        assert_eq!(asked(&any, message(1000, 5)), Ok(Some(Cost { nonce: 3, amount })));
        let mut foreign = message(1000, 5);
        foreign.from = ChainAddress::new_id(1001);
        assert_eq!(asked(&any, foreign), Err(WalletErrorKind::Refused));

        let post = Policy::messages().with_method("SubmitWindowedPoSt".parse().unwrap());
        assert!(asked(&post, message(1000, 5)).is_ok());
        assert!(asked(&post, message(1000, 0)).is_err());
        assert!(asked(&post, message(5, 5)).is_err(), "method 5 of the market is not a proof");
        let by_number = Policy::messages().with_method(Method::number(5));
        assert!(asked(&by_number, message(5, 5)).is_ok());
        let create = Policy::messages().with_method("CreateMiner".parse().unwrap());
        assert!(asked(&create, message(4, 2)).is_ok());
        assert!(asked(&create, message(1000, 2)).is_err());

        let to = Policy::messages().with_receiver(&"f01000".parse().unwrap()).unwrap();
        assert!(asked(&to, message(1000, 0)).is_ok());
        assert!(asked(&to, message(1001, 0)).is_err());
        assert!(Policy::messages().with_receiver(&"f1abc".parse().unwrap()).is_err());
        assert!(Policy::messages().with_daily(TokenAmount::from_atto(-1)).is_err());
    }

    #[test]
    fn hostile_amounts_are_refused() {
        let any = Policy::messages();
        let mut negative = message(1000, 0);
        negative.value = econ::TokenAmount::from_atto(-5);
        assert_eq!(asked(&any, negative), Err(WalletErrorKind::Refused));
        let mut huge = message(1000, 0);
        huge.gas_fee_cap = econ::TokenAmount::from_atto(BigInt::from(u128::MAX));
        huge.gas_limit = u64::MAX;
        assert_eq!(asked(&any, huge), Err(WalletErrorKind::Refused));
    }

    #[test]
    fn bytes_cannot_be_a_message_in_disguise() {
        let asked = |policy: &Policy, purpose: Purpose, bytes: Vec<u8>| {
            policy.check(&key(), &SignRequest::bytes(purpose, bytes)).map_err(|e| e.kind())
        };
        let policy = Policy::messages().with_purpose(Purpose::BLOCK).with_purpose(Purpose::VERIFY_ADDRESS);
        assert_eq!(asked(&policy, Purpose::BLOCK, vec![1; 500]), Ok(None));
        assert_eq!(asked(&policy, Purpose::VERIFY_ADDRESS, vec![1; 32]), Ok(None));
        assert!(asked(&policy, Purpose::VERIFY_ADDRESS, vec![1; 500]).is_err(), "a block is not a question");
        assert!(asked(&policy, Purpose::UNKNOWN, vec![1; 32]).is_err());
        let cid = SignRequest::message(message(1000, 0)).to_sign();
        assert!(asked(&policy, Purpose::BLOCK, cid).is_err());
        let odd = policy.with_purpose(Purpose::MESSAGE);
        assert!(asked(&odd, Purpose::MESSAGE, vec![1; 32]).is_err());
    }

    #[test]
    fn json() {
        let policy = Policy::messages()
            .with_method("CreateMiner".parse().unwrap())
            .with_method(Method::number(99))
            .with_receiver(&"f01000".parse().unwrap())
            .unwrap()
            .with_daily(TokenAmount::from_fil(1))
            .unwrap()
            .with_purpose(Purpose::BLOCK);
        let json = serde_json::json!({
            "methods": ["CreateMiner", "99"], "receivers": ["t01000"], "daily": "1000000000000000000", "purposes": ["block"]
        });
        assert_eq!(serde_json::from_value::<Policy>(json.clone()).unwrap(), policy);
        assert_eq!(serde_json::to_value(policy).unwrap(), json);
        assert_eq!(serde_json::to_value(Policy::messages()).unwrap(), serde_json::json!({}));
        assert!(serde_json::from_value::<Policy>(serde_json::json!({"method": []})).is_err());
    }
}
