//! What a recorded proof proves, and what it does not.

use damocles_core::verify::{
    AggregateSealStatement, NI_SEED, NiSealStatement, ProofVerifier as _, SealStatement, UpdateStatement, VerifyError,
    VerifyErrorKind,
};
use damocles_core::{AggregationType, SealProofType, SectorId, SectorSize, zero_comm_d};
use damocles_seal::verifier::Groth16Verifier;

use crate::statements::recorded;

const SIZE: SectorSize = SectorSize::KiB2;
/// Where the number of proofs stands in an aggregate: after five elements of the target group and a point.
const PROOFS_AT: usize = 5 * 288 + 48;
/// The most bytes that the actor takes.
const MAX_AGGREGATE: usize = 81_960;

type Verify<S> = fn(&Groth16Verifier, &S, &[u8]) -> Result<bool, VerifyError>;

/// Asserts that a proof proves its statement, and that no other bytes prove it.
#[track_caller]
fn only_these_bytes<S>(verify: Verify<S>, statement: &S, proof: &[u8]) {
    let verifier = Groth16Verifier::new();
    assert!(verify(&verifier, statement, proof).unwrap(), "the proof as it was recorded");
    let refused = |bytes: &[u8], what: &dyn std::fmt::Debug| match verify(&verifier, statement, bytes) {
        Ok(false) => {}
        other => panic!("{what:?}: {other:?}"),
    };
    // Both ends, and what lies between in steps that fall on every kind of element.
    let last = proof.len() - 1;
    for position in (0..proof.len()).step_by(last / 12).chain([1, 47, 48, 95, 96, 191, last / 2, last]) {
        for bit in [0x01, 0x80] {
            let mut flipped = proof.to_vec();
            flipped[position] ^= bit;
            refused(&flipped, &("flipped", position, bit));
        }
    }
    for len in
        [0, 1, 47, 48, 96, 191, 192, 193, 384, 1439, PROOFS_AT, PROOFS_AT + 4, last, last + 2, MAX_AGGREGATE, 100_000]
    {
        let cycled: Vec<u8> = proof.iter().copied().cycle().take(len).collect();
        if len != proof.len() {
            refused(&cycled, &("the proof's bytes", len));
        }
        for fill in [0x00, 0x40, 0xc0, 0xff] {
            refused(&vec![fill; len], &("filled", fill, len));
        }
        refused(&noise(len), &("noise", len));
    }
    refused(&noise(proof.len()), &"noise of the right length");
}

/// Bytes without meaning, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(step).collect()
}

/// Asserts that a proof proves none of these statements.
#[track_caller]
fn no_other_statement<S: Clone>(verify: Verify<S>, statement: &S, proof: &[u8], changes: &[(&str, fn(&mut S))]) {
    for (what, change) in changes {
        let mut other = statement.clone();
        change(&mut other);
        let found = verify(&Groth16Verifier::new(), &other, proof);
        assert!(matches!(found, Ok(false)), "{what}: {found:?}");
    }
}

/// Asserts that an aggregate whose count of proofs is another is refused, and not looked up.
#[track_caller]
fn no_other_count<S>(verify: Verify<S>, statement: &S, proof: &[u8]) {
    let recorded = u32::from_le_bytes(proof[PROOFS_AT..][..4].try_into().unwrap());
    for count in [0, 1, 2, 3, 4, 5, 8, 16, 1024, 16_384, 1 << 19, u32::MAX] {
        let mut other = proof.to_vec();
        other[PROOFS_AT..][..4].copy_from_slice(&count.to_le_bytes());
        let found = verify(&Groth16Verifier::new(), statement, &other);
        assert!(matches!(found, Ok(verified) if verified == (count == recorded)), "{count}: {found:?}");
    }
}

const AGGREGATED: Verify<AggregateSealStatement> = |v, s, p| v.verify_aggregate_seals(s, p);
const NON_INTERACTIVE: Verify<NiSealStatement> = |v, s, p| v.verify_ni_seals(s, p);
const UPDATED: Verify<UpdateStatement> = |v, s, p| v.verify_replica_update(s, p);

