//! From data to challenged nodes, with crashes in between.

use crate::sector::{PROOF, Sector, TREE_D, contents, run, text};
use damocles_core::{SealProofType, SectorId, SectorNumber, SectorSize, verify::Randomness};
use damocles_seal::task::{C2, Pc1};
use std::fs;

#[test]
fn a_sector_goes_from_data_to_challenged_nodes() {
    for data in [false, true] {
        let sector = Sector::new(7);
        let pieces = if data { vec![sector.piece("piece", 1024, &[9; 1000])] } else { Vec::new() };
        let added = sector.add_pieces(pieces).unwrap();
        let tree = sector.tree_d().unwrap();
        let pc1 = sector.pc1(&added.pieces, Some(tree.file.clone())).unwrap();
        assert!(pc1.files.iter().any(|name| name == TREE_D), "{:?}", pc1.files);
        assert_eq!(pc1.files.len(), 3, "2 layers and the tree: {:?}", pc1.files);
        let pc2 = sector.pc2(&pc1).unwrap();
        assert_eq!(pc2.comm_d, added.comm_d);
        assert_eq!(tree.comm_d, added.comm_d);
        let c1 = sector.c1(&added.pieces, &pc2).unwrap();
        assert_eq!(c1.len, fs::metadata(&c1.file).unwrap().len());
        let first = fs::read(&c1.file).unwrap();
        assert_eq!(sector.c1(&added.pieces, &pc2).unwrap(), c1);
        assert_eq!(fs::read(&c1.file).unwrap(), first);

        // The library's own tree gives the same.
        let plain = sector.pc1(&added.pieces, None).unwrap();
        assert_eq!(sector.pc2(&plain).unwrap(), pc2);
    }
}

#[test]
fn pc1_trusts_nothing_that_an_earlier_run_left() {
    let sector = Sector::new(7);
    let added = sector.add_pieces(vec![sector.piece("piece", 2048, &[9; 2032])]).unwrap();
    let pc1 = sector.pc1(&added.pieces, None).unwrap();
    let pc2 = sector.pc2(&pc1).unwrap();
    let tree = sector.tree_d().unwrap().file;
    let good_layer = fs::read(sector.cache(&pc1.files[0])).unwrap();
    for recorded in [None, Some(tree.clone())] {
        // Of the right length and wrong: what the library would load unchecked.
        for name in &pc1.files {
            let len = fs::metadata(sector.cache(name)).unwrap().len();
            fs::remove_file(sector.cache(name)).unwrap();
            fs::write(sector.cache(name), vec![1; usize::try_from(len).unwrap()]).unwrap();
        }
        fs::create_dir_all(sector.cache("unknown")).unwrap();
        fs::write(sector.path("sealed"), "left by a kill").unwrap();
        let again = sector.pc1(&added.pieces, recorded.clone()).unwrap();
        assert_eq!(again, pc1);
        assert_eq!(fs::read(sector.cache(&pc1.files[0])).unwrap(), good_layer);
        assert_eq!(sector.pc2(&again).unwrap(), pc2);
    }
    assert!(tree.is_file(), "the recorded tree is still there for a repeat");

    // Recorded in the cache directory itself: kept, all else goes.
    let own = sector.cache(TREE_D);
    let again = sector.pc1(&added.pieces, Some(own)).unwrap();
    assert_eq!(again, pc1);
    assert_eq!(sector.pc2(&again).unwrap(), pc2);
}

#[test]
fn pc1_names_what_is_wrong_with_its_inputs() {
    let sector = Sector::new(7);
    let added = sector.add_pieces(Vec::new()).unwrap();
    let other = Sector::new(8);
    let pieces = other.add_pieces(vec![other.piece("piece", 2048, &[9; 2032])]).unwrap().pieces;
    let error = text(&sector.pc1(&pieces, None).unwrap_err());
    assert!(error.contains("PC1 of s-t01000-7") && error.contains("pieces and comm_d do not match"), "{error}");

    fs::write(sector.path("short"), [0; 100]).unwrap();
    let error = text(&sector.pc1(&added.pieces, Some(sector.path("short"))).unwrap_err());
    assert!(error.contains("short has 100 bytes, not 4064"), "{error}");

    fs::write(sector.path("staged"), [0; 1000]).unwrap();
    let error = text(&sector.pc1(&added.pieces, None).unwrap_err());
    assert!(error.contains("staged has 1000 bytes, not 2048"), "{error}");
    fs::remove_file(sector.path("staged")).unwrap();
    let error = text(&sector.pc1(&added.pieces, None).unwrap_err());
    assert!(error.contains(sector.path("staged").to_str().unwrap()), "{error}");
}

#[test]
fn pc1_seals_for_interactive_proofs_only() {
    let sector = Sector::new(7);
    let added = sector.add_pieces(Vec::new()).unwrap();
    for proof_type in [SealProofType::synthetic(SectorSize::KiB2), SealProofType::non_interactive(SectorSize::KiB2)] {
        let task = Pc1 {
            sector: sector.id,
            proof_type,
            ticket: Randomness([7; 32]),
            pieces: added.pieces.clone(),
            staged: sector.path("staged"),
            sealed: sector.path("sealed"),
            cache: sector.path("cache"),
            tree_d: None,
        };
        let error = text(&run(&task).unwrap_err());
        assert!(error.contains(&format!("not sealed as {proof_type}")), "{error}");
        assert!(!sector.path("sealed").exists());
    }
}

