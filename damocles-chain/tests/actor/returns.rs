//! What actors return.

use crate::samples::{self, MINER, account};
use damocles_chain::{ReturnError, decode_return};
use damocles_core::{
    ActorId, SectorNumber, TokenAmount,
    chain::{Call, ExitCode, Returned, SectorOutcome},
};
use proptest::prelude::*;

fn call(name: &str) -> Call {
    samples::all().into_iter().find(|(each, _)| *each == name).unwrap().1
}

fn decode(name: &str, hex: &str) -> Result<Returned, ReturnError> {
    decode_return(&call(name), &hex::decode(hex.replace(' ', "")).unwrap())
}

#[test]
fn values_are_read() {
    // An ID address, and the address of the actor (protocol 2).
    let robust = "02".to_owned() + &"aa".repeat(20);
    let made = decode("CreateMiner", &format!("82 43 00e807 55 {robust}")).unwrap();
    let Returned::Miner { id, robust } = made else { panic!("{made:?}") };
    assert_eq!(id, MINER);
    assert!(robust.as_str().starts_with("t2"), "{robust}");
    // The structs of one field are that field, or a list of it, as each type says.
    assert_eq!(
        decode("WithdrawBalance", "49000de0b6b3a7640000").unwrap(),
        Returned::Withdrawn(TokenAmount::from_fil(1))
    );
    assert_eq!(decode("TerminateSectors", "81f4").unwrap(), Returned::Terminated { done: false });
    assert_eq!(decode("TerminateSectors", "81f5").unwrap(), Returned::Terminated { done: true });
    assert_eq!(decode("Send", "182a").unwrap(), Returned::Data(vec![0x18, 0x2a]));
    for silent in ["PreCommitSectorBatch2", "SubmitWindowedPoSt", "DeclareFaults", "RepayDebt", "ChangePeerID", "Send"]
    {
        assert_eq!(decode(silent, "").unwrap(), Returned::Nothing, "{silent}");
    }
    assert!(matches!(decode("DeclareFaults", "80"), Err(ReturnError::NotEmpty { got: 1 })));
}

#[test]
fn batches_are_told_by_sector() {
    let outcome = |number, code| SectorOutcome { number: SectorNumber(number), exit_code: ExitCode(code) };
    let both = decode("ProveCommitSectorsNI", "82 02 80").unwrap();
    assert_eq!(both, Returned::Sectors(vec![outcome(1, 0), outcome(2, 0)]));
    let first = decode("ProveCommitSectorsNI", "82 01 81 82 00 10").unwrap();
    assert_eq!(first, Returned::Sectors(vec![outcome(1, 16), outcome(2, 0)]));
    assert_eq!(first.failed().map(|s| s.number.0).collect::<Vec<_>>(), [1]);
    let two = decode("ProveCommitSectors3, aggregate", "82 02 82 82 01 10 82 03 12").unwrap();
    assert_eq!(two, Returned::Sectors(vec![outcome(1, 0), outcome(2, 16), outcome(3, 0), outcome(4, 18)]));
    assert_eq!(decode("ProveReplicaUpdates3", "82 01 80").unwrap(), Returned::Sectors(vec![outcome(9, 0)]));
    assert_eq!(decode("ProveCommitSectors3", "82 00 81 82 00 14").unwrap(), Returned::Sectors(vec![outcome(1, 20)]));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    for (bad, why) in [
        ("82 1a ffffffff 80", "four thousand million successes"),
        ("82 01 80", "too few"),
        ("82 03 80", "too many"),
        ("82 01 81 82 02 10", "a failure beyond the batch"),
        ("82 01 81 82 1a ffffffff 10", "a failure far beyond the batch"),
        ("82 00 82 82 00 10 82 00 10", "one sector fails twice"),
        ("82 00 82 82 01 10 82 00 10", "failures out of order"),
        ("82 01 81 82 00 00", "a failure with the code of success"),
        ("82 02 9b ffffffffffffffff", "a list without end"),
        ("82 02", "half of it"),
        ("82 20 80", "a negative count"),
        ("", "nothing"),
    ] {
        assert!(decode("ProveCommitSectorsNI", bad).is_err(), "{why}");
    }
    let unnamed = "82 55 02 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 43 00e807";
    assert!(matches!(decode("CreateMiner", unnamed), Err(ReturnError::MinerId)));
    let vast = format!("51 00 {}", "ff".repeat(16));
    assert!(matches!(decode("WithdrawBalance", &vast), Err(ReturnError::Amount)));
}

#[test]
fn values_are_recorded_as_json() {
    let value = Returned::Miner { id: ActorId(1000), robust: account(7) };
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(json, r#"{"miner":{"id":1000,"robust":"t07"}}"#);
    assert_eq!(serde_json::from_str::<Returned>(&json).unwrap(), value);
    let sectors = Returned::Sectors(vec![SectorOutcome { number: SectorNumber(1), exit_code: ExitCode(16) }]);
    assert_eq!(serde_json::to_string(&sectors).unwrap(), r#"{"sectors":[{"number":1,"exit_code":16}]}"#);
}

proptest! {
    #[test]
    fn hostile_bytes_are_values_or_errors(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for (_, call) in samples::all() {
            if let Ok(Returned::Sectors(told)) = decode_return(&call, &bytes) {
                prop_assert!(told.len() <= 4, "no more than were sent");
            }
        }
    }

    /// What begins like a batch gets further than noise does.
    #[test]
    fn hostile_batches_are_values_or_errors(
        successes in any::<u32>(),
        failures in proptest::collection::vec((0u32..6, any::<u32>()), 0..6),
    ) {
        let bytes = fvm_ipld_encoding::to_vec(&(successes % 6, failures.clone())).unwrap();
        let all = samples::all();
        for (_, call) in &all {
            if let Ok(Returned::Sectors(told)) = decode_return(call, &bytes) {
                let failed = told.iter().filter(|s| !s.exit_code.is_success()).count();
                prop_assert_eq!(failed, failures.len());
            }
        }
    }
}
