//! The manager's file, `manager.toml` in its home directory.

mod chain;
mod senders;
mod venus;
mod wallet;

pub use chain::{ChainKind, ChainSection};
pub use senders::{Addresses, SendersSection};
pub use venus::VenusSection;
pub use wallet::{WalletKind, WalletSection};

use super::{ConfigError, Endpoint, Findings, ProcessorKind, Processors, Retired, Secret, Source, retired};
use damocles_chain::Fees;
use damocles_core::ActorId;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The name of the file in a home directory.
pub const FILE_NAME: &str = "manager.toml";

/// A manager's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerConfig {
    /// The node.
    pub chain: ChainSection,
    /// The cluster that sends messages, of a chain of kind `venus`.
    #[serde(default)]
    pub venus: Option<VenusSection>,
    /// Where workers and commands reach the manager.
    #[serde(default)]
    pub listen: ListenSection,
    /// Who holds the keys.
    #[serde(default)]
    pub wallet: WalletSection,
    /// Who pays for messages.
    #[serde(default)]
    pub senders: SendersSection,
    /// What messages may cost.
    #[serde(default)]
    pub fees: Fees,
    /// What is sealed and proven for whom.
    #[serde(default)]
    pub miners: Vec<MinerSection>,
    /// Where finished sectors lie.
    #[serde(default)]
    pub persist_stores: Vec<StoreSection>,
    /// Where pieces lie.
    #[serde(default)]
    pub pieces: PiecesSection,
    /// When and how sectors are proven.
    #[serde(default)]
    pub proving: ProvingSection,
    /// When a message counts as landed.
    #[serde(default)]
    pub commitment: CommitmentSection,
    /// The children that prove.
    #[serde(default)]
    pub processors: Processors,
}

/// `[listen]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSection {
    /// Loopback only.
    pub address: SocketAddr,
}

impl Default for ListenSection {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 1789)) }
    }
}

/// `[[miners]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinerSection {
    /// The `1000` of `f01000`.
    pub actor: ActorId,
    /// Whether new sectors are sealed.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// New sectors get this number or a higher one.
    #[serde(default)]
    pub min_number: u64,
    /// No new sector is given out once there are so many.
    #[serde(default)]
    pub max_sectors: Option<u64>,
    /// How long a sector without deals lives. The same for all miners.
    #[serde(default = "lifetime_days")]
    pub lifetime_days: u32,
}

impl MinerSection {
    /// A miner with every default.
    pub fn new(actor: ActorId) -> Self {
        Self { actor, enabled: true, min_number: 0, max_sectors: None, lifetime_days: lifetime_days() }
    }

    /// The section as it stands in a file, without what is the default.
    pub fn to_toml(&self) -> String {
        let mut text = format!("[[miners]]\nactor = {}\n", self.actor);
        let mut add = |line: String, differs: bool| {
            if differs {
                text.push_str(&line);
            }
        };
        let plain = Self::new(self.actor);
        add("enabled = false\n".to_owned(), !self.enabled);
        add(format!("min_number = {}\n", self.min_number), self.min_number != plain.min_number);
        add(format!("max_sectors = {}\n", self.max_sectors.unwrap_or_default()), self.max_sectors.is_some());
        add(format!("lifetime_days = {}\n", self.lifetime_days), self.lifetime_days != plain.lifetime_days);
        text
    }
}

fn yes() -> bool {
    true
}

fn lifetime_days() -> u32 {
    540
}

/// `[[persist_stores]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    /// Its name; workers attach a persist store under the same one.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Whether nothing is written there.
    #[serde(default)]
    pub read_only: bool,
}

/// `[proving]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProvingSection {
    /// Whether this manager proves.
    pub enabled: bool,
    /// Epochs between a deadline's challenge and the start of its proof.
    pub challenge_confidence: u32,
    /// Epochs between a deadline's opening and its proof's submission.
    pub submit_confidence: u32,
    /// Epochs after which a landed proof counts as final.
    pub confidence: u32,
    /// The most partitions in one proof. Fewer are taken where they hold more sectors than a prover is given at a time.
    pub partitions_per_proof: u64,
}

impl ProvingSection {
    /// A challenge is drawn 20 epochs before its deadline opens, which is open for 60: most of these are left for the proof.
    const MOST_CHALLENGE_CONFIDENCE: u32 = 40;

    fn check(self, source: &Source) -> Result<(), ConfigError> {
        if self.challenge_confidence > Self::MOST_CHALLENGE_CONFIDENCE {
            let error = source.error_at("proving.challenge_confidence", "leaves no time for a proof");
            return Err(error.hint_with(format!("write at most {}", Self::MOST_CHALLENGE_CONFIDENCE)));
        }
        let most = damocles_post::Options::MAX_PARTITIONS_PER_PROOF;
        if !(1..=most).contains(&self.partitions_per_proof) {
            let error =
                source.error_at("proving.partitions_per_proof", "is no number of partitions that a proof can have");
            return Err(error.hint_with(format!("write 1 to {most}, or remove it")));
        }
        Ok(())
    }
}

