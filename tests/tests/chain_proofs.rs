//! One aggregate, one non-interactive proof and one replica update land on a devnet that verifies every proof; with one
//! bit flipped they land with the actor's refusal. The proofs were made once, see `damocles-seal/tests/params/record.rs`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed helper is a failed test")]
#![expect(clippy::print_stderr, reason = "a test that skips says so")]

use damocles_core::{
    CancellationToken, CommP, CommR, DeadlineIndex, PaddedPieceSize, PieceInfo, SectorId, SectorNumber,
    chain::{
        Call, ChainClient as _, NiSector, OnChain, PieceActivation, PreCommit, PreCommitBatch, ProveCommitAggregate,
        ProveCommitNi, ProveReplicaUpdates, Receipt, SectorPieces, SectorUpdate,
    },
    verify::{AggregateSealStatement, NiSealStatement, UpdateStatement},
};
use damocles_seal::params::{CircuitId, CircuitKind, Origin, ParameterCache, ParamsError};
use damocles_tests::recorded::{LIFE, PROOF, SIZE, World, recorded, refused, skip, spoilt};
use serde::{Deserialize, de::DeserializeOwned};
use std::{fs, path::Path};

/// A proof with its statement.
#[derive(Deserialize)]
struct Recorded<S> {
    statement: S,
    #[serde(with = "hex")]
    proof: Vec<u8>,
    verifying_key: String,
}

/// What was recorded, if it can be verified here; keys that are missing are made.
async fn recorded_proof<S: DeserializeOwned>(name: &str, kind: CircuitKind) -> Option<Recorded<S>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../damocles-seal/tests/recorded").join(name);
    let found: Recorded<S> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let ensured = tokio::task::spawn_blocking(move || {
        let (cache, cancel) = (ParameterCache::of_library(), CancellationToken::new());
        let circuit = CircuitId::new(kind, SIZE.bytes());
        let tell = |progress| eprintln!("{progress:?}");
        let keys = cache.ensure_verifying_keys(&[circuit], &cancel, &tell).unwrap();
        (keys.sets[0].0.clone(), cache.ensure_srs(&cancel, &tell))
    });
    let (key, srs) = ensured.await.unwrap();
    let srs = match srs {
        Ok((srs, _)) => srs,
        Err(e @ ParamsError::SrsOfCeremonyOnly { .. }) => {
            skip(&e.to_string());
            return None;
        }
        Err(e) => panic!("{e}"),
    };
    if key.origin == Origin::Ours && srs.published_trapdoor {
        assert_eq!(hex::encode(key.verifying_key_digest), found.verifying_key);
        return Some(found);
    }
    skip(&format!("the parameter cache holds other files for {kind} than ours"));
    None
}

async fn replica(world: &World, number: SectorNumber) -> Option<CommR> {
    let head = world.head().await;
    match world.client.chain.sector(&head, SectorId::new(world.miner, number)).await.unwrap() {
        OnChain::Active(info) => Some(info.comm_r),
        _ => None,
    }
}