#[test]
fn the_recorded_aggregate_proves_its_statement_only() {
    let Some(r) = recorded::<AggregateSealStatement>() else { return };
    only_these_bytes(AGGREGATED, &r.statement, &r.proof);
    no_other_count(AGGREGATED, &r.statement, &r.proof);
    no_other_statement(
        AGGREGATED,
        &r.statement,
        &r.proof,
        &[
            ("miner", |s| s.miner.0 += 1),
            ("synthetic", |s| s.proof_type = SealProofType::synthetic(SIZE)),
            ("non-interactive", |s| s.proof_type = SealProofType::non_interactive(SIZE)),
            ("aggregation", |s| s.aggregation = AggregationType::SnarkPackV1),
            ("first number", |s| s.sectors[0].number.0 += 100),
            ("last number", |s| s.sectors[3].number.0 += 100),
            ("comm_r", |s| s.sectors[1].comm_r.0[0] ^= 1),
            ("comm_r of zeros", |s| s.sectors[1].comm_r.0 = [0; 32]),
            ("comm_r that is no field element", |s| s.sectors[1].comm_r.0 = [0xff; 32]),
            ("comm_d", |s| s.sectors[1].comm_d.0[0] ^= 1),
            ("comm_d that is no field element", |s| s.sectors[1].comm_d.0 = [0xff; 32]),
            ("ticket", |s| s.sectors[2].ticket.0[31] ^= 0x80),
            ("seed", |s| s.sectors[3].seed.0[31] ^= 0x80),
            ("order", |s| s.sectors.swap(0, 1)),
            ("one less", |s| s.sectors.truncate(3)),
            ("one twice", |s| s.sectors[1] = s.sectors[0]),
            ("the last once more", |s| s.sectors.push(s.sectors[3])),
            ("none", |s| s.sectors.clear()),
            ("more than any aggregate holds", |s| s.sectors = vec![s.sectors[0]; 1025]),
        ],
    );
}

#[test]
fn the_recorded_non_interactive_proof_proves_its_statement_only() {
    let Some(r) = recorded::<NiSealStatement>() else { return };
    only_these_bytes(NON_INTERACTIVE, &r.statement, &r.proof);
    no_other_count(NON_INTERACTIVE, &r.statement, &r.proof);
    no_other_statement(
        NON_INTERACTIVE,
        &r.statement,
        &r.proof,
        &[
            ("miner", |s| s.miner.0 += 1),
            ("number", |s| s.sectors[0].number.0 += 1),
            ("comm_r", |s| s.sectors[0].comm_r.0[0] ^= 1),
            ("comm_d", |s| s.sectors[0].comm_d.0[0] ^= 1),
            ("ticket", |s| s.sectors[0].ticket.0[31] ^= 0x80),
            ("twice", |s| s.sectors.push(s.sectors[0])),
            ("none", |s| s.sectors.clear()),
            ("more than any aggregate holds", |s| s.sectors = vec![s.sectors[0]; 80]),
        ],
    );
    let as_seal = SealStatement {
        sector: SectorId::new(r.statement.miner, r.statement.sectors[0].number),
        proof_type: SealProofType::non_interactive(SIZE),
        comm_r: r.statement.sectors[0].comm_r,
        comm_d: r.statement.sectors[0].comm_d,
        ticket: r.statement.sectors[0].ticket,
        seed: NI_SEED,
    };
    let verifier = Groth16Verifier::new();
    assert!(!verifier.verify_seal(&as_seal, &r.proof).unwrap(), "pre-committed sectors are never non-interactive");
}

#[test]
fn the_recorded_update_proves_its_statement_only() {
    let Some(r) = recorded::<UpdateStatement>() else { return };
    only_these_bytes(UPDATED, &r.statement, &r.proof);
    no_other_statement(
        UPDATED,
        &r.statement,
        &r.proof,
        &[
            ("old comm_r", |s| s.old_comm_r.0[0] ^= 1),
            ("new comm_r", |s| s.new_comm_r.0[0] ^= 1),
            ("new comm_d", |s| s.new_comm_d.0[0] ^= 1),
            ("swapped", |s| std::mem::swap(&mut s.old_comm_r, &mut s.new_comm_r)),
            ("no update", |s| s.new_comm_r = s.old_comm_r),
            ("no data", |s| s.new_comm_d = zero_comm_d(SIZE)),
            ("old comm_r that is no field element", |s| s.old_comm_r.0 = [0xff; 32]),
            ("new comm_r that is no field element", |s| s.new_comm_r.0 = [0xff; 32]),
            ("new comm_d that is no field element", |s| s.new_comm_d.0 = [0xff; 32]),
        ],
    );
}

/// The key that everybody can forge with serves no sector of a public network.
#[test]
fn our_srs_verifies_nothing_for_large_sectors() {
    let Some(r) = recorded::<AggregateSealStatement>() else { return };
    let verifier = Groth16Verifier::new();
    for size in [SectorSize::GiB32, SectorSize::GiB64] {
        let statement = AggregateSealStatement { proof_type: SealProofType::of(size), ..r.statement.clone() };
        let error = verifier.verify_aggregate_seals(&statement, &r.proof).unwrap_err();
        assert_eq!(error.kind(), VerifyErrorKind::Key);
        assert!(error.hint().is_some_and(|hint| hint.contains("ceremony")), "{}", error.chain());
        let ni = NiSealStatement { miner: r.statement.miner, sector_size: size, sectors: Vec::new() };
        assert_eq!(verifier.verify_ni_seals(&ni, &r.proof).unwrap_err().kind(), VerifyErrorKind::Key);
    }
}