impl Default for ProvingSection {
    fn default() -> Self {
        let partitions_per_proof = damocles_post::Options::MAX_PARTITIONS_PER_PROOF;
        Self { enabled: true, challenge_confidence: 10, submit_confidence: 4, confidence: 10, partitions_per_proof }
    }
}

/// `[pieces]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PiecesSection {
    /// Files below these directories can be queued and are served to workers; those below `pieces` of the home always,
    /// and nothing else of the home ever.
    pub dirs: Vec<PathBuf>,
}

/// `[commitment]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommitmentSection {
    /// Epochs after which a landed message counts as final.
    pub confidence: u32,
    /// Epochs between the epoch of a seed and its use.
    pub seed_confidence: u32,
}

impl Default for CommitmentSection {
    fn default() -> Self {
        Self { confidence: 10, seed_confidence: 6 }
    }
}

/// The directory of one manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The named directory, else `~/.damocles-manager`.
    pub fn resolve(named: Option<PathBuf>) -> Option<Self> {
        named.or_else(|| std::env::home_dir().map(|h| h.join(".damocles-manager"))).map(Self)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join(FILE_NAME)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join("manager.db")
    }

    /// The keys.
    pub fn keystore(&self) -> PathBuf {
        self.0.join("keystore")
    }
}

