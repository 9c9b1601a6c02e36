//! The networks, and when their epochs are.

use crate::{Address, Epoch, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr, time::Duration};

/// A Filecoin network. Text and JSON form: its name, as the node tells it; the usual short forms are read too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// The network that is worth money. Its genesis block calls it `testnetnet`.
    Mainnet,
    /// The test network with mainnet's sector sizes, `calibrationnet`.
    Calibration,
    /// The test network that is made anew for each upgrade, `butterflynet`.
    Butterfly,
    /// Any other, by its name: development networks with small sectors, as a rule.
    Devnet(String),
}

/// The longest name that is taken for one.
const MAX_NAME: usize = 128;

/// Seconds between two epochs, on every network that others take part in.
const EPOCH: Duration = Duration::from_secs(30);

/// 2020-08-24T22:00:00Z and 2022-11-01T18:13:00Z: <https://docs.filecoin.io/networks>.
const MAINNET_GENESIS: Timestamp = Timestamp(1_598_306_400_000);
const CALIBRATION_GENESIS: Timestamp = Timestamp(1_667_326_380_000);

impl Network {
    /// The name by which nodes know it (`StateNetworkName`).
    pub fn name(&self) -> &str {
        match self {
            Self::Mainnet => "mainnet",
            Self::Calibration => "calibrationnet",
            Self::Butterfly => "butterflynet",
            Self::Devnet(name) => name,
        }
    }

    /// Whether a node that calls its network `told` is on this one: a devnet that was only called `2k` or `devnet` is
    /// any devnet.
    pub fn admits(&self, told: &Self) -> bool {
        match (self, told) {
            (Self::Devnet(name), Self::Devnet(_)) if matches!(name.as_str(), "2k" | "devnet") => true,
            _ => self == told,
        }
    }

    /// What addresses begin with: `f` where money is at stake, `t` elsewhere. Every node reads both.
    pub const fn address_prefix(&self) -> char {
        match self {
            Self::Mainnet => 'f',
            Self::Calibration | Self::Butterfly | Self::Devnet(_) => 't',
        }
    }

    /// An address with this network's prefix.
    pub fn spell(&self, address: &Address) -> String {
        let rest = address.as_str().get(1..).unwrap_or_default();
        format!("{}{rest}", self.address_prefix())
    }

    /// When its epochs are, where that is the same for everybody. Butterfly and devnets are made anew: their node
    /// tells (`StateGetNetworkParams`).
    pub const fn times(&self) -> Option<EpochTimes> {
        match self {
            Self::Mainnet => Some(EpochTimes { genesis: MAINNET_GENESIS, epoch: EPOCH }),
            Self::Calibration => Some(EpochTimes { genesis: CALIBRATION_GENESIS, epoch: EPOCH }),
            Self::Butterfly | Self::Devnet(_) => None,
        }
    }

    /// When an epoch begins, if that is known without a node.
    pub fn epoch_to_time(&self, epoch: Epoch) -> Option<Timestamp> {
        self.times().map(|times| times.time_of(epoch))
    }
}

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(text: &str) -> Result<Self, UnknownNetwork> {
        let name = text.trim();
        let is_name = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(|c| c.is_ascii_graphic());
        if !is_name {
            return Err(UnknownNetwork(text.chars().take(100).collect()));
        }
        Ok(match name.to_ascii_lowercase().as_str() {
            "mainnet" | "testnetnet" => Self::Mainnet,
            "calibration" | "calibrationnet" | "calibnet" => Self::Calibration,
            "butterfly" | "butterflynet" => Self::Butterfly,
            _ => Self::Devnet(name.to_owned()),
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A text that cannot be the name of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownNetwork(String);

impl fmt::Display for UnknownNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not the name of a network", self.0)
    }
}

impl std::error::Error for UnknownNetwork {}

/// When the epochs of a network are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpochTimes {
    /// When epoch 0 began.
    pub genesis: Timestamp,
    /// How long an epoch takes.
    pub epoch: Duration,
}

impl EpochTimes {
    fn millis(self) -> i64 {
        i64::try_from(self.epoch.as_millis()).unwrap_or(i64::MAX).max(1)
    }

    /// When an epoch begins.
    pub fn time_of(self, epoch: Epoch) -> Timestamp {
        Timestamp(self.genesis.0.saturating_add(epoch.0.saturating_mul(self.millis())))
    }

    /// The epoch that is running at a time.
    pub fn epoch_at(self, time: Timestamp) -> Epoch {
        Epoch(time.0.saturating_sub(self.genesis.0).div_euclid(self.millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ActorId;

    #[test]
    fn names_of_nodes_and_people_are_read() {
        for (text, network) in [
            ("mainnet", Network::Mainnet),
            ("testnetnet", Network::Mainnet),
            (" Calibration ", Network::Calibration),
            ("calibrationnet", Network::Calibration),
            ("calibnet", Network::Calibration),
            ("butterfly", Network::Butterfly),
            ("devnet-2k", Network::Devnet("devnet-2k".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(network.clone()), "{text}");
            assert_eq!(network.name().parse(), Ok(network.clone()), "{text}");
            let json = serde_json::to_string(&network).unwrap();
            assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
        }
        for bad in ["", "  ", "a b", "é", &"x".repeat(129)] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_devnet_without_a_name_of_its_own_is_any_devnet() {
        let of = |text: &str| text.parse::<Network>().unwrap();
        assert!(of("2k").admits(&of("localnet-0a1b")));
        assert!(!of("devnet-2k").admits(&of("localnet-0a1b")));
        assert!(!of("2k").admits(&Network::Mainnet) && !Network::Mainnet.admits(&of("2k")));
        assert!(Network::Mainnet.admits(&of("testnetnet")));
    }

    #[test]
    fn addresses_are_spelled_as_the_network_does() {
        let miner = Address::from_actor(ActorId(1000));
        assert_eq!(Network::Mainnet.spell(&miner), "f01000");
        assert_eq!(Network::Calibration.spell(&"f01000".parse().unwrap()), "t01000");
    }

    #[test]
    fn epochs_have_their_times() {
        // The upgrade to network version 28 was announced for epoch 6,052,800 and 2026-05-27T14:00:00Z.
        let upgrade = Network::Mainnet.epoch_to_time(Epoch(6_052_800)).unwrap();
        assert_eq!(upgrade, Timestamp(1_779_890_400_000));
        let times = Network::Mainnet.times().unwrap();
        assert_eq!(times.epoch_at(upgrade), Epoch(6_052_800));
        assert_eq!(times.epoch_at(Timestamp(upgrade.0 - 1)), Epoch(6_052_799));
        assert_eq!(times.epoch_at(Timestamp(times.genesis.0 - 1)), Epoch(-1));
        assert_eq!(times.time_of(Epoch(i64::MAX)), Timestamp(i64::MAX));
        assert_eq!(Network::Butterfly.times(), None);
        let still = EpochTimes { genesis: Timestamp(0), epoch: Duration::ZERO };
        assert_eq!(still.epoch_at(Timestamp(5)), Epoch(5), "no division by nothing");
    }
}
