//! The first command of the README, as a user runs it: real processes, real proofs.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what a test is for")]

use damocles_cli::quickstart::{Report, SectorKind};
use damocles_tests::program;
use std::path::Path;

const MANAGER: &str = env!("CARGO_BIN_EXE_damocles-test-manager");

/// A window PoSt reads ten of the 64 nodes of a 2 KiB replica and their neighbours, so one wrong byte slips through
/// about once in four times; so many runs in a row that all miss it are one in a thousand.
const TRIES: u32 = 6;

async fn quickstart(dir: &Path) -> std::process::Output {
    let dir = dir.to_str().unwrap();
    program::run_for(Path::new(MANAGER), &["quickstart", "--keep", dir, "--json"], std::time::Duration::from_secs(1500))
        .await
        .unwrap()
}

#[tokio::test]
async fn two_sectors_are_sealed_and_proven_and_a_flipped_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let lab = dir.path().join("lab");
    let output = quickstart(&lab).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Report = serde_json::from_slice(&output.stdout).expect("one JSON document on stdout");
    assert_eq!(report.proofs, "real");
    assert!(report.is_complete(2), "{report:#?}");
    let mut kinds: Vec<_> = report.sectors.iter().map(|s| s.kind).collect();
    kinds.sort_by_key(|k| *k == SectorKind::Data);
    assert_eq!(kinds, [SectorKind::Cc, SectorKind::Data]);
    for sector in &report.sectors {
        assert_eq!(sector.pre_commit.exit_code, 0);
        assert_eq!(sector.prove_commit.as_ref().unwrap().exit_code, 0);
        assert_eq!(sector.pieces.is_empty(), sector.kind == SectorKind::Cc);
        assert!(sector.posts.iter().all(|p| p.exit_code == 0 && p.verified));
        let replica = lab.join("persist/sealed").join(&sector.id);
        assert_eq!(std::fs::metadata(replica).unwrap().len(), 2048);
        let layers = lab.join("sealing/data/cache").join(&sector.id);
        assert!(!layers.exists() || std::fs::read_dir(layers).unwrap().next().is_none(), "layers are cleaned up");
    }
    for command in ["devnet run", "daemon run", "damocles-worker daemon"] {
        assert!(said.contains(command), "the commands that start the daemons again are printed: {said}");
    }

    let victim = lab.join("persist/sealed").join(&report.sectors[0].id);
    let mut bytes = std::fs::read(&victim).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    for _ in 0..TRIES {
        let output = quickstart(&lab).await;
        if output.status.code() != Some(0) {
            let again: Report = serde_json::from_slice(&output.stdout).expect("the document is printed all the same");
            assert!(!again.is_complete(2));
            let proven = |id: &str| again.sectors.iter().find(|s| s.id == id).map(|s| s.is_proven());
            let seen = [proven(&report.sectors[0].id), proven(&report.sectors[1].id)];
            assert_eq!(seen, [Some(false), Some(true)], "the victim is not proven, the other sector is: {again:#?}");
            return;
        }
    }
    panic!("{TRIES} window PoSts did not notice a wrong byte");
}
