//! On-chain calls as domain values. damocles-chain alone turns them into actor parameters, CBOR, gas and signatures.

use super::calls::{
    ChangeBeneficiary, ChangeMultiaddrs, ChangeOwner, ChangePeerId, ChangeWorker, CompactPartitions,
    CompactSectorNumbers, ConfirmChangeWorker, CreateMiner, DeclareFaults, DeclareFaultsRecovered, ExtendSectors,
    PreCommitBatch, ProveCommit, ProveCommitAggregate, ProveCommitNi, ProveReplicaUpdates, RepayDebt,
    SubmitWindowedPoSt, TerminateSectors, Transfer, WithdrawBalance,
};
use crate::{ActorId, Address};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something that can be asked of an actor.
///
/// Outboxes keep calls as JSON, so what was written once stays readable: names never change, and a new field has a
/// default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Call {
    /// Power actor, `CreateMiner`. The client adds the deposit of FIP-0077.
    CreateMiner(CreateMiner),
    /// Miner actor, `PreCommitSectorBatch2`. The client adds the deposit.
    PreCommit(PreCommitBatch),
    /// Miner actor, `ProveCommitSectors3` with a proof for each sector. The client adds the pledge.
    ProveCommit(ProveCommit),
    /// Miner actor, `SubmitWindowedPoSt`.
    SubmitWindowedPoSt(SubmitWindowedPoSt),
    /// Miner actor, `DeclareFaults`.
    DeclareFaults(DeclareFaults),
    /// Miner actor, `DeclareFaultsRecovered`.
    DeclareFaultsRecovered(DeclareFaultsRecovered),
    /// Miner actor, `ProveCommitSectors3` with one aggregated proof.
    ProveCommitAggregate(ProveCommitAggregate),
    /// Miner actor, `ProveReplicaUpdates3`.
    ProveReplicaUpdates(ProveReplicaUpdates),
    /// Miner actor, `ProveCommitSectorsNI`.
    ProveCommitNi(ProveCommitNi),
    /// Miner actor, `ExtendSectorExpiration2`.
    ExtendSectors(ExtendSectors),
    /// Miner actor, `TerminateSectors`.
    TerminateSectors(TerminateSectors),
    /// Miner actor, `CompactPartitions`.
    CompactPartitions(CompactPartitions),
    /// Miner actor, `CompactSectorNumbers`.
    CompactSectorNumbers(CompactSectorNumbers),
    /// Miner actor, `WithdrawBalance`.
    WithdrawBalance(WithdrawBalance),
    /// Miner actor, `RepayDebt`.
    RepayDebt(RepayDebt),
    /// Miner actor, `ChangeWorkerAddress`.
    ChangeWorker(ChangeWorker),
    /// Miner actor, `ConfirmChangeWorkerAddress`.
    ConfirmChangeWorker(ConfirmChangeWorker),
    /// Miner actor, `ChangeOwnerAddress`.
    ChangeOwner(ChangeOwner),
    /// Miner actor, `ChangeBeneficiary`.
    ChangeBeneficiary(ChangeBeneficiary),
    /// Miner actor, `ChangePeerID`.
    ChangePeerId(ChangePeerId),
    /// Miner actor, `ChangeMultiaddrs`.
    ChangeMultiaddrs(ChangeMultiaddrs),
    /// Any actor, method 0: money and nothing else.
    Send(Transfer),
}

impl Call {
    /// Its class, which decides sender and fees.
    pub const fn kind(&self) -> CallKind {
        match self {
            Self::CreateMiner(_) => CallKind::CreateMiner,
            Self::PreCommit(_) => CallKind::PreCommit,
            Self::ProveCommit(_)
            | Self::ProveCommitAggregate(_)
            | Self::ProveReplicaUpdates(_)
            | Self::ProveCommitNi(_) => CallKind::ProveCommit,
            Self::SubmitWindowedPoSt(_) | Self::DeclareFaults(_) | Self::DeclareFaultsRecovered(_) => CallKind::PoSt,
            Self::TerminateSectors(_) => CallKind::Terminate,
            Self::ExtendSectors(_)
            | Self::CompactPartitions(_)
            | Self::CompactSectorNumbers(_)
            | Self::WithdrawBalance(_)
            | Self::RepayDebt(_)
            | Self::ChangeWorker(_)
            | Self::ConfirmChangeWorker(_)
            | Self::ChangeOwner(_)
            | Self::ChangeBeneficiary(_)
            | Self::ChangePeerId(_)
            | Self::ChangeMultiaddrs(_)
            | Self::Send(_) => CallKind::Other,
        }
    }

