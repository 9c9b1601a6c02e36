//! Real proofs that were made once and lie in the repository: verified in milliseconds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use damocles_seal::params::{Action, CircuitId, CircuitKind, Origin, ParamProgress, ParameterCache};
use filecoin_proofs_api::post::{generate_window_post, generate_winning_post, verify_window_post, verify_winning_post};
use filecoin_proofs_api::seal::verify_seal;
use filecoin_proofs_api::{PrivateReplicaInfo, PublicReplicaInfo, RegisteredPoStProof, SectorId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::sector::{SEAL_PROOF, SECTOR_SIZE, SealedSector, prover_id, randomness};

const MINER: u64 = 1000;
pub(crate) const WINDOW: RegisteredPoStProof = RegisteredPoStProof::StackedDrgWindow2KiBV1_2;
pub(crate) const WINNING: RegisteredPoStProof = RegisteredPoStProof::StackedDrgWinning2KiBV1;

/// A seal proof with its statement.
#[derive(Clone, Serialize, Deserialize)]
struct RecordedSeal {
    proof_type: String,
    miner: u64,
    sector: u64,
    comm_r: Hex,
    comm_d: Hex,
    ticket: Hex,
    seed: Hex,
    #[serde(with = "hex_bytes")]
    proof: Vec<u8>,
    verifying_key: Hex,
}

/// A PoSt of either kind with its statement.
#[derive(Clone, Serialize, Deserialize)]
struct RecordedPost {
    proof_type: String,
    miner: u64,
    randomness: Hex,
    /// CommR by sector number.
    sectors: BTreeMap<u64, Hex>,
    #[serde(with = "hex_bytes")]
    proof: Vec<u8>,
    verifying_key: Hex,
}

/// Thirty-two bytes, as hex in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Hex(#[serde(with = "hex_bytes")] [u8; 32]);

mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex::encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(input: D) -> Result<T, D::Error> {
        let bytes = hex::decode(String::deserialize(input)?).map_err(D::Error::custom)?;
        T::try_from(bytes).map_err(|_| D::Error::custom("wrong length"))
    }
}

/// Makes sure of the parameters of one circuit in the cache that the library reads.
pub(crate) fn ensure(kind: CircuitKind) -> (Origin, [u8; 32]) {
    let report = |progress| match progress {
        ParamProgress::Advanced { .. } => {}
        other => eprintln!("{other:?}"),
    };
    let circuit = CircuitId::new(kind, SECTOR_SIZE);
    let report = ParameterCache::of_library().ensure(&[circuit], &CancellationToken::new(), &report).unwrap();
    let [(set, Action::Found | Action::Repaired | Action::Generated)] = report.sets.as_slice() else {
        panic!("one circuit was asked for: {report:?}");
    };
    assert_eq!(set.circuit, circuit);
    (set.origin, set.verifying_key_digest)
}

/// Whether the recorded proofs can be verified here; if not, says so.
fn comparable(kind: CircuitKind, recorded: Hex) -> bool {
    let (origin, digest) = ensure(kind);
    if origin == Origin::Ours {
        assert_eq!(hex::encode(digest), hex::encode(recorded.0), "every machine makes the same {kind} parameters");
        return true;
    }
    skip(&format!("the parameter cache holds {origin:?} parameters for {kind}, the recorded proof needs ours"));
    false
}

/// Says why a test does nothing; a failure where nothing may be skipped.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says whether they may be skipped")]
pub(crate) fn skip(why: &str) {
    let is_allowed = std::env::var_os("DAMOCLES_TEST_NO_SKIP").is_none_or(|value| value != "1");
    assert!(is_allowed, "DAMOCLES_TEST_NO_SKIP is set, and this test cannot be run: {why}");
    eprintln!("skipped: {why}");
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name)
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap()
}

fn write(name: &str, recorded: &impl Serialize) {
    let mut text = serde_json::to_string_pretty(recorded).unwrap();
    text.push('\n');
    fs::create_dir_all(path("")).unwrap();
    fs::write(path(name), text).unwrap();
}

/// A proof that decodes to no points is an error, one that decodes to others is `false`: both are a refusal.
fn verifies<E>(result: Result<bool, E>) -> bool {
    result.unwrap_or(false)
}

fn verify_recorded_seal(r: &RecordedSeal) -> bool {
    verifies(verify_seal(
        SEAL_PROOF,
        r.comm_r.0,
        r.comm_d.0,
        prover_id(r.miner),
        SectorId::from(r.sector),
        r.ticket.0,
        r.seed.0,
        &r.proof,
    ))
}

fn public(proof: RegisteredPoStProof, sectors: &BTreeMap<u64, Hex>) -> BTreeMap<SectorId, PublicReplicaInfo> {
    sectors.iter().map(|(n, comm_r)| (SectorId::from(*n), PublicReplicaInfo::new(proof, comm_r.0))).collect()
}

fn verify_recorded_window(r: &RecordedPost) -> bool {
    let proofs = [(WINDOW, r.proof.as_slice())];
    verifies(verify_window_post(&r.randomness.0, &proofs, &public(WINDOW, &r.sectors), prover_id(r.miner)))
}

