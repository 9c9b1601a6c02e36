//! Proofs of many sectors at once, non-interactive ones and replica updates: recorded with their statements.

use std::fs;
use std::path::{Path, PathBuf};

use damocles_core::verify::{AggregateSealStatement, NiSealStatement, UpdateStatement};
use damocles_seal::params::{CircuitId, CircuitKind, Origin, ParameterCache, ParamsError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::recorded::skip;
use crate::sector::SECTOR_SIZE;

/// A proof with its statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recorded<S> {
    pub(crate) statement: S,
    #[serde(with = "hex")]
    pub(crate) proof: Vec<u8>,
    /// The digest of the key that it was made for.
    pub(crate) verifying_key: String,
}

/// A statement whose proof lies in a file.
pub(crate) trait Statement: Serialize + DeserializeOwned {
    const FILE: &str;
    const CIRCUIT: CircuitKind;
}

impl Statement for AggregateSealStatement {
    const FILE: &str = "aggregate_2k.json";
    const CIRCUIT: CircuitKind = CircuitKind::PoRep;
}

impl Statement for NiSealStatement {
    const FILE: &str = "ni_2k.json";
    const CIRCUIT: CircuitKind = CircuitKind::PoRep;
}

impl Statement for UpdateStatement {
    const FILE: &str = "update_2k.json";
    const CIRCUIT: CircuitKind = CircuitKind::SectorUpdate;
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name)
}

/// The digest of this machine's verifying key, and whether it and the SRS are ours, or why they are not; what is missing
/// is made.
pub(crate) fn ensure_key(kind: CircuitKind) -> (String, Result<(), String>) {
    let cache = ParameterCache::of_library();
    let cancel = CancellationToken::new();
    let circuit = CircuitId::new(kind, SECTOR_SIZE);
    let report = cache.ensure_verifying_keys(&[circuit], &cancel, &|progress| eprintln!("{progress:?}")).unwrap();
    let set = &report.sets[0].0;
    let ours = match cache.ensure_srs(&cancel, &|progress| eprintln!("{progress:?}")) {
        Ok((srs, _)) if set.origin == Origin::Ours && srs.published_trapdoor => Ok(()),
        Ok(_) => Err(format!("the parameter cache holds other files for {kind} than ours")),
        Err(e @ ParamsError::SrsOfCeremonyOnly { .. }) => Err(e.to_string()),
        Err(e) => panic!("{e}"),
    };
    (hex::encode(set.verifying_key_digest), ours)
}

/// What was recorded, if it can be verified here.
pub(crate) fn recorded<S: Statement>() -> Option<Recorded<S>> {
    let recorded: Recorded<S> = serde_json::from_slice(&fs::read(path(S::FILE)).unwrap()).unwrap();
    let (key, ours) = ensure_key(S::CIRCUIT);
    if let Err(why) = ours {
        skip(&why);
        return None;
    }
    assert_eq!(recorded.verifying_key, key, "every machine makes the same {} parameters", S::CIRCUIT);
    Some(recorded)
}

pub(crate) fn write<S: Statement>(recorded: &Recorded<S>) {
    let mut text = serde_json::to_string_pretty(recorded).unwrap();
    text.push('\n');
    fs::write(path(S::FILE), text).unwrap();
}