    /// The miner that it is sent to; none for `CreateMiner` and `Send`.
    pub const fn miner(&self) -> Option<ActorId> {
        match self {
            Self::CreateMiner(_) | Self::Send(_) => None,
            Self::PreCommit(call) => Some(call.miner),
            Self::ProveCommit(call) => Some(call.miner),
            Self::SubmitWindowedPoSt(call) => Some(call.miner),
            Self::DeclareFaults(call) => Some(call.miner),
            Self::DeclareFaultsRecovered(call) => Some(call.miner),
            Self::ProveCommitAggregate(call) => Some(call.miner),
            Self::ProveReplicaUpdates(call) => Some(call.miner),
            Self::ProveCommitNi(call) => Some(call.miner),
            Self::ExtendSectors(call) => Some(call.miner),
            Self::TerminateSectors(call) => Some(call.miner),
            Self::CompactPartitions(call) => Some(call.miner),
            Self::CompactSectorNumbers(call) => Some(call.miner),
            Self::WithdrawBalance(call) => Some(call.miner),
            Self::RepayDebt(call) => Some(call.miner),
            Self::ChangeWorker(call) => Some(call.miner),
            Self::ConfirmChangeWorker(call) => Some(call.miner),
            Self::ChangeOwner(call) => Some(call.miner),
            Self::ChangeBeneficiary(call) => Some(call.miner),
            Self::ChangePeerId(call) => Some(call.miner),
            Self::ChangeMultiaddrs(call) => Some(call.miner),
        }
    }

    /// Whom the actor takes it from: the check of the caller in the method of builtin-actors v18 (`miner/src/lib.rs`,
    /// `power/src/lib.rs`).
    pub const fn sender_role(&self) -> SenderRole {
        match self {
            // `validate_immediate_caller_accept_any`, and method 0 has no check.
            Self::CreateMiner(_) | Self::Send(_) => SenderRole::Anyone,
            // `control_addresses`, `worker`, `owner`.
            Self::PreCommit(_)
            | Self::ProveCommit(_)
            | Self::ProveCommitAggregate(_)
            | Self::ProveReplicaUpdates(_)
            | Self::ProveCommitNi(_)
            | Self::SubmitWindowedPoSt(_)
            | Self::DeclareFaults(_)
            | Self::DeclareFaultsRecovered(_)
            | Self::ExtendSectors(_)
            | Self::TerminateSectors(_)
            | Self::CompactPartitions(_)
            | Self::CompactSectorNumbers(_)
            | Self::RepayDebt(_)
            | Self::ChangePeerId(_)
            | Self::ChangeMultiaddrs(_) => SenderRole::Control,
            // `once(&info.owner)`.
            Self::ChangeWorker(_) | Self::ConfirmChangeWorker(_) => SenderRole::Owner,
            // `&[info.owner, info.beneficiary]`.
            Self::WithdrawBalance(_) => SenderRole::OwnerOrBeneficiary,
            // The owner or `pending_owner_address`.
            Self::ChangeOwner(_) => SenderRole::OwnerOrNominee,
            // The owner proposes; `new_beneficiary` and the present beneficiary approve.
            Self::ChangeBeneficiary(_) => SenderRole::OwnerOrParty,
        }
    }

    /// The sender that the call itself names, if it names one.
    pub const fn sender(&self) -> Option<&Address> {
        match self {
            Self::CreateMiner(call) => Some(&call.owner),
            Self::Send(call) => Some(&call.from),
            Self::WithdrawBalance(call) => call.from.as_ref(),
            Self::ChangeWorker(call) => call.from.as_ref(),
            Self::ConfirmChangeWorker(call) => call.from.as_ref(),
            Self::ChangeOwner(call) => call.from.as_ref(),
            Self::ChangeBeneficiary(call) => call.from.as_ref(),
            _ => None,
        }
    }
}

/// The classes of calls: each has its sender and its policy of fees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallKind {
    /// Making a miner.
    CreateMiner,
    /// Pre-commits.
    PreCommit,
    /// Prove-commits, updates and non-interactive commits.
    ProveCommit,
    /// Proofs of spacetime, faults and recoveries: they outrank everything else.
    PoSt,
    /// Terminations.
    Terminate,
    /// Everything else: extensions, compaction, money, addresses.
    Other,
}