fn verify_recorded_winning(r: &RecordedPost) -> bool {
    verifies(verify_winning_post(&r.randomness.0, &r.proof, &public(WINNING, &r.sectors), prover_id(r.miner)))
}

#[test]
fn the_recorded_seal_proof_verifies_for_its_statement_only() {
    let recorded: RecordedSeal = read("porep_2k.json");
    if !comparable(CircuitKind::PoRep, recorded.verifying_key) {
        return;
    }
    assert!(verify_recorded_seal(&recorded));
    let others: [fn(&mut RecordedSeal); 8] = [
        |r| r.comm_r = r.comm_d,
        |r| r.comm_d = r.comm_r,
        |r| r.ticket = Hex(randomness(0x44)),
        |r| r.seed = Hex(randomness(0x44)),
        |r| r.miner += 1,
        |r| r.sector += 1,
        |r| r.proof[100] ^= 1,
        |r| r.proof.truncate(191),
    ];
    for (index, change) in others.into_iter().enumerate() {
        let mut other = recorded.clone();
        change(&mut other);
        assert!(!verify_recorded_seal(&other), "change {index}");
    }
}

#[test]
fn the_recorded_window_post_verifies_for_its_statement_only() {
    let recorded: RecordedPost = read("window_post_2k.json");
    if comparable(CircuitKind::WindowPoSt, recorded.verifying_key) {
        check_post(&recorded, verify_recorded_window);
    }
}

#[test]
fn the_recorded_winning_post_verifies_for_its_statement_only() {
    let recorded: RecordedPost = read("winning_post_2k.json");
    if comparable(CircuitKind::WinningPoSt, recorded.verifying_key) {
        check_post(&recorded, verify_recorded_winning);
    }
}

fn check_post(recorded: &RecordedPost, verify: fn(&RecordedPost) -> bool) {
    assert!(verify(recorded));
    let others: [fn(&mut RecordedPost); 4] = [
        |r| r.randomness = Hex(randomness(0x44)),
        |r| r.sectors.values_mut().for_each(|comm_r| *comm_r = Hex(randomness(0x44))),
        |r| r.proof[100] ^= 1,
        |r| r.proof.truncate(191),
    ];
    for (index, change) in others.into_iter().enumerate() {
        let mut other = recorded.clone();
        change(&mut other);
        assert!(!verify(&other), "change {index}");
    }
}

#[test]
#[ignore = "minutes of proving: cargo test -p damocles-seal --test params recorded::record_a_seal -- --ignored"]
fn record_a_seal_proof() {
    let (_, digest) = ensure(CircuitKind::PoRep);
    let (sector, seed) = (SealedSector::seal(MINER, 1), randomness(0x22));
    let recorded = RecordedSeal {
        proof_type: format!("{SEAL_PROOF:?}"),
        miner: MINER,
        sector: sector.number,
        comm_r: Hex(sector.pre_commit.comm_r),
        comm_d: Hex(sector.pre_commit.comm_d),
        ticket: Hex(sector.ticket),
        seed: Hex(seed),
        proof: sector.prove(MINER, seed),
        verifying_key: Hex(digest),
    };
    assert!(verify_recorded_seal(&recorded));
    write("porep_2k.json", &recorded);
}

#[test]
#[ignore = "minutes of proving: cargo test -p damocles-seal --test params recorded::record_both_posts -- --ignored"]
fn record_both_posts() {
    let sectors = [SealedSector::seal(MINER, 1), SealedSector::seal(MINER, 2)];
    let randomness = randomness(0x33);

    let (_, digest) = ensure(CircuitKind::WindowPoSt);
    let proofs = generate_window_post(&randomness, &private(WINDOW, &sectors), prover_id(MINER)).unwrap();
    let window = recorded_post(WINDOW, &sectors, randomness, &proofs, digest);
    assert!(verify_recorded_window(&window));
    write("window_post_2k.json", &window);

    let (_, digest) = ensure(CircuitKind::WinningPoSt);
    let drawn = &sectors[..1];
    let proofs = generate_winning_post(&randomness, &private(WINNING, drawn), prover_id(MINER)).unwrap();
    let winning = recorded_post(WINNING, drawn, randomness, &proofs, digest);
    assert!(verify_recorded_winning(&winning));
    write("winning_post_2k.json", &winning);
}

pub(crate) fn private(proof: RegisteredPoStProof, sectors: &[SealedSector]) -> BTreeMap<SectorId, PrivateReplicaInfo> {
    let info =
        |s: &SealedSector| PrivateReplicaInfo::new(proof, s.pre_commit.comm_r, s.cache.clone(), s.replica.clone());
    sectors.iter().map(|s| (SectorId::from(s.number), info(s))).collect()
}

fn recorded_post(
    proof: RegisteredPoStProof,
    sectors: &[SealedSector],
    randomness: [u8; 32],
    proofs: &[(RegisteredPoStProof, Vec<u8>)],
    digest: [u8; 32],
) -> RecordedPost {
    RecordedPost {
        proof_type: format!("{proof:?}"),
        miner: MINER,
        randomness: Hex(randomness),
        sectors: sectors.iter().map(|s| (s.number, Hex(s.pre_commit.comm_r))).collect(),
        proof: proofs[0].1.clone(),
        verifying_key: Hex(digest),
    }
}