/// What a run that is killed can leave: each file that it writes as it was, half-written, of full length and wrong, or
/// gone; and the sealed file half encoded.
#[test]
fn pc2_can_be_repeated_after_a_kill_at_any_instant() {
    let sector = Sector::new(7);
    let added = sector.add_pieces(vec![sector.piece("piece", 2048, &[9; 2032])]).unwrap();
    let pc1 = sector.pc1(&added.pieces, None).unwrap();
    let pc2 = sector.pc2(&pc1).unwrap();
    let (good, replica) = (contents(&sector.path("cache")), fs::read(sector.path("sealed")).unwrap());
    let data = fs::read(sector.path("staged")).unwrap();
    assert_ne!(replica, data);
    let made: Vec<&String> = good.keys().filter(|name| !pc1.files.contains(name)).collect();
    assert!(made.len() >= 3, "trees and auxiliary files: {made:?}");
    for name in made {
        let whole = &good[name];
        let wrong = vec![1; whole.len()];
        for left in [Some(&whole[..whole.len() / 2]), Some(&wrong), None] {
            match left {
                Some(bytes) => fs::write(sector.cache(name), bytes).unwrap(),
                None => fs::remove_file(sector.cache(name)).unwrap(),
            }
            let mut half = replica.clone();
            half[1024..].copy_from_slice(&data[1024..]);
            fs::write(sector.path("sealed"), half).unwrap();
            assert_eq!(sector.pc2(&pc1).unwrap(), pc2, "{name}");
            assert_eq!(fs::read(sector.path("sealed")).unwrap(), replica, "{name}");
            assert_eq!(contents(&sector.path("cache")), good, "{name}");
        }
    }
    assert_eq!(fs::read(sector.path("staged")).unwrap(), data, "the only input is left as it is");
    sector.c1(&added.pieces, &pc2).unwrap();
}

#[test]
fn pc2_and_c1_name_what_is_missing() {
    let sector = Sector::new(7);
    let added = sector.add_pieces(Vec::new()).unwrap();
    let mut pc1 = sector.pc1(&added.pieces, None).unwrap();
    let pc2 = sector.pc2(&pc1).unwrap();
    let sealed = fs::read(sector.path("sealed")).unwrap();
    fs::write(sector.path("sealed"), &sealed[..100]).unwrap();
    let error = text(&sector.c1(&added.pieces, &pc2).unwrap_err());
    assert!(error.contains("sealed has 100 bytes, not 2048"), "{error}");

    let layer = sector.cache(&pc1.files[0]);
    fs::remove_file(&layer).unwrap();
    let error = text(&sector.pc2(&pc1).unwrap_err());
    assert!(error.contains(&format!("{}, a file of PC1, is missing", layer.display())), "{error}");
    pc1.files.clear();
    pc1.library = serde_json::json!({"labels": 1});
    let error = text(&sector.pc2(&pc1).unwrap_err());
    assert!(error.starts_with("read PC1's output"), "{error}");
}

#[test]
fn c2_names_nodes_that_it_cannot_read() {
    let sector = Sector::new(7);
    let c2 = || text(&run(&C2 { sector: sector.id, proof_type: PROOF, c1: sector.path("c1.json") }).unwrap_err());
    assert!(c2().contains(sector.path("c1.json").to_str().unwrap()));
    fs::write(sector.path("c1.json"), "{\"registered_proof\": ").unwrap();
    let error = c2();
    assert!(error.contains("c1.json") && error.contains("EOF"), "{error}");
}

#[test]
fn c2_refuses_the_nodes_of_another_sector() {
    let sector = Sector::new(7);
    let added = sector.add_pieces(Vec::new()).unwrap();
    let pc1 = sector.pc1(&added.pieces, None).unwrap();
    let pc2 = sector.pc2(&pc1).unwrap();
    let c1 = sector.c1(&added.pieces, &pc2).unwrap().file;
    let other = SectorId::new(sector.id.miner, SectorNumber(8));
    let error = text(&run(&C2 { sector: other, proof_type: PROOF, c1: c1.clone() }).unwrap_err());
    assert!(error.ends_with("c1.json are not of s-t01000-8"), "{error}");
    let larger = SealProofType::of(SectorSize::MiB8);
    let error = text(&run(&C2 { sector: sector.id, proof_type: larger, c1 }).unwrap_err());
    assert!(error.ends_with("c1.json are for another kind of proof"), "{error}");
}

#[test]
#[ignore = "cargo test -p damocles-seal --test processor -- --ignored real_c2 (155 s of CPU, 2.6 GB)"]
fn real_c2() {
    let sector = Sector::new(7);
    let added = sector.add_pieces(Vec::new()).unwrap();
    let pc1 = sector.pc1(&added.pieces, None).unwrap();
    let pc2 = sector.pc2(&pc1).unwrap();
    let c1 = sector.c1(&added.pieces, &pc2).unwrap().file;
    let proof = run(&C2 { sector: sector.id, proof_type: PROOF, c1 }).unwrap().proof;
    assert_eq!(proof.len(), 192);
}
