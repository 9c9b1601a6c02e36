//! Messages and what became of them.

use super::{LotusJson, form};
use cid::Cid;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    address::Address,
    crypto::signature::{Signature, SignatureType},
    econ::TokenAmount,
    message::Message,
};
use multihash_codetable::{Code, MultihashDigest as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

const DAG_CBOR: u64 = 0x71;

fn cid_of<T: Serialize>(value: &T) -> Cid {
    let bytes = fvm_ipld_encoding::to_vec(value).expect("messages can be written to memory");
    Cid::new_v1(DAG_CBOR, Code::Blake2b256.digest(&bytes))
}

/// The CID of an unsigned message: its bytes are what is signed.
pub fn message_cid(message: &Message) -> Cid {
    cid_of(message)
}

/// The CID by which the chain knows a signed message: of a BLS message, that of the unsigned one.
pub fn signed_message_cid(signed: &SignedMessage) -> Cid {
    match signed.signature.sig_type {
        SignatureType::BLS => cid_of(&signed.message),
        SignatureType::Secp256k1 => cid_of(&(&signed.message, &signed.signature)),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MessageForm {
    #[serde(default)]
    version: u64,
    #[serde(with = "form")]
    to: Address,
    #[serde(with = "form")]
    from: Address,
    #[serde(default)]
    nonce: u64,
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    value: TokenAmount,
    #[serde(default)]
    gas_limit: i64,
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    gas_fee_cap: TokenAmount,
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    gas_premium: TokenAmount,
    #[serde(default)]
    method: u64,
    #[serde(default, with = "form")]
    params: RawBytes,
    #[serde(rename = "CID", default, with = "form", skip_deserializing)]
    cid: Option<Cid>,
}

impl LotusJson for Message {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        MessageForm {
            version: self.version,
            to: self.to,
            from: self.from,
            nonce: self.sequence,
            value: self.value.clone(),
            gas_limit: i64::try_from(self.gas_limit).unwrap_or(i64::MAX),
            gas_fee_cap: self.gas_fee_cap.clone(),
            gas_premium: self.gas_premium.clone(),
            method: self.method_num,
            params: self.params.clone(),
            cid: Some(message_cid(self)),
        }
        .serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = MessageForm::deserialize(deserializer)?;
        let gas_limit = u64::try_from(form.gas_limit).map_err(|_| de::Error::custom("the gas limit is negative"))?;
        Ok(Self {
            version: form.version,
            from: form.from,
            to: form.to,
            sequence: form.nonce,
            value: form.value,
            method_num: form.method,
            params: form.params,
            gas_limit,
            gas_fee_cap: form.gas_fee_cap,
            gas_premium: form.gas_premium,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignatureForm {
    r#type: u8,
    #[serde(default, with = "form")]
    data: Vec<u8>,
}

impl LotusJson for Signature {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let r#type = match self.sig_type {
            SignatureType::Secp256k1 => 1,
            SignatureType::BLS => 2,
        };
        SignatureForm { r#type, data: self.bytes.clone() }.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let SignatureForm { r#type, data } = SignatureForm::deserialize(deserializer)?;
        match r#type {
            1 => Ok(Self::new_secp256k1(data)),
            2 => Ok(Self::new_bls(data)),
            other => Err(de::Error::custom(format_args!("{other} is not a signature type that is known here"))),
        }
    }
}

/// A message with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedMessage {
    /// The message.
    pub message: Message,
    /// The signature over the message's CID.
    pub signature: Signature,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignedMessageForm {
    #[serde(with = "form")]
    message: Message,
    #[serde(with = "form")]
    signature: Signature,
    #[serde(rename = "CID", default, with = "form", skip_deserializing)]
    cid: Option<Cid>,
}

impl Serialize for SignedMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cid = Some(signed_message_cid(self));
        SignedMessageForm { message: self.message.clone(), signature: self.signature.clone(), cid }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SignedMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let SignedMessageForm { message, signature, cid: _ } = SignedMessageForm::deserialize(deserializer)?;
        Ok(Self { message, signature })
    }
}

/// What the chain made of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MessageReceipt {
    /// The exit code; 0 is success.
    pub exit_code: i64,
    /// What the actor returned.
    #[serde(default, with = "form")]
    pub r#return: Vec<u8>,
    /// The gas that it used.
    #[serde(default)]
    pub gas_used: i64,
    /// The root of the events that it emitted.
    #[serde(default, with = "form")]
    pub events_root: Option<Cid>,
}

/// The answer of `StateSearchMsg` and `StateWaitMsg`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MsgLookup {
    /// The message on chain: another than the one asked for if that was replaced.
    #[serde(with = "form")]
    pub message: Cid,
    /// What the actor made of it.
    pub receipt: MessageReceipt,
    /// What the actor returned, decoded by the node.
    #[serde(default)]
    pub return_dec: Value,
    /// The tipset whose blocks commit to the receipt: the child of the tipset that holds the message.
    #[serde(with = "form")]
    pub tip_set: Vec<Cid>,
    /// The height of that child.
    pub height: i64,
}

