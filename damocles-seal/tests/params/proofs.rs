//! A proof made now, through the library's own loading of our files.

use std::collections::BTreeMap;

use damocles_seal::params::{CircuitId, CircuitKind, ParameterCache, SetStatus};
use filecoin_proofs_api::post::{generate_window_post, verify_window_post};
use filecoin_proofs_api::{PublicReplicaInfo, SectorId};
use storage_proofs_core::parameter_cache::{parameter_cache_params_path, read_cached_params};

use crate::recorded::{WINDOW, ensure, private};
use crate::sector::{SECTOR_SIZE, SealedSector, prover_id, randomness};

#[test]
fn a_window_post_made_with_the_cached_parameters_verifies_for_its_statement_only() {
    ensure(CircuitKind::WindowPoSt);
    let miner = 1001;
    let sectors = [SealedSector::seal(miner, 7)];
    let seed = randomness(0x55);
    let proofs = generate_window_post(&seed, &private(WINDOW, &sectors), prover_id(miner)).unwrap();
    let proofs: Vec<_> = proofs.iter().map(|(kind, proof)| (*kind, proof.as_slice())).collect();
    let comm_r = sectors[0].pre_commit.comm_r;
    let statement: BTreeMap<_, _> = [(SectorId::from(7), PublicReplicaInfo::new(WINDOW, comm_r))].into();
    assert!(verify_window_post(&seed, &proofs, &statement, prover_id(miner)).unwrap());
    assert!(!verify_window_post(&randomness(0x56), &proofs, &statement, prover_id(miner)).unwrap());
    let other: BTreeMap<_, _> = [(SectorId::from(8), PublicReplicaInfo::new(WINDOW, comm_r))].into();
    assert!(!verify_window_post(&seed, &proofs, &other, prover_id(miner)).unwrap());
}

#[test]
fn the_library_loads_what_the_cache_calls_ready() {
    for kind in [CircuitKind::WindowPoSt, CircuitKind::WinningPoSt] {
        let (origin, digest) = ensure(kind);
        let circuit = CircuitId::new(kind, SECTOR_SIZE);
        let SetStatus::Ready(set) = ParameterCache::of_library().status(circuit).unwrap() else {
            panic!("{circuit} was ensured");
        };
        assert_eq!((set.origin, set.verifying_key_digest), (origin, digest));
        let path = parameter_cache_params_path(&circuit.cache_identifier().unwrap());
        let mapped = read_cached_params(&path).unwrap();
        assert!((mapped.h.len() + 1).is_power_of_two());
        assert_eq!(mapped.b_g1.len(), mapped.b_g2.len());
        let mut key = Vec::new();
        mapped.vk.write(&mut key).unwrap();
        assert_eq!(key, std::fs::read(path.with_extension("vk")).unwrap());
    }
}
