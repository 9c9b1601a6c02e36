//! Keeping replicas proven.

use crate::sector::{MINER, Sector, WINDOW, run, text};
use damocles_core::{
    PoStProofType,
    post::{ChallengeRead, ProveWindowPoSt, ReadChallenges, Replica},
    verify::{PoStStatement, ProofVerifier, ProvenSector, Randomness},
};
use damocles_seal::{
    params::{CircuitId, CircuitKind, ParameterCache},
    verifier::Groth16Verifier,
};
use std::fs;

const RANDOMNESS: Randomness = Randomness([0xff; 32]);

fn read(replicas: &[Replica]) -> Vec<ChallengeRead> {
    let task = ReadChallenges { miner: MINER, proof_type: WINDOW, randomness: RANDOMNESS, replicas: replicas.to_vec() };
    run(&task).unwrap()
}

fn bad(read: &ChallengeRead) -> &str {
    match read {
        ChallengeRead::Bad { reason, .. } => reason,
        ChallengeRead::Read { number, .. } => panic!("sector {number} read well"),
    }
}

#[test]
fn a_replica_that_does_not_read_is_an_answer() {
    let (sector, replica) = Sector::sealed(1);
    let (_other, good) = Sector::sealed(2);
    let is_good = |read: &ChallengeRead| matches!(read, ChallengeRead::Read { number, .. } if number.0 == 2);
    assert!(matches!(&read(std::slice::from_ref(&replica))[0], ChallengeRead::Read { number, .. } if number.0 == 1));

    let sealed = fs::read(&replica.paths.sealed).unwrap();
    let flipped: Vec<u8> = sealed.iter().map(|b| b ^ 1).collect();
    let tree = fs::read_dir(sector.path("cache")).unwrap().map(|e| e.unwrap().path());
    let tree = tree.into_iter().find(|p| p.to_str().unwrap().contains("tree-r-last")).unwrap();
    let tree_bytes = fs::read(&tree).unwrap();
    for (path, whole, left) in [
        (&replica.paths.sealed, &sealed, Some(&flipped[..])),
        (&replica.paths.sealed, &sealed, Some(&sealed[..1000])),
        (&replica.paths.sealed, &sealed, None),
        (&tree, &tree_bytes, Some(&tree_bytes[..tree_bytes.len() / 2])),
        (&tree, &tree_bytes, None),
    ] {
        match left {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let reads = read(&[good.clone(), replica.clone()]);
        let reason = bad(&reads[0]);
        assert!(reason.contains(sector.dir.path().to_str().unwrap()), "it names the file: {reason}");
        assert!(is_good(&reads[1]), "one bad replica does not spoil the other");
        fs::write(path, whole).unwrap();
    }
    fs::write(sector.cache("p_aux"), [1; 64]).unwrap();
    bad(&read(std::slice::from_ref(&replica))[0]);
    // The files of another replica, which are whole.
    let other = Replica { paths: good.paths.clone(), ..replica };
    let reads = read(&[other]);
    assert!(bad(&reads[0]).contains(&format!("belongs to the replica {}", good.sector.comm_r)), "{reads:?}");
    let mut twice = good.clone();
    twice.sector.comm_r = damocles_core::CommR([1; 32]);
    let task = ReadChallenges { miner: MINER, proof_type: WINDOW, randomness: RANDOMNESS, replicas: vec![good, twice] };
    let error = text(&run(&task).unwrap_err());
    assert!(error.contains("two replicas of sector 2"), "{error}");
}

#[test]
fn a_window_post_is_made_and_verifies_for_its_statement_only() {
    let window = CircuitId::new(CircuitKind::WindowPoSt, WINDOW.sector_size().bytes());
    let cancel = damocles_core::CancellationToken::new();
    ParameterCache::of_library().ensure(&[window], &cancel, &|_| {}).unwrap();
    let (_one, first) = Sector::sealed(11);
    let (_two, second) = Sector::sealed(12);
    // Out of order, and one twice: as a statement with a substitute for a faulty sector has it.
    let replicas = [second.clone(), first.clone(), second.clone()];
    let reads = read(&replicas);
    let vanilla: Vec<(ProvenSector, String)> = reads
        .iter()
        .map(|read| match read {
            ChallengeRead::Read { number, vanilla } => {
                let replica = replicas.iter().find(|r| r.sector.number == *number).unwrap();
                (replica.sector, hex::encode(vanilla))
            }
            ChallengeRead::Bad { reason, .. } => panic!("{reason}"),
        })
        .collect();
    assert_eq!(vanilla.iter().map(|(s, _)| s.number.0).collect::<Vec<_>>(), [11, 12]);
    let (sectors, vanilla): (Vec<_>, Vec<_>) = vanilla.into_iter().rev().unzip();
    let task =
        ProveWindowPoSt { miner: MINER, proof_type: WINDOW, randomness: RANDOMNESS, sectors, vanilla: vanilla.clone() };
    let proof = run(&task).unwrap().proof;

    let verifier = Groth16Verifier::new();
    let sectors = vec![second.sector, first.sector, second.sector];
    let statement = PoStStatement { miner: MINER, proof_type: WINDOW, randomness: RANDOMNESS, sectors };
    assert!(verifier.verify_window_post(&statement, &proof).unwrap());
    let refused = |change: &dyn Fn(&mut PoStStatement)| {
        let mut other = statement.clone();
        change(&mut other);
        !verifier.verify_window_post(&other, &proof).unwrap()
    };
    assert!(refused(&|s| s.randomness = Randomness([1; 32])));
    assert!(refused(&|s| s.sectors.truncate(1)));
    assert!(refused(&|s| s.sectors.clear()));
    assert!(refused(&|s| s.sectors[0].comm_r = s.sectors[1].comm_r), "two replicas of one sector");
    assert!(refused(&|s| {
        s.sectors[0].comm_r.0[0] ^= 1;
        s.sectors[2].comm_r.0[0] ^= 1;
    }));
    assert!(refused(&|s| s.proof_type = PoStProofType::Winning(WINDOW.sector_size())));
    let mut long = proof.clone();
    long.push(0);
    assert!(!verifier.verify_window_post(&statement, &long).unwrap());

    let mut bad = ProveWindowPoSt { vanilla: vanilla.clone(), ..task };
    bad.vanilla.pop();
    assert!(text(&run(&bad).unwrap_err()).contains("2 sectors come with 1 vanilla proofs"));
    bad.vanilla = vec!["zz".to_owned(), vanilla[0].clone()];
    assert!(text(&run(&bad).unwrap_err()).contains("read the vanilla proof of sector 12"));
    bad.vanilla = vec!["00".repeat(100), vanilla[1].clone()];
    run(&bad).unwrap_err();
}