impl CallKind {
    /// All classes.
    pub const ALL: [Self; 6] =
        [Self::CreateMiner, Self::PreCommit, Self::ProveCommit, Self::PoSt, Self::Terminate, Self::Other];
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateMiner => "create-miner",
            Self::PreCommit => "pre-commit",
            Self::ProveCommit => "prove-commit",
            Self::PoSt => "post",
            Self::Terminate => "terminate",
            Self::Other => "other",
        })
    }
}

/// Whom an actor takes a call from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SenderRole {
    /// Any account.
    Anyone,
    /// A control address, the worker or the owner.
    Control,
    /// The owner.
    Owner,
    /// The owner or the beneficiary.
    OwnerOrBeneficiary,
    /// The owner to propose, the proposed owner to accept.
    OwnerOrNominee,
    /// The owner to propose, the proposed and the present beneficiary to agree.
    OwnerOrParty,
}

impl SenderRole {
    /// Whether a control address or the worker may send it.
    pub const fn takes_control(self) -> bool {
        matches!(self, Self::Anyone | Self::Control)
    }
}

impl fmt::Display for SenderRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anyone => "any account",
            Self::Control => "a control address, the worker or the owner",
            Self::Owner => "the owner",
            Self::OwnerOrBeneficiary => "the owner or the beneficiary",
            Self::OwnerOrNominee => "the owner or the proposed owner",
            Self::OwnerOrParty => "the owner, or the proposed or present beneficiary",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as outboxes hold them that were written before calls other than these six existed.
    const OLD_ROWS: [&str; 6] = [
        r#"{"create_miner":{"owner":"t0100","worker":"t0101","sector_size":"2KiB"}}"#,
        r#"{"pre_commit":{"miner":1000,"sectors":[{"number":7,"proof_type":5,"comm_r":"bagboea4b5abcaaiyohkxljhqjejkghlu6kxaqt3ucpgbpk3fjtv5cjlkhfycyuqa","comm_d":null,"ticket_epoch":100,"expiration":1000000}]}}"#,
        r#"{"prove_commit":{"miner":1000,"sectors":[{"number":7,"proof":"010203","pieces":[{"piece":{"comm_p":"baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq","size":2048}}]}],"all_or_nothing":true}}"#,
        r#"{"submit_windowed_po_st":{"miner":1000,"deadline":5,"partitions":[{"index":0,"skipped":[3,4]}],"proof_type":10,"proof":"0909","commit_epoch":123,"commit_randomness":"0101010101010101010101010101010101010101010101010101010101010101"}}"#,
        r#"{"declare_faults":{"miner":1000,"faults":[{"deadline":1,"partition":0,"sectors":[7]}]}}"#,
        r#"{"declare_faults_recovered":{"miner":1000,"recoveries":[{"deadline":1,"partition":0,"sectors":[7]}]}}"#,
    ];

    #[test]
    fn rows_of_old_outboxes_still_parse_and_are_written_the_same() {
        for row in OLD_ROWS {
            let call: Call = serde_json::from_str(row).unwrap_or_else(|e| panic!("{row}: {e}"));
            assert_eq!(serde_json::to_string(&call).unwrap(), row);
        }
    }

    #[test]
    fn classes_are_written_as_before() {
        let written = CallKind::ALL.map(|kind| serde_json::to_string(&kind).unwrap());
        let expected = ["create_miner", "pre_commit", "prove_commit", "po_st", "terminate", "other"];
        assert_eq!(written, expected.map(|name| format!("\"{name}\"")));
    }

    #[test]
    fn who_may_send_follows_the_actor() {
        let owner = Address::from_actor(ActorId(100));
        let of = |json: &str| serde_json::from_str::<Call>(json).unwrap();
        for row in OLD_ROWS.iter().skip(1) {
            assert_eq!(of(row).sender_role(), SenderRole::Control, "{row}");
            assert_eq!(of(row).sender(), None, "{row}");
        }
        let create = of(OLD_ROWS[0]);
        assert_eq!((create.sender_role(), create.sender()), (SenderRole::Anyone, Some(&owner)));
        let change = of(r#"{"change_owner":{"miner":1000,"owner":"t0102","from":"t0100"}}"#);
        assert_eq!((change.sender_role(), change.sender()), (SenderRole::OwnerOrNominee, Some(&owner)));
        let confirm = of(r#"{"confirm_change_worker":{"miner":1000}}"#);
        assert_eq!((confirm.sender_role(), confirm.kind()), (SenderRole::Owner, CallKind::Other));
        assert!(!confirm.sender_role().takes_control());
    }
}
