//! The queue of pieces: each goes to one sector, within what that asked for, whatever happens in between.

use crate::support::{Manager, proof_type};
use damocles_core::{CommP, PaddedPieceSize, PieceInfo, SectorId, allocator::SectorLease};
use damocles_seal::{
    rpc::{Caller, manager_handler},
    service::{DealPiece, PieceTerms, Report, SealingService, ServiceErrorKind, conformance::World},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

/// The queue as it should be.
#[derive(Debug, Default)]
struct Model {
    /// The waiting and the given pieces in the order in which they came, each with its sector.
    queue: Vec<(DealPiece, Option<SectorId>)>,
    settled: BTreeMap<SectorId, bool>,
}

impl Model {
    fn ask(&mut self, sector: SectorId, terms: PieceTerms) -> Vec<DealPiece> {
        if !self.settled.get(&sector).copied().unwrap_or_default() {
            let (mut used, mut chosen) = (0, Vec::new());
            for (nth, (piece, owner)) in self.queue.iter().enumerate() {
                let size = piece.piece.size.bytes();
                let more = terms.most.is_none_or(|most| (chosen.len() as u64) < most);
                if owner.is_none() && more && used + size <= proof_type().sector_size().bytes() {
                    used += size;
                    chosen.push(nth);
                }
            }
            let enough = used >= terms.least;
            chosen.retain(|_| enough);
            for nth in &chosen {
                self.queue[*nth].1 = Some(sector);
            }
            self.settled.insert(sector, terms.settles || !chosen.is_empty());
        }
        let mut given: Vec<_> =
            self.queue.iter().filter(|(_, owner)| *owner == Some(sector)).map(|(piece, _)| piece.clone()).collect();
        given.sort_by_key(|piece| Reverse(piece.piece.size.bytes()));
        given
    }

    fn give_up(&mut self, sector: SectorId) {
        self.queue.iter_mut().filter(|(_, owner)| *owner == Some(sector)).for_each(|(_, owner)| *owner = None);
    }
}

fn terms(rng: &mut StdRng) -> PieceTerms {
    PieceTerms {
        most: [None, None, Some(0), Some(1), Some(2), Some(5)].choose(rng).copied().unwrap(),
        least: [0, 0, 128, 1024, 1536, 2048, 4096].choose(rng).copied().unwrap(),
        settles: rng.gen_bool(0.3),
    }
}

/// One life of a queue: pieces come, sectors ask and are given up, the manager ends and comes back.
async fn live(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut manager, mut model) = (Manager::start().await, Model::default());
    let file = manager.piece_file("piece");
    let mut open: Vec<SectorLease> = vec![manager.lease().await];
    for step in 0..40_u8 {
        match rng.gen_range(0..10) {
            0..4 => {
                let size = PaddedPieceSize::try_from(128_u64 << rng.gen_range(0..5)).unwrap();
                let piece = PieceInfo { comm_p: CommP([step; 32]), size };
                manager.service.add_piece(piece, 1, &file).await.unwrap();
                model.queue.push((DealPiece { piece, payload_size: 1 }, None));
            }
            4..8 => {
                let (lease, terms) = (open.choose(&mut rng).unwrap(), terms(&mut rng));
                let given = manager.service.pieces(lease, terms).await.unwrap();
                assert_eq!(
                    given,
                    model.ask(lease.sector, terms),
                    "seed {seed}, step {step}: {} {terms:?}",
                    lease.sector
                );
                let used: u64 = given.iter().map(|piece| piece.piece.size.bytes()).sum();
                assert!(used <= proof_type().sector_size().bytes());
            }
            8 => {
                let lease = open.swap_remove(rng.gen_range(0..open.len()));
                let aborted = Report::Aborted { reason: "lost".to_owned() };
                manager.service.report(&lease, &aborted).await.unwrap();
                model.give_up(lease.sector);
                let refused = manager.service.pieces(&lease, PieceTerms::default()).await.unwrap_err();
                assert_eq!(refused.kind(), ServiceErrorKind::Refused);
            }
            _ => manager.restart().await,
        }
        if open.len() < 3 {
            open.push(manager.lease().await);
        }
    }
    for lease in &open {
        let shown = manager.service.sector(lease.sector).await.unwrap().unwrap();
        let given: Vec<_> = model.queue.iter().filter(|(_, owner)| *owner == Some(lease.sector)).collect();
        assert_eq!(shown.pieces.len(), given.len(), "seed {seed}: {}", lease.sector);
    }
    // What nobody has can still be given: nothing leaked.
    let mut waiting = model.queue.iter().filter(|(_, owner)| owner.is_none()).count();
    while waiting > 0 {
        let lease = manager.lease().await;
        let given = manager.service.pieces(&lease, PieceTerms::default()).await.unwrap();
        assert!(!given.is_empty(), "seed {seed}: {waiting} pieces are lost");
        assert_eq!(given, model.ask(lease.sector, PieceTerms::default()));
        waiting -= given.len();
    }
}

