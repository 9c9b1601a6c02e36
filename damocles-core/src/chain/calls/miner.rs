//! Calls that make a miner and change whom it belongs to and where it is found.

use crate::{ActorId, Address, Epoch, SectorSize, TokenAmount};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{fmt, str::FromStr};

/// Makes a miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateMiner {
    /// The owner; it sends the message.
    pub owner: Address,
    /// The worker: a BLS account.
    pub worker: Address,
    /// The size of its sectors.
    pub sector_size: SectorSize,
    /// Its peer ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<PeerId>,
    /// Where it is found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub multiaddrs: Vec<Multiaddr>,
}

impl CreateMiner {
    /// A miner without peer ID and addresses.
    pub const fn new(owner: Address, worker: Address, sector_size: SectorSize) -> Self {
        Self { owner, worker, sector_size, peer_id: None, multiaddrs: Vec::new() }
    }
}

/// Sets the control addresses at once, and names a new worker, which takes over when the change is confirmed 900
/// epochs later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeWorker {
    /// The miner.
    pub miner: ActorId,
    /// The worker from now on, or the present one: a BLS account.
    pub worker: Address,
    /// All control addresses from now on, at most 10; those that are not named are removed.
    pub control: Vec<Address>,
    /// The owner, who sends it; the usual sender if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
}

/// Lets a new worker take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmChangeWorker {
    /// The miner.
    pub miner: ActorId,
    /// The owner, who sends it; the usual sender if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
}

/// Proposes a new owner, or, sent by that one, makes it the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeOwner {
    /// The miner.
    pub miner: ActorId,
    /// The new owner, by ID; the present one takes a proposal back.
    pub owner: Address,
    /// Who sends it; the owner if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
}

/// Proposes a new beneficiary, or, sent by the new or the present one, agrees to it in the same words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBeneficiary {
    /// The miner.
    pub miner: ActorId,
    /// The new beneficiary; the owner ends the present one's term.
    pub beneficiary: Address,
    /// What it may withdraw in all; nothing if it is the owner.
    pub quota: TokenAmount,
    /// When its term ends; 0 if it is the owner.
    pub expiration: Epoch,
    /// Who sends it; the owner if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
}

/// Sets the peer ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePeerId {
    /// The miner.
    pub miner: ActorId,
    /// The peer ID; none to remove it.
    pub peer_id: Option<PeerId>,
}

/// Sets where the miner is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeMultiaddrs {
    /// The miner.
    pub miner: ActorId,
    /// All addresses from now on.
    pub multiaddrs: Vec<Multiaddr>,
}

macro_rules! network_text {
    ($(#[$meta:meta])* $name:ident, $what:literal, $shape:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParsePeerError;

            fn from_str(text: &str) -> Result<Self, ParsePeerError> {
                let shape: fn(&str) -> bool = $shape;
                if text.len() <= MAX_TEXT && shape(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ParsePeerError { what: $what, text: text.chars().take(100).collect() })
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// More than any text of the bytes that the actor stores.
const MAX_TEXT: usize = 4096;

network_text!(
    /// A libp2p peer ID, `12D3KooW...`. Only its shape is known here; damocles-chain checks the rest.
    PeerId,
    "peer ID",
    |text| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric())
);
network_text!(
    /// A multiaddress, `/ip4/1.2.3.4/tcp/24001`. Only its shape is known here; damocles-chain checks the rest.
    Multiaddr,
    "multiaddress",
    |text| text.len() > 1 && text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic())
);

/// A text that is not the name or address of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePeerError {
    what: &'static str,
    text: String,
}

impl fmt::Display for ParsePeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a {}", self.text, self.what)
    }
}

impl std::error::Error for ParsePeerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_checked_for_shape() {
        assert!("12D3KooWQdMqmHLoqF6bNRt7SMRhik3G8LQPdeoLdTC9N3SgBr2v".parse::<PeerId>().is_ok());
        assert!("/ip4/1.2.3.4/tcp/24001".parse::<Multiaddr>().is_ok());
        for bad in ["", "12D3 ", "12D3/x", "é"] {
            assert!(bad.parse::<PeerId>().is_err(), "{bad}");
        }
        for bad in ["", "/", "ip4/1.2.3.4", "/ip4/1.2.3.4 ", "/é"] {
            assert!(bad.parse::<Multiaddr>().is_err(), "{bad}");
        }
        assert!("/a".repeat(MAX_TEXT).parse::<Multiaddr>().is_err());
    }
}
