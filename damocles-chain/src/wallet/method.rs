//! Methods that a policy can name.

use super::{WalletError, WalletErrorKind};
use fvm_shared::message::Message;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// IDs below this are the network's own actors.
const FIRST_OWN_ID: u64 = 100;
const POWER: u64 = 4;
const MARKET: u64 = 5;

/// A method of an actor, by number or by name.
///
/// The number alone means something else at every actor, so a name says more: that of a miner's method is never a
/// message to the network's own actors, and `CreateMiner` is one to the power actor only. Actors of other kinds are not
/// told apart, because that needs the chain: name the receivers too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Method {
    number: u64,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum At {
    Any,
    Miner,
    Actor(u64),
}

const fn miner(name: &'static str, number: u64) -> (&'static str, Method) {
    (name, Method { number, at: At::Miner })
}

const NAMED: [(&str, Method); 25] = [
    ("Send", Method { number: 0, at: At::Any }),
    ("CreateMiner", Method { number: 2, at: At::Actor(POWER) }),
    ("AddBalance", Method { number: 2, at: At::Actor(MARKET) }),
    miner("ChangeWorkerAddress", 3),
    miner("ChangePeerID", 4),
    miner("SubmitWindowedPoSt", 5),
    miner("TerminateSectors", 9),
    miner("DeclareFaults", 10),
    miner("DeclareFaultsRecovered", 11),
    miner("ReportConsensusFault", 15),
    miner("WithdrawBalance", 16),
    miner("ChangeMultiaddrs", 18),
    miner("CompactPartitions", 19),
    miner("CompactSectorNumbers", 20),
    miner("ConfirmChangeWorkerAddress", 21),
    miner("RepayDebt", 22),
    miner("ChangeOwnerAddress", 23),
    miner("DisputeWindowedPoSt", 24),
    miner("PreCommitSectorBatch2", 28),
    miner("ChangeBeneficiary", 30),
    miner("GetBeneficiary", 31),
    miner("ExtendSectorExpiration2", 32),
    miner("ProveCommitSectors3", 34),
    miner("ProveReplicaUpdates3", 35),
    miner("ProveCommitSectorsNI", 36),
];

impl Method {
    /// A method by its number, whatever actor it is of.
    pub const fn number(number: u64) -> Self {
        Self { number, at: At::Any }
    }

    /// Whether a message is a call of it.
    pub fn is_called_by(&self, message: &Message) -> bool {
        let receiver = message.to.id().ok();
        message.method_num == self.number
            && match self.at {
                At::Any => true,
                At::Actor(id) => receiver == Some(id),
                At::Miner => receiver.is_none_or(|id| id >= FIRST_OWN_ID),
            }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMED.iter().find(|(_, method)| method == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.number),
        }
    }
}

impl FromStr for Method {
    type Err = WalletError;

    fn from_str(text: &str) -> Result<Self, WalletError> {
        if let Some((_, method)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*method);
        }
        let bad = || {
            let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
            WalletError::new(WalletErrorKind::BadSetting, "read method")
                .with("method", text.chars().take(60).collect::<String>())
                .hint_with(format!("give a number or one of {}", names.join(", ")))
        };
        text.parse().map(Self::number).map_err(|_| bad())
    }
}

impl TryFrom<String> for Method {
    type Error = WalletError;

    fn try_from(text: String) -> Result<Self, WalletError> {
        text.parse()
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fil_actor_miner_state::v18::Method as MinerMethod;

    #[test]
    fn numbers_are_the_actors() {
        let number = |name: &str| name.parse::<Method>().unwrap().number;
        for (name, method) in [
            ("ChangeWorkerAddress", MinerMethod::ChangeWorkerAddress as u64),
            ("ChangePeerID", MinerMethod::ChangePeerID as u64),
            ("SubmitWindowedPoSt", MinerMethod::SubmitWindowedPoSt as u64),
            ("TerminateSectors", MinerMethod::TerminateSectors as u64),
            ("DeclareFaults", MinerMethod::DeclareFaults as u64),
            ("DeclareFaultsRecovered", MinerMethod::DeclareFaultsRecovered as u64),
            ("ReportConsensusFault", MinerMethod::ReportConsensusFault as u64),
            ("WithdrawBalance", MinerMethod::WithdrawBalance as u64),
            ("ChangeMultiaddrs", MinerMethod::ChangeMultiaddrs as u64),
            ("CompactPartitions", MinerMethod::CompactPartitions as u64),
            ("CompactSectorNumbers", MinerMethod::CompactSectorNumbers as u64),
            ("ConfirmChangeWorkerAddress", MinerMethod::ConfirmChangeWorkerAddress as u64),
            ("RepayDebt", MinerMethod::RepayDebt as u64),
            ("ChangeOwnerAddress", MinerMethod::ChangeOwnerAddress as u64),
            ("DisputeWindowedPoSt", MinerMethod::DisputeWindowedPoSt as u64),
            ("PreCommitSectorBatch2", MinerMethod::PreCommitSectorBatch2 as u64),
            ("ChangeBeneficiary", MinerMethod::ChangeBeneficiary as u64),
            ("GetBeneficiary", MinerMethod::GetBeneficiary as u64),
            ("ExtendSectorExpiration2", MinerMethod::ExtendSectorExpiration2 as u64),
            ("ProveCommitSectors3", MinerMethod::ProveCommitSectors3 as u64),
            ("ProveReplicaUpdates3", MinerMethod::ProveReplicaUpdates3 as u64),
            ("ProveCommitSectorsNI", MinerMethod::ProveCommitSectorsNI as u64),
        ] {
            assert_eq!(number(name), method, "{name}");
        }
    }

    #[test]
    fn texts() {
        for text in ["Send", "CreateMiner", "SubmitWindowedPoSt", "5", "3844450837"] {
            assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
        }
        for bad in ["", "send", "-1", "5.0", "SubmitWindowedPost", "99999999999999999999"] {
            let error = bad.parse::<Method>().unwrap_err();
            assert!(error.hint().unwrap().contains("SubmitWindowedPoSt"), "{bad}");
        }
    }
}