impl ManagerConfig {
    /// A configuration with every default for the node at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            chain: ChainSection::new(endpoint),
            venus: None,
            wallet: WalletSection::default(),
            listen: ListenSection::default(),
            senders: SendersSection::default(),
            fees: Fees::default(),
            miners: Vec::new(),
            persist_stores: Vec::new(),
            pieces: PiecesSection::default(),
            proving: ProvingSection::default(),
            commitment: CommitmentSection::default(),
            processors: Processors::default(),
        }
    }

    /// Reads and checks a manager's file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the first thing in it that cannot be used.
    pub fn load(file: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        Self::parse(&Source::read(file)?)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    ///
    /// The first thing in it that cannot be used.
    pub fn parse(source: &Source) -> Result<Self, ConfigError> {
        let retired: Vec<Retired> = retired::MANAGER.iter().chain(retired::PROCESSORS).copied().collect();
        let config: Self = source.parse(&retired)?;
        config.check(source)?;
        Ok(config)
    }

    /// The text of a file with one more miner at its end. Everything that stands there stays: comments, children, tokens.
    ///
    /// # Errors
    ///
    /// With that miner, or already without it, the file cannot be used.
    pub fn with_miner(source: &Source, miner: &MinerSection) -> Result<String, ConfigError> {
        let text = format!("{}\n\n{}", source.text().trim_end(), miner.to_toml());
        Self::parse(&Source::of(source.file(), text.clone()))?;
        Ok(text)
    }

    /// The proving slots with every default filled in.
    pub fn slots(&self) -> Vec<super::SlotSpec> {
        self.processors.slots(&ProcessorKind::PROVING)
    }

    fn check(&self, source: &Source) -> Result<(), ConfigError> {
        self.chain.check(source)?;
        self.wallet.check(source)?;
        self.senders.check(source)?;
        venus::check(self, source)?;
        if !self.listen.address.ip().is_loopback() {
            let error = source.error_at("listen.address", format_args!("`{}` is not loopback", self.listen.address));
            return Err(error.hint_with(crate::server::LOOPBACK_HINT));
        }
        let mut actors = BTreeSet::new();
        for (i, miner) in self.miners.iter().enumerate() {
            if !actors.insert(miner.actor) {
                return Err(
                    source.error_at(&format!("miners[{i}].actor"), format_args!("{} is there twice", miner.actor))
                );
            }
            if miner.max_sectors == Some(0) {
                let error = source.error_at(&format!("miners[{i}].max_sectors"), "allows no sector");
                return Err(error.hint_with("write `enabled = false` to seal none, or remove it to set no limit"));
            }
            if miner.lifetime_days == 0 {
                return Err(source.error_at(&format!("miners[{i}].lifetime_days"), "no time at all"));
            }
            if self.miners.first().is_some_and(|first| first.lifetime_days != miner.lifetime_days) {
                let error = source.error_at(&format!("miners[{i}].lifetime_days"), "differs from that of miners[0]");
                return Err(error.hint_with("write the same for all miners, or run one manager for each lifetime"));
            }
        }
        if let Some(i) = self.pieces.dirs.iter().position(|dir| !dir.is_absolute()) {
            return Err(source.error_at(&format!("pieces.dirs[{i}]"), "is no absolute path"));
        }
        check_stores(source, &self.persist_stores)?;
        self.proving.check(source)?;
        let mut found = Findings::new(source);
        self.processors.check(&mut found, &ProcessorKind::PROVING);
        found.first()
    }

    /// The file that says this, with comments. Children and tokens are not written: an operator adds them.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        self.chain.write(out)?;
        if let Some(venus) = &self.venus {
            venus.write(out)?;
        }
        self.wallet.write(out)?;
        writeln!(out, "\n# Where workers and commands reach the manager. Loopback only.")?;
        writeln!(out, "[listen]\naddress = {}", quoted(&self.listen.address.to_string()))?;
        self.senders.write(out)?;
        self.write_fees(out)?;
        self.write_lists(out)?;
        writeln!(
            out,
            "\n# Where pieces may lie, besides the `pieces` of this directory: files below are served to workers."
        )?;
        let dirs = self.pieces.dirs.iter().map(|dir| toml::Value::String(dir.display().to_string()));
        writeln!(out, "[pieces]\ndirs = {}", toml::Value::Array(dirs.collect()))?;
        let proving = self.proving;
        writeln!(out, "\n# Epochs: from a challenge to its proof, from the opening to the message, to finality.")?;
        writeln!(out, "[proving]\nenabled = {}", proving.enabled)?;
        writeln!(out, "challenge_confidence = {}", proving.challenge_confidence)?;
        writeln!(out, "submit_confidence = {}\nconfidence = {}", proving.submit_confidence, proving.confidence)?;
        if proving.partitions_per_proof != ProvingSection::default().partitions_per_proof {
            writeln!(out, "partitions_per_proof = {}", proving.partitions_per_proof)?;
        }
        writeln!(out, "\n# Epochs: after which a message is final, and a seed is used.\n[commitment]")?;
        writeln!(out, "confidence = {}", self.commitment.confidence)?;
        writeln!(out, "seed_confidence = {}", self.commitment.seed_confidence)?;
        writeln!(out, "\n# The children that prove, one entry each; without any there is one of each kind.")?;
        writeln!(out, "# [[processors.window_post]]\n# cgroup.cpuset = \"0-7\"")
    }

    /// Only what differs from the defaults is worth a place.
    fn write_fees(&self, out: &mut String) -> std::fmt::Result {
        #[derive(serde::Serialize)]
        struct Section<'a> {
            fees: &'a Fees,
        }
        if self.fees == Fees::default() {
            writeln!(out, "\n# What messages may cost, by class.")?;
            return writeln!(out, "# [fees.pre_commit]\n# max_fee = \"1 FIL\"\n# max_fee_cap = \"0.00000002 FIL\"");
        }
        let text = toml::to_string(&Section { fees: &self.fees }).map_err(|_| std::fmt::Error)?;
        write!(out, "\n{text}")
    }

    fn write_lists(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n# For whom sectors are sealed and proven.")?;
        for miner in &self.miners {
            writeln!(out, "[[miners]]\nactor = {}\nenabled = {}", miner.actor, miner.enabled)?;
            writeln!(out, "min_number = {}\nlifetime_days = {}", miner.min_number, miner.lifetime_days)?;
            match miner.max_sectors {
                Some(most) => writeln!(out, "max_sectors = {most}")?,
                None => writeln!(out, "# max_sectors = 100")?,
            }
        }
        if self.miners.is_empty() {
            writeln!(out, "# [[miners]]\n# actor = 1000")?;
        }
        writeln!(out, "\n# Where finished sectors lie.")?;
        for store in &self.persist_stores {
            writeln!(out, "[[persist_stores]]\nname = {}", quoted(&store.name))?;
            writeln!(out, "path = {}", quoted(&store.path.display().to_string()))?;
            writeln!(out, "read_only = {}", store.read_only)?;
        }
        if self.persist_stores.is_empty() {
            writeln!(out, "# [[persist_stores]]\n# name = \"store-1\"\n# path = \"/mnt/store-1\"")?;
        }
        Ok(())
    }
}

fn check_stores(source: &Source, stores: &[StoreSection]) -> Result<(), ConfigError> {
    let key = "persist_stores";
    let mut names = BTreeMap::new();
    for (i, store) in stores.iter().enumerate() {
        if store.name.is_empty() {
            return Err(source.error_at(&format!("{key}[{i}].name"), "is empty"));
        }
        if store.path.as_os_str().is_empty() {
            return Err(source.error_at(&format!("{key}[{i}].path"), "names no directory"));
        }
        if let Some(first) = names.insert(&store.name, i) {
            let error = format!("{key}[{first}] is `{}` too", store.name);
            return Err(source.error_at(&format!("{key}[{i}].name"), error));
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests;
