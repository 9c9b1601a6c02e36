//! Commitments and their CID text form.

use cid::Cid;
use multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Multicodecs of Filecoin commitments: <https://github.com/multiformats/multicodec>.
const UNSEALED: (u64, u64) = (0xf101, 0x1012);
const SEALED: (u64, u64) = (0xf102, 0xb401);

macro_rules! commitment {
    ($(#[$meta:meta])* $name:ident, $codes:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The commitment as a CID.
            pub fn cid(&self) -> Cid {
                let (codec, hash) = $codes;
                let digest = Multihash::wrap(hash, &self.0).expect("32 bytes fit into a multihash of 64");
                Cid::new_v1(codec, digest)
            }

            /// The commitment inside a CID.
            ///
            /// # Errors
            ///
            /// The CID is of another codec, hash or length.
            pub fn from_cid(cid: &Cid) -> Result<Self, ParseCommitmentError> {
                let (codec, hash) = $codes;
                let bad = || ParseCommitmentError { what: stringify!($name), text: cid.to_string() };
                if cid.codec() != codec || cid.hash().code() != hash {
                    return Err(bad());
                }
                cid.hash().digest().try_into().map(Self).map_err(|_| bad())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.cid().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.cid())
            }
        }

        impl FromStr for $name {
            type Err = ParseCommitmentError;

            fn from_str(text: &str) -> Result<Self, ParseCommitmentError> {
                let bad = |_| ParseCommitmentError {
                    what: stringify!($name),
                    text: text.chars().take(100).collect(),
                };
                Self::from_cid(&Cid::try_from(text).map_err(bad)?)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

commitment!(
    /// The commitment to a sector's replica, `bagboea4b5abc...`.
    CommR, SEALED
);
commitment!(
    /// The commitment to a sector's data, `baga6ea4seaq...`.
    CommD, UNSEALED
);
commitment!(
    /// The commitment to one piece, `baga6ea4seaq...`.
    CommP, UNSEALED
);

impl From<CommP> for CommD {
    /// A sector that one piece fills has that piece's commitment.
    fn from(piece: CommP) -> Self {
        Self(piece.0)
    }
}

/// The data commitment of a committed-capacity sector: a tree of zeros, 32 bytes a leaf, over SHA-256 with the two
/// highest bits cleared.
pub fn zero_comm_d(size: crate::SectorSize) -> CommD {
    CommD(match size {
        crate::SectorSize::KiB2 => hex32("fc7e928296e516faade986b28f92d44a4f24b935485223376a799027bc18f833"),
        crate::SectorSize::MiB8 => hex32("65f29e5d98d246c38b388cfc06db1f6b021303c5a289000bdce832a9c3ec421c"),
        crate::SectorSize::MiB512 => hex32("39560e7b13a93b07a243fd2720ffa7cb3e1d2e505ab3629e79f46313512cda06"),
        crate::SectorSize::GiB32 => hex32("077e5fde35c50a9303a55009e3498a4ebedff39c42b710b730d8ec7ac7afa63e"),
        crate::SectorSize::GiB64 => hex32("e64005a6bfe3777953b8ad6ef93f0fca1049b2041654f2a411f7702799cece02"),
    })
}

fn hex32(text: &'static str) -> [u8; 32] {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).expect("constants are 64 hex digits");
    bytes
}

/// A text or CID that is not the commitment it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseCommitmentError {
    what: &'static str,
    text: String,
}

impl fmt::Display for ParseCommitmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not the CID of a {}", self.text, self.what)
    }
}

impl std::error::Error for ParseCommitmentError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SectorSize;

    #[test]
    fn text_form_is_the_fields() {
        let zero = zero_comm_d(SectorSize::GiB32);
        assert_eq!(zero.to_string(), "baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq");
        assert_eq!(zero.to_string().parse(), Ok(zero));
        assert!(zero.to_string().parse::<CommR>().is_err(), "a data commitment is no replica commitment");
        assert!(CommR([7; 32]).to_string().starts_with("bagboea4b5abc"));
    }
}
