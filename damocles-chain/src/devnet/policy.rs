//! The parameters of the protocol that a devnet may have of its own.

use fil_actors_shared::v18::runtime::Policy;
use fvm_shared::{
    bigint::BigInt,
    sector::{RegisteredPoStProof, RegisteredSealProof},
};
use serde::{Deserialize, Serialize};

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
    /// How long after its window a proof that was taken on trust can be disputed. In proportion to the proving period if
    /// it is not given: 1,800 epochs of 2,880.
    pub dispute_window: Option<i64>,
    /// The shortest life of a sector.
    pub min_sector_expiration: i64,
    /// How long a new worker waits.
    pub worker_key_change_delay: i64,
    /// How many sectors one call addresses, and how many early terminations it settles.
    pub addressed_sectors_max: u64,
    /// Whether a proof that recovers nothing is taken on trust, to be disputed, as on public networks. Otherwise every
    /// proof is verified when it lands.
    pub optimistic_post: bool,
    /// Whether the estimates of power and reward follow the chain. Otherwise they stand still, and so do pledges, deposits
    /// and fees.
    pub moving_economy: bool,
    /// What the network's power is taken for at the beginning, in bytes. As on public networks at their beginning, 732 TiB
    /// and growing, if it is not given.
    pub initial_network_power: Option<u64>,
    /// Whether each block pays its epoch's reward and its tips to a miner with power, three quarters of it vesting.
    pub block_rewards: bool,
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
            dispute_window: None,
            min_sector_expiration: public.min_sector_expiration,
            worker_key_change_delay: public.worker_key_change_delay,
            addressed_sectors_max: public.addressed_sectors_max,
            optimistic_post: false,
            moving_economy: false,
            initial_network_power: None,
            block_rewards: false,
        }
    }
}

impl PolicyParameters {
    /// What is wrong with them.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let deadlines = i64::try_from(Policy::default().wpost_period_deadlines).unwrap_or(i64::MAX);
        let all = [
            self.pre_commit_challenge_delay,
            self.proving_period,
            self.challenge_window,
            self.challenge_lookback,
            self.fault_declaration_cutoff,
            self.fault_max_age,
            self.min_sector_expiration,
            self.worker_key_change_delay,
            self.dispute_window.unwrap_or(1),
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
        if self.disputable() >= self.proving_period - 2 * self.challenge_window {
            return Some("policy.dispute_window leaves no time for a deadline to be compacted in");
        }
        if !(1..=1_000_000).contains(&self.addressed_sectors_max) {
            return Some("policy.addressed_sectors_max is not between 1 and 1,000,000");
        }
        if self.minimum_power == 0 {
            return Some("policy.minimum_power is zero");
        }
        if self.initial_network_power == Some(0) {
            return Some("policy.initial_network_power is zero");
        }
        None
    }

    fn disputable(&self) -> i64 {
        let public = Policy::default();
        let in_proportion = self.proving_period * public.wpost_dispute_window / public.wpost_proving_period;
        self.dispute_window.unwrap_or(in_proportion)
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
            wpost_dispute_window: self.disputable(),
            fault_declaration_cutoff: self.fault_declaration_cutoff,
            fault_max_age: self.fault_max_age,
            min_sector_expiration: self.min_sector_expiration,
            worker_key_change_delay: self.worker_key_change_delay,
            addressed_sectors_max: self.addressed_sectors_max,
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
            RegisteredSealProof::StackedDRG2KiBV1P1_Feat_SyntheticPoRep,
            RegisteredSealProof::StackedDRG8MiBV1P1_Feat_SyntheticPoRep,
            RegisteredSealProof::StackedDRG512MiBV1P1_Feat_SyntheticPoRep,
        ] {
            policy.valid_pre_commit_proof_type.insert(proof);
        }
        for proof in [
            RegisteredSealProof::StackedDRG2KiBV1P2_Feat_NiPoRep,
            RegisteredSealProof::StackedDRG8MiBV1P2_Feat_NiPoRep,
            RegisteredSealProof::StackedDRG512MiBV1P2_Feat_NiPoRep,
        ] {
            policy.valid_prove_commit_ni_proof_type.insert(proof);
        }
        policy
    }

    /// As it is recorded with genesis: a chain cannot go on with another policy.
    pub(super) fn recorded(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether these are the parameters that were recorded. Whatever a record does not know had its default; an empty one
    /// knows nothing.
    pub(super) fn matches(&self, recorded: &str) -> bool {
        let recorded = if recorded.is_empty() { "{}" } else { recorded };
        serde_json::from_str::<Self>(recorded).is_ok_and(|recorded| recorded == *self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_knows_less_is_still_the_same_network() {
        let parameters = PolicyParameters::default();
        assert!(parameters.matches("") && parameters.matches(&parameters.recorded()));
        let before = r#"{"pre_commit_challenge_delay":10,"minimum_power":2048,"proving_period":2880,"challenge_window":60,
            "challenge_lookback":20,"fault_declaration_cutoff":70,"fault_max_age":120960}"#;
        assert!(parameters.matches(before));
        assert!(!parameters.matches(&before.replace("2048", "4096")));
        assert!(!parameters.matches("{"));
        assert!(!PolicyParameters { block_rewards: true, ..parameters }.matches(before));
    }

    #[test]
    fn nobody_takes_part_in_consensus_without_power() {
        assert_eq!(PolicyParameters::default().fault(), None);
        let without = PolicyParameters { minimum_power: 0, ..PolicyParameters::default() };
        assert_eq!(without.fault(), Some("policy.minimum_power is zero"));
    }

    #[test]
    fn disputes_are_in_proportion_to_the_period() {
        let public = PolicyParameters::default();
        assert_eq!(public.policy().wpost_dispute_window, 1800);
        let short = PolicyParameters { proving_period: 480, challenge_window: 10, ..public };
        assert_eq!(short.policy().wpost_dispute_window, 300);
        assert_eq!(PolicyParameters { dispute_window: Some(7), ..short }.policy().wpost_dispute_window, 7);
    }
}
