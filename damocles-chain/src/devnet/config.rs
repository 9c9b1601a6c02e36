//! What a devnet is made from.

use super::error::{DevnetError, DevnetErrorKind};
use crate::lotus_json::parse_address;
use fil_actors_shared::v18::runtime::Policy;
use fvm_shared::{
    address::Address,
    bigint::BigInt,
    econ::TokenAmount,
    sector::{RegisteredPoStProof, RegisteredSealProof},
};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};

/// The height of the first tipset after genesis: tickets are drawn 900 epochs back, so no client needs a special case.
pub const FIRST_HEIGHT: i64 = 1000;

/// The network version that it implements.
pub const NETWORK_VERSION: u32 = 28;

/// More than this no parameter file has.
const MAX_FILE: u64 = 1 << 20;

/// What a devnet is made from. Everything that is not listed here follows from the messages that it gets.
#[derive(Clone, Debug)]
pub struct DevnetConfig {
    /// The network's name. One that begins with `devnet-fake-` tells clients that fake proofs are accepted.
    pub network_name: String,
    /// What all randomness is derived from.
    pub genesis_seed: [u8; 32],
    /// How long an epoch takes.
    pub epoch_duration: Duration,
    /// Accounts that get funds: at genesis, or when the devnet is opened with an account that it never funded.
    pub fund: Vec<(Address, TokenAmount)>,
    /// The base fee of the first tipset.
    pub initial_base_fee: TokenAmount,
    /// What the message pool holds.
    pub pool: PoolLimits,
    /// Where it departs from the public networks' policy.
    pub policy: PolicyParameters,
}

impl Default for DevnetConfig {
    fn default() -> Self {
        Self {
            network_name: "devnet-2k".to_owned(),
            genesis_seed: *b"damocles devnet genesis seed 001",
            epoch_duration: Duration::from_millis(250),
            fund: Vec::new(),
            initial_base_fee: super::fees::minimum_base_fee(),
            pool: PoolLimits::default(),
            policy: PolicyParameters::default(),
        }
    }
}

/// What the message pool holds. The defaults are Lotus'.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolLimits {
    /// Above so many messages those that offer least are dropped.
    pub max_messages: usize,
    /// Until so many are left.
    pub kept_messages: usize,
    /// What one sender may have waiting.
    pub max_per_sender: usize,
    /// What a sender may have waiting that is not trusted.
    pub max_per_untrusted_sender: usize,
    /// How many nonces a sender that is not trusted may leave out.
    pub max_nonce_gap: u64,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            max_messages: 30_000,
            kept_messages: 20_000,
            max_per_sender: 1000,
            max_per_untrusted_sender: 10,
            max_nonce_gap: 4,
        }
    }
}

/// The parameters of the protocol that a devnet may have of its own, in epochs. A shorter proving period makes a whole
/// sector life fit into a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyParameters {
    /// Between a pre-commit and its seed.
    pub pre_commit_challenge_delay: i64,
    /// The least power of a miner that takes part in consensus, in bytes.
    pub minimum_power: u64,
    /// How often every sector is proven: 48 challenge windows.
    pub proving_period: i64,
    /// How long a deadline is open.
    pub challenge_window: i64,
    /// How long before its window a deadline's challenge is drawn.
    pub challenge_lookback: i64,
    /// How long before its window faults and recoveries can be declared.
    pub fault_declaration_cutoff: i64,
    /// How long a sector may be faulty.
    pub fault_max_age: i64,
}

impl Default for PolicyParameters {
    fn default() -> Self {
        let public = Policy::default();
        Self {
            pre_commit_challenge_delay: 10,
            minimum_power: 2048,
            proving_period: public.wpost_proving_period,
            challenge_window: public.wpost_challenge_window,
            challenge_lookback: public.wpost_challenge_lookback,
            fault_declaration_cutoff: public.fault_declaration_cutoff,
            fault_max_age: public.fault_max_age,
        }
    }
}

