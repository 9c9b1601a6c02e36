//! What a devnet is made from.

use crate::lotus_json::parse_address;
use fil_actors_shared::v18::runtime::Policy;
use fvm_shared::{
    address::Address,
    bigint::BigInt,
    econ::TokenAmount,
    sector::{RegisteredPoStProof, RegisteredSealProof},
};
use std::time::Duration;

/// The height of the first tipset after genesis: tickets are drawn 900 epochs back, so no client needs a special case.
pub const FIRST_HEIGHT: i64 = 1000;

/// The network version that it implements.
pub const NETWORK_VERSION: u32 = 28;

/// Epochs between a pre-commit and its seed.
const PRE_COMMIT_CHALLENGE_DELAY: i64 = 10;

/// The least power of a miner that takes part in consensus.
const MIN_POWER: u64 = 2048;

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
}

impl Default for DevnetConfig {
    fn default() -> Self {
        Self {
            network_name: "devnet-2k".to_owned(),
            genesis_seed: *b"damocles devnet genesis seed 001",
            epoch_duration: Duration::from_millis(250),
            fund: Vec::new(),
        }
    }
}

impl DevnetConfig {
    /// Parses an address with either network prefix.
    pub fn parse_address(text: &str) -> Option<Address> {
        parse_address(text).ok()
    }
}

/// The protocol's policy; only challenge delay, proof types and minimum power are the devnet's own.
pub(super) fn policy() -> Policy {
    let mut policy = Policy {
        pre_commit_challenge_delay: PRE_COMMIT_CHALLENGE_DELAY,
        minimum_consensus_power: BigInt::from(MIN_POWER),
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
