//! Vectors that were printed by another program from the actors' types, and numbers that the protocol gives.

use crate::samples::{MINER, part, window_post};
use damocles_chain::encode;
use damocles_core::{
    CommR, DeadlineIndex, Epoch, PartitionIndex, SealProofType, SectorNumber, SectorSize, TokenAmount,
    chain::{
        Call, CompactPartitions, DeclareFaults, ExitCode, PreCommit, PreCommitBatch, ProveCommit, SectorProof,
        WithdrawBalance,
    },
};
use fvm_shared::error::ExitCode as Vm;

fn hex_of(call: &Call) -> (u64, String) {
    let encoded = encode(call).unwrap();
    (encoded.method, hex::encode(encoded.params.bytes()))
}

#[test]
fn pre_commits_and_posts() {
    let sector = PreCommit {
        number: SectorNumber(1),
        proof_type: SealProofType::of(SectorSize::KiB2),
        comm_r: CommR([7; 32]),
        comm_d: None,
        ticket_epoch: Epoch(100),
        expiration: Epoch(1_000_000),
    };
    let call = Call::PreCommit(PreCommitBatch { miner: MINER, sectors: vec![sector] });
    let expected = format!("8181870501d82a5829000182e20381e80220{}1864801a000f4240f6", "07".repeat(32));
    assert_eq!(hex_of(&call), (28, expected));

    let expected = format!("850582820040820146e8680a941f0181820a58c0{}187b5820{}", "09".repeat(192), "01".repeat(32));
    assert_eq!(hex_of(&Call::SubmitWindowedPoSt(window_post(2))), (5, expected));
}

#[test]
fn faults_compaction_and_withdrawals() {
    let faults = Call::DeclareFaults(DeclareFaults { miner: MINER, faults: vec![part(1, 0, &[7])] });
    assert_eq!(hex_of(&faults), (10, "818183010042f002".to_owned()));
    // The actor joins what is said of one partition, so it is joined before it is counted.
    let twice = vec![part(1, 0, &[7]), part(1, 0, &[7])];
    assert_eq!(hex_of(&Call::DeclareFaults(DeclareFaults { miner: MINER, faults: twice })), hex_of(&faults));
    let partitions = [PartitionIndex(7)].into();
    let compact = Call::CompactPartitions(CompactPartitions { miner: MINER, deadline: DeadlineIndex(1), partitions });
    assert_eq!(hex_of(&compact), (19, "820142f002".to_owned()));
    let amount = TokenAmount::from_fil(1);
    let withdraw = Call::WithdrawBalance(WithdrawBalance { miner: MINER, amount, from: None });
    assert_eq!(hex_of(&withdraw), (16, "8149000de0b6b3a7640000".to_owned()));
}

#[test]
fn a_sector_without_data_has_no_pieces() {
    let sector = SectorProof { number: SectorNumber(1), proof: vec![1, 2, 3], pieces: Vec::new() };
    let call = Call::ProveCommit(ProveCommit { miner: MINER, sectors: vec![sector], all_or_nothing: true });
    assert_eq!(hex_of(&call), (34, "86818201808143010203 40f6f5f4".replace(' ', "")));
}

#[test]
fn exit_codes_have_the_names_of_the_vm_and_the_miner() {
    macro_rules! named {
        ($from:ty: $($name:ident)*) => {
            [$((<$from>::$name.value(), stringify!($name))),*]
        };
    }
    let common = named!(Vm: OK SYS_SENDER_INVALID SYS_SENDER_STATE_INVALID SYS_ILLEGAL_INSTRUCTION
        SYS_INVALID_RECEIVER SYS_INSUFFICIENT_FUNDS SYS_OUT_OF_GAS SYS_ILLEGAL_EXIT_CODE SYS_ASSERTION_FAILED
        SYS_MISSING_RETURN USR_ILLEGAL_ARGUMENT USR_NOT_FOUND USR_FORBIDDEN USR_INSUFFICIENT_FUNDS USR_ILLEGAL_STATE
        USR_SERIALIZATION USR_UNHANDLED_MESSAGE USR_UNSPECIFIED USR_ASSERTION_FAILED USR_READ_ONLY USR_NOT_PAYABLE);
    macro_rules! of_miner {
        ($($name:ident)*) => {
            [$((fil_actor_miner_state::v18::$name.value(), stringify!($name))),*]
        };
    }
    let own = of_miner!(ERR_BALANCE_INVARIANTS_BROKEN ERR_NOTIFICATION_SEND_FAILED ERR_NOTIFICATION_RECEIVER_ABORTED
        ERR_NOTIFICATION_RESPONSE_INVALID ERR_NOTIFICATION_REJECTED);
    let mut names = 0;
    for (code, name) in common.into_iter().chain(own) {
        assert_eq!(ExitCode(i64::from(code)).name(), Some(name));
        names += 1;
    }
    assert_eq!((0..2000).filter(|code| ExitCode(*code).name().is_some()).count(), names, "and no others");
}
