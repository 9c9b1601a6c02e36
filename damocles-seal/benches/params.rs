//! Our parameter generator beside bellperson's stock one, on the WinningPoSt circuit for 2 KiB sectors.
//!
//! `cargo bench -p damocles-seal --bench params --profile dev`: the profile in which the workspace is built anyway.
//! One run of each is enough, since both take seconds, so this is a plain program; it also checks that both write the
//! same bytes for the same trapdoor. With arguments (`PoRep`, `WindowPoSt`, `WinningPoSt`, `SectorUpdate`, and a sector
//! size in bytes) it makes those sets with our generator only, in a temporary directory, and says what they took.
#![expect(clippy::print_stdout, reason = "a bench reports on standard output")]
#![expect(clippy::unwrap_used, reason = "a bench has nobody to hand an error to")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::time::{Duration, Instant};

use bellperson::groth16::generate_parameters;
use blstrs::{Bls12, G1Projective, G2Projective};
use damocles_seal::params::{CircuitId, CircuitKind, ParameterCache, Trapdoor, generate_to};
use filecoin_proofs::constants::SectorShapeBase;
use filecoin_proofs::parameters::winning_post_public_params;
use filecoin_proofs_api::RegisteredPoStProof;
use group::Group;
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_post::fallback::{FallbackPoSt, FallbackPoStCircuit, FallbackPoStCompound};
use tokio_util::sync::CancellationToken;

const SECTOR_SIZE: u64 = 2048;

fn main() {
    let wanted: Vec<CircuitKind> =
        CircuitKind::ALL.into_iter().filter(|kind| std::env::args().any(|arg| arg == kind.to_string())).collect();
    let size = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(SECTOR_SIZE);
    if wanted.is_empty() {
        compare();
    }
    wanted.into_iter().for_each(|kind| make(CircuitId::new(kind, size)));
}

fn compare() {
    let config = RegisteredPoStProof::StackedDrgWinning2KiBV1.as_v1_config();
    let public = winning_post_public_params::<SectorShapeBase>(&config).unwrap();
    let blank = || {
        <FallbackPoStCompound<SectorShapeBase> as CompoundProof<
            '_,
            FallbackPoSt<'_, SectorShapeBase>,
            FallbackPoStCircuit<SectorShapeBase>,
        >>::blank_circuit(&public)
    };
    let identifier = CircuitId::new(CircuitKind::WinningPoSt, SECTOR_SIZE).cache_identifier().unwrap();
    let t = Trapdoor::published(&identifier);

    let mut ours = Vec::new();
    report("ours", || generate_to(blank, &t, &mut ours, &CancellationToken::new()).map(drop).unwrap());
    let mut stock = Vec::new();
    report("stock", || {
        let (g1, g2) = (G1Projective::generator(), G2Projective::generator());
        let parameters =
            generate_parameters::<Bls12, _>(blank(), g1, g2, t.alpha, t.beta, t.gamma, t.delta, t.tau).unwrap();
        parameters.write(&mut stock).unwrap();
    });
    assert!(ours == stock, "both generators write the same bytes");
    println!("{} bytes, the same from both", ours.len());
}

fn make(circuit: CircuitId) {
    let dir = tempfile::tempdir().unwrap();
    report(&circuit.to_string(), || {
        ParameterCache::new(dir.path()).ensure(&[circuit], &CancellationToken::new(), &|_| ()).map(drop).unwrap();
    });
}

fn report(name: &str, work: impl FnOnce()) {
    let (wall, cpu) = (Instant::now(), cpu_time());
    work();
    let (wall, cpu) = (wall.elapsed(), cpu_time() - cpu);
    println!(
        "{name}: {:.1} s, {:.1} s of CPU, peak of the process {} MiB",
        wall.as_secs_f64(),
        cpu.as_secs_f64(),
        peak()
    );
}

/// User and system time of all threads, which the kernel counts in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// The largest resident size so far.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