impl PolicyParameters {
    /// What is wrong with them.
    fn fault(&self) -> Option<&'static str> {
        let deadlines = i64::try_from(Policy::default().wpost_period_deadlines).unwrap_or(i64::MAX);
        let all = [
            self.pre_commit_challenge_delay,
            self.proving_period,
            self.challenge_window,
            self.challenge_lookback,
            self.fault_declaration_cutoff,
            self.fault_max_age,
        ];
        if all.iter().any(|n| !(1..=10_000_000).contains(n)) {
            return Some("a policy parameter is not between 1 and 10,000,000 epochs");
        }
        if self.challenge_window.checked_mul(deadlines) != Some(self.proving_period) {
            return Some("policy.proving_period is not 48 times policy.challenge_window");
        }
        if self.fault_declaration_cutoff < self.challenge_lookback {
            return Some("policy.fault_declaration_cutoff is shorter than policy.challenge_lookback");
        }
        if self.fault_max_age % self.proving_period != 0 {
            return Some("policy.fault_max_age is not a whole number of proving periods");
        }
        None
    }

    /// The whole policy of the protocol.
    pub(super) fn policy(&self) -> Policy {
        let mut policy = Policy {
            pre_commit_challenge_delay: self.pre_commit_challenge_delay,
            minimum_consensus_power: BigInt::from(self.minimum_power),
            wpost_proving_period: self.proving_period,
            wpost_challenge_window: self.challenge_window,
            // As on public networks, a commitment to the chain may be as old as the window is long.
            wpost_max_chain_commit_age: self.challenge_window,
            wpost_challenge_lookback: self.challenge_lookback,
            fault_declaration_cutoff: self.fault_declaration_cutoff,
            fault_max_age: self.fault_max_age,
            ..Policy::default()
        };
        for proof in [
            RegisteredPoStProof::StackedDRGWindow2KiBV1P1,
            RegisteredPoStProof::StackedDRGWindow8MiBV1P1,
            RegisteredPoStProof::StackedDRGWindow512MiBV1P1,
        ] {
            policy.valid_post_proof_type.insert(proof);
        }
        for proof in [
            RegisteredSealProof::StackedDRG2KiBV1P1,
            RegisteredSealProof::StackedDRG8MiBV1P1,
            RegisteredSealProof::StackedDRG512MiBV1P1,
        ] {
            policy.valid_pre_commit_proof_type.insert(proof);
        }
        policy
    }

    /// As it is recorded with genesis: a chain cannot go on with another policy.
    pub(super) fn recorded(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A parameter file. Whatever it leaves out is the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    network_name: Option<String>,
    genesis_seed: Option<String>,
    epoch_millis: Option<u64>,
    fund: Vec<Fund>,
    initial_base_fee: Option<String>,
    pool: PoolLimits,
    policy: PolicyParameters,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fund {
    address: String,
    amount: String,
}

impl DevnetConfig {
    /// Parses an address with either network prefix.
    pub fn parse_address(text: &str) -> Option<Address> {
        parse_address(text).ok()
    }

    /// Reads a parameter file: JSON if its name ends in `.json`, else TOML. Amounts are texts like `"12.5 FIL"` or
    /// `"100 attoFIL"`, the seed is 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// If it cannot be read, has a field that is not known, or makes no sense.
    pub fn load(path: &Path) -> Result<Self, DevnetError> {
        let failed = |e: std::io::Error| {
            DevnetError::new(DevnetErrorKind::Store, "read the devnet's configuration")
                .with("path", path.display())
                .because(e)
        };
        if fs_err::metadata(path).map_err(failed)?.len() > MAX_FILE {
            return Err(senseless("longer than a megabyte").with("path", path.display()));
        }
        let text = fs_err::read_to_string(path).map_err(failed)?;
        let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let file: File = if json {
            serde_json::from_str(&text).map_err(|e| senseless("").because(e))
        } else {
            toml::from_str(&text).map_err(|e| senseless("").because(e))
        }
        .map_err(|e: DevnetError| e.with("path", path.display()))?;
        Self::of_file(file).map_err(|e| e.with("path", path.display()))
    }

    fn of_file(file: File) -> Result<Self, DevnetError> {
        let mut config = Self { pool: file.pool, policy: file.policy, ..Self::default() };
        if let Some(name) = file.network_name {
            config.network_name = name;
        }
        if let Some(seed) = file.genesis_seed {
            let bytes = hex::decode(&seed).ok().and_then(|bytes| bytes.try_into().ok());
            config.genesis_seed = bytes.ok_or_else(|| senseless("genesis_seed is not 64 hexadecimal digits"))?;
        }
        if let Some(millis) = file.epoch_millis {
            config.epoch_duration = Duration::from_millis(millis);
        }
        if let Some(fee) = file.initial_base_fee {
            config.initial_base_fee = amount(&fee)?;
        }
        for fund in file.fund {
            let address = Self::parse_address(&fund.address)
                .ok_or_else(|| senseless("an address of [[fund]] is none").with("address", &fund.address))?;
            config.fund.push((address, amount(&fund.amount)?));
        }
        config.check()?;
        Ok(config)
    }

    /// Whether it makes sense.
    pub(super) fn check(&self) -> Result<(), DevnetError> {
        let pool = &self.pool;
        let fault = if self.network_name.is_empty() || self.network_name.len() > 100 {
            Some("network_name is empty or longer than 100 bytes")
        } else if self.epoch_duration.is_zero() {
            Some("epoch_millis is zero")
        } else if self.initial_base_fee < super::fees::minimum_base_fee() {
            Some("initial_base_fee is below the protocol's minimum of 100 attoFIL")
        } else if pool.max_per_sender == 0 || pool.kept_messages == 0 || pool.kept_messages > pool.max_messages {
            Some("the limits of the pool are zero or contradict each other")
        } else {
            self.policy.fault()
        };
        fault.map_or(Ok(()), |fault| Err(senseless(fault)))
    }
}

fn senseless(what: &str) -> DevnetError {
    let error = DevnetError::new(DevnetErrorKind::Config, "read the devnet's configuration");
    if what.is_empty() { error } else { error.with("fault", what) }
}

fn amount(text: &str) -> Result<TokenAmount, DevnetError> {
    let amount: damocles_core::TokenAmount =
        text.parse().map_err(|e| senseless("an amount is none").with("amount", text).because(e))?;
    if amount.atto() < 0 {
        return Err(senseless("an amount is negative").with("amount", text));
    }
    Ok(TokenAmount::from_atto(amount.atto()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, text: &str) -> Result<DevnetConfig, DevnetError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs_err::write(&path, text).unwrap();
        DevnetConfig::load(&path)
    }

    const TOML: &str = r#"
        network_name = "devnet-short"
        genesis_seed = "0707070707070707070707070707070707070707070707070707070707070707"
        epoch_millis = 20
        initial_base_fee = "1000 attoFIL"
        [[fund]]
        address = "t01000"
        amount = "12.5 FIL"
        [pool]
        max_messages = 100
        kept_messages = 50
        [policy]
        proving_period = 480
        challenge_window = 10
        challenge_lookback = 4
        fault_declaration_cutoff = 14
        fault_max_age = 960
    "#;

    #[test]
    fn a_file_is_read_in_either_form() {
        let config = load("devnet.toml", TOML).unwrap();
        assert_eq!((config.network_name.as_str(), config.genesis_seed), ("devnet-short", [7; 32]));
        assert_eq!(config.epoch_duration, Duration::from_millis(20));
        assert_eq!(config.fund, [(Address::new_id(1000), TokenAmount::from_nano(12_500_000_000_i64))]);
        assert_eq!(config.initial_base_fee, TokenAmount::from_atto(1000));
        assert_eq!((config.pool.max_messages, config.pool.max_per_sender), (100, 1000));
        let policy = config.policy.policy();
        assert_eq!((policy.wpost_proving_period, policy.wpost_max_chain_commit_age), (480, 10));
        let json = load("devnet.json", r#"{"network_name": "devnet-j", "pool": {"max_nonce_gap": 9}}"#).unwrap();
        assert_eq!((json.network_name.as_str(), json.pool.max_nonce_gap), ("devnet-j", 9));
        assert_eq!(load("empty.toml", "").unwrap().policy, PolicyParameters::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, why) in [
            ("netwrk_name = \"x\"", "netwrk_name"),
            ("[policy]\nperiod = 3", "period"),
            ("[[fund]]\naddress = \"t01000\"\namount = 5", "amount"),
            ("[[fund]]\naddress = \"zz\"\namount = \"5 FIL\"", "address"),
            ("[[fund]]\naddress = \"t01000\"\namount = \"-5 FIL\"", "negative"),
            ("genesis_seed = \"00\"", "64 hexadecimal"),
            ("epoch_millis = 0", "epoch_millis"),
            ("initial_base_fee = \"99 attoFIL\"", "minimum of 100"),
            ("[policy]\nproving_period = 100", "48 times"),
            ("[policy]\npre_commit_challenge_delay = 0", "between 1 and"),
            ("[pool]\nmax_messages = 1", "limits of the pool"),
            ("network_name = \"\"", "network_name"),
            ("{", ""),
        ] {
            let error = load("devnet.toml", text).unwrap_err();
            assert_eq!(error.kind(), DevnetErrorKind::Config, "{text}");
            let chain = error.chain();
            assert!(chain.contains(why) && chain.contains("devnet.toml"), "{text}: {chain}");
        }
        assert_eq!(DevnetConfig::load(Path::new("/nowhere/x")).unwrap_err().kind(), DevnetErrorKind::Store);
    }
}