/// Lands a call with one bit of its proof flipped, then as it is.
async fn only_the_proof_lands(world: &World, words: &str, proof: &[u8], call: impl Fn(Vec<u8>) -> Call) -> Receipt {
    let wrong = world.client.land("prove/1", &call(spoilt(proof))).await;
    refused(&wrong, words);
    let right = world.client.land("prove/2", &call(proof.to_vec())).await;
    assert!(right.is_success(), "{right:?}");
    right
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_lands() {
    let found = recorded_proof::<AggregateSealStatement>("aggregate_2k.json", CircuitKind::PoRep).await;
    let Some(Recorded { statement, proof, .. }) = found else { return };
    let world = World::new().await;
    assert_eq!(world.miner, statement.miner);
    let ticket = world.ticket().await;
    let expiration = world.head().await.epoch + LIFE;
    let sectors = statement.sectors.iter().map(|sector| {
        assert_eq!(sector.ticket, ticket.randomness);
        PreCommit {
            number: sector.number,
            proof_type: PROOF,
            comm_r: sector.comm_r,
            comm_d: None,
            ticket_epoch: ticket.epoch,
            expiration,
        }
    });
    let batch = PreCommitBatch { miner: world.miner, sectors: sectors.collect() };
    let receipt = world.client.land("pre-commit", &Call::PreCommit(batch)).await;
    assert!(receipt.is_success(), "{receipt:?}");
    let seed = world.seed(receipt.epoch).await;
    assert!(statement.sectors.iter().all(|sector| sector.seed == seed.randomness));

    let sectors: Vec<_> =
        statement.sectors.iter().map(|s| SectorPieces { number: s.number, pieces: Vec::new() }).collect();
    only_the_proof_lands(&world, "aggregate seal verify failed", &proof, |proof| {
        Call::ProveCommitAggregate(ProveCommitAggregate {
            miner: world.miner,
            sectors: sectors.clone(),
            proof,
            all_or_nothing: true,
        })
    })
    .await;
    for sector in &statement.sectors {
        assert_eq!(replica(&world, sector.number).await, Some(sector.comm_r));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_non_interactive_proof_lands_without_a_pre_commit() {
    let found = recorded_proof::<NiSealStatement>("ni_2k.json", CircuitKind::PoRep).await;
    let Some(Recorded { statement, proof, .. }) = found else { return };
    let world = World::new().await;
    let ticket = world.ticket().await;
    let head = world.head().await;
    let sector = statement.sectors[0];
    assert_eq!((world.miner, ticket.randomness), (statement.miner, sector.ticket));
    // Half a day from the deadline that is open.
    let open = world.client.chain.deadline(&head, world.miner).await.unwrap().index;
    let deadline = DeadlineIndex((open.0 + 24) % 48);
    let ni = NiSector {
        number: sector.number,
        comm_r: sector.comm_r,
        ticket_epoch: ticket.epoch,
        expiration: head.epoch + LIFE,
    };
    only_the_proof_lands(&world, "aggregate seal verify failed", &proof, |proof| {
        Call::ProveCommitNi(ProveCommitNi {
            miner: world.miner,
            sector_size: SIZE,
            sectors: vec![ni.clone()],
            proof,
            deadline,
            all_or_nothing: true,
        })
    })
    .await;
    assert_eq!(replica(&world, sector.number).await, Some(sector.comm_r));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_lands_in_a_proven_sector() {
    let found = recorded_proof::<UpdateStatement>("update_2k.json", CircuitKind::SectorUpdate).await;
    let (Some(Recorded { statement, proof, .. }), Some((sector, post))) = (found, recorded().await) else { return };
    let number = sector.sector.number;
    let world = World::new().await;
    world.committed(&sector).await;
    let receipt = world.prove_commit("prove-commit", &sector.proof).await;
    assert!(receipt.is_success(), "{receipt:?}");
    let (open, _) = world.open_deadline().await;
    let receipt = world.post("post", open.index, open.challenge, &post.proof).await;
    assert!(receipt.is_success(), "{receipt:?}");
    // Nothing changes in a deadline that is open.
    world.client.mine(60).await;
    assert_eq!(replica(&world, number).await, Some(statement.old_comm_r));

    let size = PaddedPieceSize::try_from(SIZE.bytes()).unwrap();
    let piece = PieceInfo { comm_p: CommP(statement.new_comm_d.0), size };
    let call = |comm_r, comm_p| {
        move |proof| {
            let update = SectorUpdate {
                number,
                deadline: post.deadline,
                partition: post.partition,
                comm_r,
                proof,
                pieces: vec![PieceActivation::of(PieceInfo { comm_p, ..piece })],
            };
            Call::ProveReplicaUpdates(ProveReplicaUpdates {
                miner: sector.sector.miner,
                sector_size: SIZE,
                sectors: vec![update],
                all_or_nothing: true,
            })
        }
    };
    // The right proof for other data, or for another replica, is as wrong.
    let other_data = call(statement.new_comm_r, CommP([7; 32]))(proof.clone());
    refused(&world.client.land("other/1", &other_data).await, "invalid proof");
    let other_replica = call(CommR([7; 32]), piece.comm_p)(proof.clone());
    refused(&world.client.land("other/2", &other_replica).await, "invalid proof");
    only_the_proof_lands(&world, "invalid proof", &proof, call(statement.new_comm_r, piece.comm_p)).await;
    assert_eq!(replica(&world, number).await, Some(statement.new_comm_r));
    assert_eq!(world.power().await, "2048", "the sector keeps its power");
}
