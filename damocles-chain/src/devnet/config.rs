//! What a devnet is made from.

use super::{
    error::{DevnetError, DevnetErrorKind},
    policy::PolicyParameters,
    preseal,
};
use crate::lotus_json::parse_address;
use damocles_core::{SealProofType, SectorSize};
use fvm_shared::{address::Address, econ::TokenAmount};
use serde::Deserialize;
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
    /// From which epochs on it says that it is which network version: see [`super::Devnet::upgrade`].
    pub upgrades: Vec<(i64, u32)>,
    /// Miners that are there from the beginning. Their replicas are nowhere: this is for networks with fake proofs.
    pub miners: Vec<PreSealed>,
}

/// A miner that a devnet begins with.
#[derive(Clone, Debug)]
pub struct PreSealed {
    /// Its owner, an account that gets funds.
    pub owner: Address,
    /// Its worker, a BLS account that gets funds.
    pub worker: Address,
    /// How its sectors are sealed.
    pub proof_type: SealProofType,
    /// How many sectors it has: their numbers begin with zero.
    pub sectors: u64,
    /// For how many epochs they live.
    pub lifetime: i64,
    /// All that it has, what is locked up for the sectors included.
    pub balance: TokenAmount,
}

impl PreSealed {
    /// What is wrong with it.
    fn fault(&self) -> Option<&'static str> {
        if self.sectors > preseal::MAX_SECTORS {
            return Some("a pre-sealed miner has more than 100,000 sectors");
        }
        if !(1..=10_000_000).contains(&self.lifetime) {
            return Some("the lifetime of pre-sealed sectors is not between 1 and 10,000,000 epochs");
        }
        None
    }
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
            upgrades: Vec::new(),
            miners: Vec::new(),
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
    upgrade: Vec<Upgrade>,
    miner: Vec<Miner>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Upgrade {
    height: i64,
    version: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fund {
    address: String,
    amount: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Miner {
    owner: String,
    worker: String,
    #[serde(default = "smallest")]
    sector_size: SectorSize,
    sectors: u64,
    #[serde(default = "year")]
    lifetime: i64,
    balance: String,
}

const fn smallest() -> SectorSize {
    SectorSize::KiB2
}

const fn year() -> i64 {
    365 * 2880
}

impl Miner {
    fn pre_sealed(self) -> Result<PreSealed, DevnetError> {
        let address = |text: &str| {
            let error = || senseless("an address of [[miner]] is none").with("address", text);
            DevnetConfig::parse_address(text).ok_or_else(error)
        };
        Ok(PreSealed {
            owner: address(&self.owner)?,
            worker: address(&self.worker)?,
            proof_type: SealProofType::of(self.sector_size),
            sectors: self.sectors,
            lifetime: self.lifetime,
            balance: amount(&self.balance)?,
        })
    }
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
        config.upgrades = file.upgrade.into_iter().map(|u| (u.height, u.version)).collect();
        config.miners = file.miner.into_iter().map(Miner::pre_sealed).collect::<Result<_, _>>()?;
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
            self.policy.fault().or_else(|| self.miners.iter().find_map(PreSealed::fault))
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
        [[upgrade]]
        height = 1200
        version = 29
        [[miner]]
        owner = "t01000"
        worker = "t01001"
        sector_size = "32GiB"
        sectors = 5
        balance = "100 FIL"
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
        assert_eq!(config.upgrades, [(1200, 29)]);
        let [miner] = config.miners.as_slice() else { panic!("{:?}", config.miners) };
        assert_eq!((miner.worker, miner.sectors, miner.lifetime), (Address::new_id(1001), 5, 365 * 2880));
        assert_eq!(miner.proof_type, SealProofType::of(SectorSize::GiB32));
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
            ("[policy]\ndispute_window = 2760", "dispute_window"),
            ("[policy]\naddressed_sectors_max = 0", "addressed_sectors_max"),
            ("[[miner]]\nowner = \"t01000\"\nworker = \"x\"\nsectors = 1\nbalance = \"1 FIL\"", "[[miner]]"),
            (
                "[[miner]]\nowner = \"t01000\"\nworker = \"t01001\"\nsectors = 100001\nbalance = \"1 FIL\"",
                "100,000 sectors",
            ),
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