#[tokio::test]
async fn each_piece_has_one_sector_at_most_and_none_is_lost() {
    for seed in 0..30 {
        live(seed).await;
    }
}

#[tokio::test]
async fn sectors_that_ask_at_once_share_no_piece() {
    let manager = Manager::start().await;
    let file = manager.piece_file("piece");
    for tag in 0..12 {
        let piece = PieceInfo { comm_p: CommP([tag; 32]), size: PaddedPieceSize::try_from(512).unwrap() };
        manager.service.add_piece(piece, 1, &file).await.unwrap();
    }
    let mut leases = Vec::new();
    for _ in 0..6 {
        leases.push(manager.lease().await);
    }
    let two = PieceTerms { most: Some(2), ..PieceTerms::default() };
    // Each asks twice, as one whose first answer was lost.
    let asked = leases.iter().flat_map(|lease| [lease, lease]).map(|lease| manager.service.pieces(lease, two));
    let given = futures::future::try_join_all(asked).await.unwrap();
    let mut seen = Vec::new();
    for twice in given.chunks(2) {
        assert_eq!((twice[0].len(), &twice[0]), (2, &twice[1]));
        seen.extend(twice[0].iter().map(|piece| piece.piece.comm_p));
    }
    seen.sort_unstable_by_key(|comm_p| comm_p.0);
    seen.dedup();
    assert_eq!(seen.len(), 12);
}

#[tokio::test]
async fn a_piece_that_comes_wakes_the_sector_that_waits_for_it() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let waits = PieceTerms { settles: false, ..PieceTerms::default() };
    assert_eq!(manager.service.pieces(&lease, waits).await.unwrap(), []);
    let day = Duration::from_secs(24 * 3600);
    let woken = tokio::time::timeout(Duration::from_secs(60), manager.service.changed(&lease, day));
    let piece = PieceInfo { comm_p: CommP([3; 32]), size: PaddedPieceSize::try_from(2048).unwrap() };
    let file = manager.piece_file("piece");
    // It listens before the piece comes: the first is polled first.
    let (woken, added) = tokio::join!(woken, manager.service.add_piece(piece, 1, &file));
    added.unwrap();
    woken.unwrap().unwrap();
    assert_eq!(manager.service.pieces(&lease, waits).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_incumbents_worker_may_wait_for_pieces_too() {
    let manager = Manager::start().await;
    let handler = manager_handler(manager.service.clone());
    let ask = async |method: &str, params: Value| {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let answer = handler.handle_request(&request, Caller::default()).await.unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()["result"].clone()
    };
    let spec = json!({"AllowedMiners": [], "AllowedProofTypes": []});
    let sector = ask("Venus.AllocateSector", json!([spec])).await["ID"].clone();
    let (any, most, least) = (
        json!([sector, {"MaxDeals": null, "MinUsedSpace": null}]),
        json!([sector, {"MaxDeals": 1, "MinUsedSpace": null}]),
        json!([sector, {"MaxDeals": null, "MinUsedSpace": 2048}]),
    );
    assert_eq!(ask("Venus.AcquireDeals", any.clone()).await, Value::Null);
    let file = manager.piece_file("piece");
    for tag in [1, 2] {
        let piece = PieceInfo { comm_p: CommP([tag; 32]), size: PaddedPieceSize::try_from(512).unwrap() };
        manager.service.add_piece(piece, 100, &file).await.unwrap();
    }
    assert_eq!(ask("Venus.AcquireDeals", least).await, Value::Null, "not enough");
    let given = ask("Venus.AcquireDeals", most).await;
    assert_eq!(given.as_array().map(Vec::len), Some(1), "{given}");
    assert_eq!(ask("Venus.AcquireDeals", any).await, given);
}
