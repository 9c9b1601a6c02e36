//! CIDs, amounts and byte strings.

use super::LotusJson;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cid::Cid;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// All FIL that will ever exist has 28 digits in attoFIL, a chain's weight some more; a text far beyond is hostile.
const MAX_DIGITS: usize = 155;

#[derive(Serialize, Deserialize)]
struct CidLink {
    #[serde(rename = "/")]
    link: String,
}

impl LotusJson for Cid {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CidLink { link: self.to_string() }.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let CidLink { link } = CidLink::deserialize(deserializer)?;
        Self::try_from(link.as_str()).map_err(de::Error::custom)
    }
}

impl LotusJson for BigInt {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > MAX_DIGITS {
            return Err(de::Error::custom(format_args!("a number of {} digits", text.len())));
        }
        text.parse().map_err(|_| de::Error::custom(format_args!("`{text}` is not a decimal number")))
    }
}

impl LotusJson for TokenAmount {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.atto().write(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BigInt::read(deserializer).map(Self::from_atto)
    }
}

impl LotusJson for Vec<u8> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_empty() { serializer.serialize_none() } else { serializer.serialize_str(&STANDARD.encode(self)) }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        STANDARD.decode(text).map_err(de::Error::custom)
    }
}

impl LotusJson for RawBytes {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_vec().write(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::read(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lotus_json::Lotus;
    use serde_json::{Value, from_value, json, to_value};
    use std::fmt::Debug;

    fn pair<T: LotusJson + PartialEq + Debug + Clone>(value: T, json: Value) {
        assert_eq!(to_value(Lotus(value.clone())).unwrap(), json);
        assert_eq!(from_value::<Lotus<T>>(json).unwrap(), Lotus(value));
    }

    #[test]
    fn forms() {
        let text = "bafy2bzaceaa43et73tgxsoh2xizd4mxhbrcfig4kqp25zfa5scdgkzppllyuu";
        pair(Cid::try_from(text).unwrap(), json!({ "/": text }));
        pair(TokenAmount::from_whole(2), json!("2000000000000000000"));
        pair(BigInt::from(-7), json!("-7"));
        pair(vec![1u8, 2, 3], json!("AQID"));
        pair(Vec::<u8>::new(), Value::Null);
        pair(RawBytes::new(vec![255]), json!("/w=="));
        pair(vec![Cid::try_from(text).unwrap()], json!([{ "/": text }]));
        pair(None::<Cid>, Value::Null);
        assert_eq!(from_value::<Lotus<Vec<u8>>>(json!("")).unwrap(), Lotus(Vec::new()));
        assert_eq!(from_value::<Lotus<Vec<Cid>>>(Value::Null).unwrap(), Lotus(Vec::new()));
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(from_value::<Lotus<Cid>>(json!({ "/": "bafy" })).is_err());
        assert!(from_value::<Lotus<Cid>>(json!("bafy")).is_err());
        for bad in [json!("x"), json!(""), json!("1.5"), Value::Null, json!(5), json!("9".repeat(5000))] {
            assert!(from_value::<Lotus<TokenAmount>>(bad.clone()).is_err(), "{bad}");
        }
        assert!(from_value::<Lotus<Vec<u8>>>(json!("AQI")).is_err(), "padding is demanded");
        assert!(from_value::<Lotus<Vec<u8>>>(json!([1, 2])).is_err());
    }
}
