//! Verifying keys without their proving keys.

use std::fs;
use std::path::PathBuf;

use damocles_seal::params::{
    Action, CircuitId, CircuitKind, EnsureReport, Origin, ParameterCache, ParamsError, SetStatus,
};
use storage_proofs_core::parameter_cache::{parameter_id, verifying_key_id};
use tokio_util::sync::CancellationToken;

use crate::recorded::ensure;
use crate::sector::SECTOR_SIZE;

/// The smallest circuit.
const CIRCUIT: CircuitId = CircuitId::new(CircuitKind::WindowPoSt, SECTOR_SIZE);

fn keys(cache: &ParameterCache) -> Result<EnsureReport, ParamsError> {
    cache.ensure_verifying_keys(&[CIRCUIT], &CancellationToken::new(), &|_| ())
}

fn file(cache: &ParameterCache, name: fn(&str) -> String) -> PathBuf {
    cache.dir().join(name(&CIRCUIT.cache_identifier().unwrap()))
}

#[test]
fn a_key_alone_is_that_of_the_whole_set_and_does_not_stand_in_its_way() {
    let (origin, digest) = ensure(CIRCUIT.kind);
    if origin != Origin::Ours {
        eprintln!("skipped: the parameter cache holds {origin:?} parameters for {CIRCUIT}");
        return;
    }
    let shared = ParameterCache::of_library();
    let dir = tempfile::tempdir().unwrap();
    let cache = ParameterCache::new(dir.path().join("not there yet"));
    let made = keys(&cache).unwrap();
    assert_eq!((made.sets[0].0.verifying_key_digest, made.sets[0].1), (digest, Action::Generated));
    let key = fs::read(file(&cache, verifying_key_id)).unwrap();
    assert_eq!(key, fs::read(file(&shared, verifying_key_id)).unwrap());
    assert!(!file(&cache, parameter_id).exists());
    assert_eq!(keys(&cache).unwrap().sets[0].1, Action::Found);
    assert_eq!(cache.status(CIRCUIT).unwrap(), SetStatus::Missing, "a whole set may take the place");

    // A damaged key is made anew, or restored where the proving key is whole.
    fs::write(file(&cache, verifying_key_id), &key[..100]).unwrap();
    assert_eq!(keys(&cache).unwrap().sets[0].1, Action::Generated);
    fs::copy(file(&shared, parameter_id), file(&cache, parameter_id)).unwrap();
    fs::remove_file(file(&cache, verifying_key_id)).unwrap();
    assert_eq!(keys(&cache).unwrap().sets[0].1, Action::Repaired);
    assert_eq!(fs::read(file(&cache, verifying_key_id)).unwrap(), key);
}

#[test]
fn keys_for_large_sectors_are_not_made() {
    for kind in CircuitKind::ALL {
        let dir = tempfile::tempdir().unwrap();
        let cache = ParameterCache::new(dir.path());
        let circuit = CircuitId::new(kind, 32 << 30);
        let refused = cache.ensure_verifying_keys(&[circuit], &CancellationToken::new(), &|_| ()).unwrap_err();
        assert!(matches!(refused, ParamsError::TrustedSetUpMissing { .. }) && refused.hint().is_some(), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
