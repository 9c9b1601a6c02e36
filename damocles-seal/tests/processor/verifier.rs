//! Real proofs that lie in the repository, and rubbish.

use crate::sector::{PROOF, SIZE, WINDOW};
use damocles_core::{
    ActorId, CommD, CommR, PoStProofType, SealProofType, SectorId, SectorNumber, SectorSize,
    verify::{PoStStatement, ProofVerifier, ProvenSector, Randomness, SealStatement, VerifyErrorKind},
};
use damocles_seal::{
    params::{CircuitId, Origin, ParameterCache},
    verifier::Groth16Verifier,
};
use serde_json::Value;

fn bytes32(value: &Value) -> [u8; 32] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn recorded(text: &str) -> (Value, Vec<u8>) {
    let value: Value = serde_json::from_str(text).unwrap();
    let proof = hex::decode(value["proof"].as_str().unwrap()).unwrap();
    (value, proof)
}

/// A verifier whose keys are those that the proofs were made with; none where the cache holds somebody else's, which
/// is said.
fn verifier() -> Option<Groth16Verifier> {
    let cancel = damocles_core::CancellationToken::new();
    let circuits = CircuitId::for_sealing(SIZE.bytes());
    let sets = ParameterCache::of_library().ensure(&circuits, &cancel, &|_| {}).unwrap().sets;
    if let Some((foreign, _)) = sets.iter().find(|(set, _)| set.origin != Origin::Ours) {
        println!("skipped: the parameters of {:?} are {:?}", foreign.circuit, foreign.origin);
        return None;
    }
    let verifier = Groth16Verifier::new();
    let (seal, _) = recorded(include_str!("../recorded/porep_2k.json"));
    let keys = verifier.keys(PROOF).unwrap();
    assert_eq!(seal["verifying_key"], keys.porep, "keys of ours are the same everywhere");
    Some(verifier)
}

fn rubbish(proof: &[u8]) -> Vec<Vec<u8>> {
    let mut flipped = proof.to_vec();
    flipped[60] ^= 1;
    let mut swapped = proof.to_vec();
    swapped.rotate_left(48);
    let cut = proof[..proof.len() - 1].to_vec();
    let long = [proof, &[0]].concat();
    let len = proof.len();
    vec![flipped, swapped, cut, long, Vec::new(), vec![0; len], vec![0xff; len], vec![0xc0; len], vec![0x80; 7]]
}

#[test]
fn recorded_seals_verify_and_nothing_else_does() {
    let Some(verifier) = verifier() else { return };
    let (value, proof) = recorded(include_str!("../recorded/porep_2k.json"));
    let statement = SealStatement {
        sector: SectorId::new(
            ActorId(value["miner"].as_u64().unwrap()),
            SectorNumber(value["sector"].as_u64().unwrap()),
        ),
        proof_type: PROOF,
        comm_r: CommR(bytes32(&value["comm_r"])),
        comm_d: CommD(bytes32(&value["comm_d"])),
        ticket: Randomness(bytes32(&value["ticket"])),
        seed: Randomness(bytes32(&value["seed"])),
    };
    assert!(verifier.verify_seal(&statement, &proof).unwrap());
    for rubbish in rubbish(&proof) {
        assert!(!verifier.verify_seal(&statement, &rubbish).unwrap(), "{}", hex::encode(rubbish));
    }
    let refused = |change: &dyn Fn(&mut SealStatement)| {
        let mut other = statement.clone();
        change(&mut other);
        !verifier.verify_seal(&other, &proof).unwrap()
    };
    assert!(refused(&|s| s.sector.miner.0 += 1));
    assert!(refused(&|s| s.sector.number.0 += 1));
    assert!(refused(&|s| s.ticket.0[0] ^= 1));
    assert!(refused(&|s| s.seed.0[0] ^= 1));
    assert!(refused(&|s| s.comm_d.0[0] ^= 1));
    assert!(refused(&|s| s.comm_r.0[0] ^= 1));
    assert!(refused(&|s| s.comm_r = CommR([0xff; 32])), "not even a field element");
    assert!(refused(&|s| s.comm_d = CommD([0xff; 32])), "not even a field element");
    assert!(refused(&|s| s.comm_r = CommR([0; 32])));
    assert!(refused(&|s| s.proof_type = SealProofType::synthetic(SIZE)));
    assert!(refused(&|s| s.proof_type = SealProofType::non_interactive(SIZE)));
}

#[test]
fn recorded_posts_verify_and_nothing_else_does() {
    let Some(verifier) = verifier() else { return };
    for (text, proof_type) in [
        (include_str!("../recorded/window_post_2k.json"), WINDOW),
        (include_str!("../recorded/winning_post_2k.json"), PoStProofType::Winning(SIZE)),
    ] {
        let (value, proof) = recorded(text);
        let sectors = value["sectors"].as_object().unwrap().iter();
        let sectors = sectors.map(|(number, comm_r)| ProvenSector {
            number: SectorNumber(number.parse().unwrap()),
            comm_r: CommR(bytes32(comm_r)),
        });
        let statement = PoStStatement {
            miner: ActorId(value["miner"].as_u64().unwrap()),
            proof_type,
            randomness: Randomness(bytes32(&value["randomness"])),
            sectors: sectors.collect(),
        };
        let verify = |statement: &PoStStatement, proof: &[u8]| match proof_type {
            PoStProofType::Window(_) => verifier.verify_window_post(statement, proof).unwrap(),
            PoStProofType::Winning(_) => verifier.verify_winning_post(statement, proof).unwrap(),
        };
        assert!(verify(&statement, &proof));
        for rubbish in rubbish(&proof) {
            assert!(!verify(&statement, &rubbish), "{}", hex::encode(rubbish));
        }
        let mut other = statement.clone();
        other.randomness.0[3] ^= 1;
        assert!(!verify(&other, &proof));
        let mut other = statement.clone();
        other.sectors[0].number.0 += 100;
        assert!(!verify(&other, &proof));
        let mut other = statement;
        other.sectors[0].comm_r = CommR([0xff; 32]);
        assert!(!verify(&other, &proof), "not even a field element");
    }
}

#[test]
fn a_missing_key_is_no_answer() {
    // Larger sectors have their keys from the trusted set-up only; a machine of this project has none.
    let large = SealProofType::of(SectorSize::GiB64);
    let cache = ParameterCache::of_library();
    let [porep, ..] = CircuitId::for_sealing(SectorSize::GiB64.bytes());
    if cache.verifying_key_digest(porep).is_ok() {
        return;
    }
    let verifier = Groth16Verifier::new();
    let error = verifier.keys(large).unwrap_err();
    assert_eq!(error.kind(), VerifyErrorKind::Key);
    assert!(error.hint().is_some() && error.chain().contains(cache.dir().to_str().unwrap()), "{}", error.chain());
    let statement = SealStatement {
        sector: SectorId::new(ActorId(1), SectorNumber(1)),
        proof_type: large,
        comm_r: CommR([1; 32]),
        comm_d: CommD([1; 32]),
        ticket: Randomness([1; 32]),
        seed: Randomness([1; 32]),
    };
    assert_eq!(verifier.verify_seal(&statement, &[0; 1920]).unwrap_err().kind(), VerifyErrorKind::Key);
}
