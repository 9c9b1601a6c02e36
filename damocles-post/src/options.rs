//! What a scheduler can be told.

use std::time::Duration;

/// How a scheduler plans and fulfils. All counts are of epochs unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Epochs on top of a message before it counts as landed; at least one, because what it did shows only then.
    pub confidence: i64,
    /// Epochs on top of a challenge before it is proven. A changed challenge is noticed in any case and costs a proof.
    pub challenge_confidence: i64,
    /// Epochs after a deadline opens before its proof is sent, so that a reorganisation of the opening does not undo it.
    /// Never more than half the time that is left until the duty is due.
    pub submit_confidence: i64,
    /// How long before the protocol's last epoch a duty is due.
    pub due_margin: i64,
    /// The most partitions in one proof: 1 to 3, and fewer where they hold more than [`Self::MAX_SECTORS_PER_PROOF`].
    pub partitions_per_proof: u64,
    /// The most partitions in one declaration of recoveries.
    pub partitions_per_declaration: usize,
    /// How many deadlines after the current one a view holds. Three are needed to see every cut-off that is ahead in time.
    pub lookahead: u64,
    /// The most messages for one duty.
    pub attempts: u32,
    /// How many sectors are read alone at a time, and never more than the pool has slots for it.
    pub parallel_checks: usize,
    /// How long a reader of challenges or a prover may take in any case. Beyond that it may take a share of the epochs that
    /// are left until the duty is due; one that takes longer hangs.
    pub least_read_time: Duration,
    /// How long the pool is waited for when it stops a job.
    pub stop_time: Duration,
    /// How long the chain client may take for one answer.
    pub chain_timeout: Duration,
}

impl Options {
    /// The protocol takes no more partitions in one message.
    pub const MAX_PARTITIONS_PER_PROOF: u64 = 3;

    /// The most sectors in one proof, unless a single partition has more: two full partitions of 32 GiB sectors. The
    /// vanilla proof of each is 25 KiB, and all of them go to the prover in one piece.
    pub const MAX_SECTORS_PER_PROOF: usize = 2 * 2349;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            confidence: 5,
            challenge_confidence: 2,
            submit_confidence: 0,
            due_margin: 0,
            partitions_per_proof: Self::MAX_PARTITIONS_PER_PROOF,
            partitions_per_declaration: 50,
            lookahead: 4,
            attempts: 5,
            parallel_checks: 8,
            least_read_time: Duration::from_secs(10),
            stop_time: Duration::from_secs(30),
            chain_timeout: Duration::from_secs(60),
        }
    }
}