/// How `GasEstimateMessageGas` and `MpoolPushMessage` are to price a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MessageSendSpec {
    /// The most to pay for gas; zero means the node's own limit.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub max_fee: TokenAmount,
    /// A number of the caller's that makes a push idempotent; all zeros for none.
    #[serde(default = "nil_uuid")]
    pub msg_uuid: String,
    /// Whether the fee cap is to be as high as the most to pay allows.
    #[serde(default)]
    pub maximize_fee_cap: bool,
}

fn nil_uuid() -> String {
    "00000000-0000-0000-0000-000000000000".to_owned()
}

/// The answer of `StateCall` and `StateReplay`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InvocResult {
    /// The message's CID.
    #[serde(default, with = "form")]
    pub msg_cid: Option<Cid>,
    /// The message.
    #[serde(default, with = "form")]
    pub msg: Option<Message>,
    /// What the actor made of it. Every node answers it, and be it as null.
    #[serde(deserialize_with = "form::present")]
    pub msg_rct: Option<MessageReceipt>,
    /// What it cost.
    #[serde(default)]
    pub gas_cost: Option<GasCost>,
    /// The calls that it made, in the node's own form.
    #[serde(default)]
    pub execution_trace: Value,
    /// What the actor said; empty when it said nothing.
    #[serde(default)]
    pub error: String,
    /// Nanoseconds that the node spent.
    #[serde(default)]
    pub duration: i64,
}

/// What a message cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GasCost {
    /// The message's CID.
    #[serde(with = "form")]
    pub message: Option<Cid>,
    /// The gas that it used.
    #[serde(serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub gas_used: TokenAmount,
    /// Burnt at the base fee.
    #[serde(serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub base_fee_burn: TokenAmount,
    /// Burnt for a limit that was too high.
    #[serde(serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub over_estimation_burn: TokenAmount,
    /// Taken from the block's maker.
    #[serde(serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub miner_penalty: TokenAmount,
    /// Given to the block's maker.
    #[serde(serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub miner_tip: TokenAmount,
    /// Given back to the sender.
    #[serde(serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub refund: TokenAmount,
    /// All that the sender paid.
    #[serde(serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub total_cost: TokenAmount,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lotus_json::Lotus;
    use serde_json::{from_value, json, to_value};

    fn message() -> Message {
        Message {
            version: 0,
            from: Address::new_id(100),
            to: Address::new_id(4),
            sequence: 9,
            value: TokenAmount::from_atto(5),
            method_num: 2,
            params: RawBytes::new(vec![0x80]),
            gas_limit: 1000,
            gas_fee_cap: TokenAmount::from_atto(7),
            gas_premium: TokenAmount::from_atto(1),
        }
    }

    #[test]
    fn messages_are_lotus() {
        let cid = json!({"/": message_cid(&message()).to_string()});
        let json = json!({
            "Version": 0, "To": "t04", "From": "t0100", "Nonce": 9, "Value": "5", "GasLimit": 1000,
            "GasFeeCap": "7", "GasPremium": "1", "Method": 2, "Params": "gA==", "CID": cid
        });
        assert_eq!(to_value(Lotus(message())).unwrap(), json);
        assert_eq!(from_value::<Lotus<Message>>(json.clone()).unwrap().0, message());

        let signed = SignedMessage { message: message(), signature: Signature::new_bls(vec![1, 2, 3]) };
        let json = json!({"Message": json, "Signature": {"Type": 2, "Data": "AQID"}, "CID": cid});
        assert_eq!(to_value(&signed).unwrap(), json, "the CID of a BLS message is the unsigned one's");
        assert_eq!(from_value::<SignedMessage>(json).unwrap(), signed);

        let secp = SignedMessage { message: message(), signature: Signature::new_secp256k1(vec![1, 2, 3]) };
        assert_ne!(signed_message_cid(&secp), message_cid(&message()));
    }

    #[test]
    fn sparse_and_broken_messages() {
        let sparse = json!({"To": "f04", "From": "f0100", "Params": null, "Value": null});
        assert_eq!(from_value::<Lotus<Message>>(sparse).unwrap().0.gas_limit, 0);
        for bad in [
            json!({"From": "f0100"}),
            json!({"To": "f04", "From": "f0100", "GasLimit": -1}),
            json!({"To": "f04", "From": "f0100", "Nonce": 1e30}),
            json!([]),
        ] {
            assert!(from_value::<Lotus<Message>>(bad.clone()).is_err(), "{bad}");
        }
        let delegated = json!({"Type": 3, "Data": "AQID"});
        assert!(from_value::<Lotus<Signature>>(delegated).is_err());
    }

    #[test]
    fn lookups_are_lotus() {
        let cid = json!({"/": message_cid(&message()).to_string()});
        let json = json!({
            "Message": cid, "Receipt": {"ExitCode": 16, "Return": null, "GasUsed": 5, "EventsRoot": null},
            "ReturnDec": null, "TipSet": [cid], "Height": 8
        });
        let lookup: MsgLookup = from_value(json.clone()).unwrap();
        assert_eq!(lookup.receipt.exit_code, 16);
        assert_eq!(to_value(lookup).unwrap(), json);
        let replay = json!({"MsgCid": cid, "MsgRct": {"ExitCode": 16}, "Error": "no", "ExecutionTrace": {"Msg": {}}});
        assert_eq!(from_value::<InvocResult>(replay).unwrap().error, "no");
    }
}
