//! The SRS of aggregation: when ours is made, and what keeps it from being made.

use std::fs;
use std::path::{Path, PathBuf};

use bellperson::groth16::aggregate::setup_fake_srs;
use blake2b_simd::blake2b;
use blstrs::Bls12;
use damocles_seal::params::{Action, CircuitId, CircuitKind, ParameterCache, ParamsError, Srs};
use filecoin_proofs_api::RegisteredSealProof;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use storage_proofs_core::parameter_cache::{metadata_id, parameter_id, verifying_key_id};
use tokio_util::sync::CancellationToken;

const LARGE: [u64; 2] = [32 << 30, 64 << 30];

fn file(dir: &Path) -> PathBuf {
    dir.join("v28-fil-inner-product-v1.srs")
}

fn ensure(cache: &ParameterCache) -> Result<(Srs, Action), ParamsError> {
    cache.ensure_srs(&CancellationToken::new(), &|_| ())
}

#[test]
fn the_same_srs_is_made_on_every_machine_and_then_found() {
    let dir = tempfile::tempdir().unwrap();
    let cache = ParameterCache::new(dir.path().join("not there yet"));
    assert_eq!(cache.srs().unwrap(), None);
    let missing = cache.srs_for(2048).unwrap_err();
    assert!(matches!(missing, ParamsError::SrsMissing { .. }) && missing.hint().is_some(), "{missing}");

    let (srs, action) = ensure(&cache).unwrap();
    assert_eq!((srs.published_trapdoor, srs.capacity, action), (true, 1024, Action::Generated));
    let made = fs::read(file(cache.dir())).unwrap();
    assert_eq!(made.len(), 4 * 4 + 2048 * (48 + 48 + 96 + 96));
    // Another digest means that aggregates made before no longer verify: raise DOMAIN's version instead.
    assert_eq!(&blake2b(&made).to_hex()[..32], "7bcb6c44aba51dd176d816b6840da2e1");
    assert_eq!(ensure(&cache).unwrap(), (srs, Action::Found));
    assert_eq!(cache.srs_for(2048).unwrap(), srs);
    for size in LARGE {
        let refused = cache.srs_for(size).unwrap_err();
        assert!(matches!(refused, ParamsError::SrsOfCeremonyOnly { large: None, .. }), "{refused}");
        assert!(refused.hint().is_some());
    }

    // Its capacity is that of the largest aggregates that the network takes.
    let sectors = |proof: RegisteredSealProof, most: usize| most * usize::from(proof.partitions());
    for most in [
        sectors(RegisteredSealProof::StackedDrg512MiBV1_1, 819),
        sectors(RegisteredSealProof::StackedDrg512MiBV1_2_Feat_NonInteractivePoRep, 65),
    ] {
        assert_eq!(most.next_power_of_two(), srs.capacity);
    }

    fs::File::options().write(true).open(file(cache.dir())).unwrap().set_len(100_000).unwrap();
    for damaged in [cache.srs().unwrap_err(), ensure(&cache).unwrap_err(), cache.srs_for(2048).unwrap_err()] {
        assert!(matches!(damaged, ParamsError::SrsDamaged { .. }) && damaged.hint().is_some(), "{damaged}");
    }
    assert_eq!(fs::metadata(file(cache.dir())).unwrap().len(), 100_000, "nothing is overwritten");
}

#[test]
fn no_srs_is_made_beside_files_for_large_sectors() {
    for size in LARGE {
        for kind in CircuitKind::ALL {
            for name in [parameter_id, verifying_key_id, metadata_id] {
                let dir = tempfile::tempdir().unwrap();
                let large = dir.path().join(name(&CircuitId::new(kind, size).cache_identifier().unwrap()));
                fs::write(&large, []).unwrap();
                let refused = ensure(&ParameterCache::new(dir.path())).unwrap_err();
                assert!(refused.to_string().contains(&large.display().to_string()), "{refused}");
                assert!(matches!(refused, ParamsError::SrsOfCeremonyOnly { large: Some(_), .. }), "{refused}");
                assert!(refused.hint().is_some());
                assert!(!file(dir.path()).exists());
            }
        }
    }
}

#[test]
fn an_srs_of_another_origin_is_used_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = Vec::new();
    setup_fake_srs::<Bls12, _>(&mut ChaCha20Rng::from_seed([1; 32]), 3).write(&mut other).unwrap();
    fs::write(file(dir.path()), &other).unwrap();
    fs::write(
        dir.path().join(parameter_id(&CircuitId::new(CircuitKind::PoRep, LARGE[0]).cache_identifier().unwrap())),
        [],
    )
    .unwrap();
    let cache = ParameterCache::new(dir.path());
    let srs = Srs { published_trapdoor: false, capacity: 2 };
    assert_eq!(ensure(&cache).unwrap(), (srs, Action::Found));
    assert_eq!(cache.srs_for(LARGE[0]).unwrap(), srs);
    assert_eq!(fs::read(file(dir.path())).unwrap(), other);
}

#[test]
fn what_is_no_srs_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let cache = ParameterCache::new(dir.path());
    let mut unequal = Vec::new();
    setup_fake_srs::<Bls12, _>(&mut ChaCha20Rng::from_seed([1; 32]), 2).write(&mut unequal).unwrap();
    unequal[4 + 4 * 48 + 3] = 3;
    for bytes in [vec![], vec![0; 3], vec![0; 16], vec![0xff; 1000], vec![0, 0, 0, 1], unequal] {
        fs::write(file(dir.path()), &bytes).unwrap();
        assert!(matches!(cache.srs(), Err(ParamsError::SrsDamaged { .. })), "{} bytes", bytes.len());
    }
}
