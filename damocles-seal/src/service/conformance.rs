//! The contract of [`SealingService`].

use super::{
    CommitState, DealPiece, PieceTerms, PreCommitRequest, Report, SealingService, Seed, SeedAnswer, ServiceErrorKind,
    SubmitAnswer, comm_d_of,
};
use async_trait::async_trait;
use damocles_core::{
    CommD, CommP, CommR, Fence, PaddedPieceSize, PieceInfo, Recovery, allocator::SectorLease, pipeline::StageId,
    testing::fake_proof, verify::SealStatement,
};
use std::{fmt, time::Duration};

/// What surrounds a service under test: its chain, its stores, its leases. Fake proofs count as proofs.
#[async_trait]
pub trait World: fmt::Debug + Send + Sync {
    /// Leases a new sector under a fence of at least 1.
    async fn lease(&self) -> SectorLease;

    /// Leases the sector again, under a higher fence.
    async fn lease_again(&self, lease: &SectorLease) -> SectorLease;

    /// Lets the chain move on by some epochs.
    async fn tick(&self);

    /// A persist store that the service knows.
    fn store(&self) -> String;

    /// Queues a piece.
    async fn add_piece(&self, piece: DealPiece);

    /// From now on replicas are found in that store, or not.
    fn show_replicas(&self, shown: bool);

    /// The actor refuses the pre-commit of this sector, which was submitted last and has not landed.
    fn refuse_pre_commit(&self, lease: &SectorLease);
}

/// More ticks than anything needs to land.
const PATIENCE: usize = 200;

/// Runs the whole contract against a service that has not been used.
///
/// # Panics
///
/// A clause of the contract is broken.
pub async fn all(service: &dyn SealingService, world: &dyn World) {
    service.hello().await.expect("hello");
    a_sector_goes_through(service, world).await;
    pieces_stay(service, world).await;
    a_wrong_commitment_is_not_accepted(service, world).await;
    an_old_fence_changes_nothing(service, world).await;
    what_was_refused_makes_room(service, world).await;
    nothing_follows_an_abort(service, world).await;
    waiting_ends(service, world).await;
    pieces_follow_the_terms(service, world).await;
    what_is_sealed_without_data_gets_none(service, world).await;
}

async fn request(service: &dyn SealingService, lease: &SectorLease) -> PreCommitRequest {
    let pieces: Vec<PieceInfo> =
        service.pieces(lease, PieceTerms::default()).await.expect("pieces").iter().map(|p| p.piece).collect();
    let ticket = service.ticket(lease).await.expect("ticket");
    let comm_d = comm_d_of(&pieces, lease.proof_type.sector_size()).expect("the pieces fit");
    PreCommitRequest { comm_r: CommR([lease.sector.number.0.to_le_bytes()[0]; 32]), comm_d, ticket }
}

fn prove(lease: &SectorLease, request: &PreCommitRequest, seed: Seed) -> Vec<u8> {
    fake_proof::seal(&SealStatement {
        sector: lease.sector,
        proof_type: lease.proof_type,
        comm_r: request.comm_r,
        comm_d: request.comm_d,
        ticket: request.ticket.randomness,
        seed: seed.randomness,
    })
}

async fn landed(service: &dyn SealingService, world: &dyn World, lease: &SectorLease, proof: bool) {
    for _ in 0..PATIENCE {
        let state = if proof { service.proof_state(lease).await } else { service.pre_commit_state(lease).await };
        match state.expect("state") {
            CommitState::Landed { .. } => return,
            CommitState::Pending { .. } => world.tick().await,
            other => panic!("it should land: {other:?}"),
        }
    }
    panic!("it never landed");
}

async fn seed(service: &dyn SealingService, world: &dyn World, lease: &SectorLease) -> Seed {
    for _ in 0..PATIENCE {
        match service.seed(lease).await.expect("seed") {
            SeedAnswer::Ready(seed) => return seed,
            SeedAnswer::Wait(_) => world.tick().await,
        }
    }
    panic!("the seed was never drawn");
}

async fn a_sector_goes_through(service: &dyn SealingService, world: &dyn World) {
    let lease = world.lease().await;
    assert_eq!(service.pre_commit_state(&lease).await.expect("state"), CommitState::NotFound);
    assert_eq!(service.proof_state(&lease).await.expect("state"), CommitState::NotFound);
    let moved = Report::Moved { done: Some(StageId::new("pc2")), next: Some(StageId::new("pre_commit")) };
    assert!(!service.report(&lease, &moved).await.expect("report").finalized);

    let request = request(service, &lease).await;
    for what in ["a submission", "its repeat"] {
        let answer = service.submit_pre_commit(&lease, &request).await.expect("submit");
        assert_eq!(answer, SubmitAnswer::Accepted, "{what} is accepted");
    }
    let other = PreCommitRequest { comm_r: CommR([0xee; 32]), ..request.clone() };
    let answer = service.submit_pre_commit(&lease, &other).await.expect("submit");
    assert!(matches!(answer, SubmitAnswer::Mismatched { .. }), "another content is not accepted: {answer:?}");
    let ticket = service.ticket(&lease).await.expect("ticket");
    assert_eq!(ticket, request.ticket, "a replica that is made again is the one that is committed to");
    landed(service, world, &lease, false).await;
    landed(service, world, &lease, false).await;
    let answer = service.submit_pre_commit(&lease, &request).await.expect("submit");
    assert_eq!(answer, SubmitAnswer::Accepted, "a repeat after landing is accepted");

    let store = world.store();
    let choice = service.reserve(&lease, 2048, std::slice::from_ref(&store)).await.expect("reserve");
    assert_eq!(choice.map(|c| c.name), Some(store.clone()), "the only candidate has room");
    let again = service.reserve(&lease, 2048, std::slice::from_ref(&store)).await.expect("reserve");
    assert_eq!(again.map(|c| c.name), Some(store.clone()), "the same sector gets the same store again");

    let seed = seed(service, world, &lease).await;
    assert_eq!(service.seed(&lease).await.expect("seed"), SeedAnswer::Ready(seed), "a seed does not change");
    let proof = prove(&lease, &request, seed);
    let answer = service.submit_proof(&lease, &proof).await.expect("submit");
    assert_ne!(answer, SubmitAnswer::Accepted, "no proof before the replica is in a store");
    world.show_replicas(false);
    assert!(!service.persisted(&lease, &store).await.expect("persisted"), "missing files are seen");
    assert!(!service.persisted(&lease, "no-such-store").await.expect("persisted"), "an unknown store holds nothing");
    world.show_replicas(true);
    assert!(service.persisted(&lease, &store).await.expect("persisted"));
    assert!(service.persisted(&lease, &store).await.expect("a repeat"));

    let mut wrong = proof.clone();
    wrong.iter_mut().take(1).for_each(|b| *b ^= 1);
    let answer = service.submit_proof(&lease, &wrong).await.expect("submit");
    assert!(matches!(answer, SubmitAnswer::Rejected { .. }), "a wrong proof is rejected: {answer:?}");
    assert_eq!(service.proof_state(&lease).await.expect("state"), CommitState::NotFound, "and not recorded");
    for what in ["a proof", "its repeat"] {
        let answer = service.submit_proof(&lease, &proof).await.expect("submit");
        assert_eq!(answer, SubmitAnswer::Accepted, "{what} is accepted");
    }
    landed(service, world, &lease, true).await;
    let answer = service.submit_proof(&lease, &proof).await.expect("submit");
    assert_eq!(answer, SubmitAnswer::Accepted, "a repeat after landing is accepted");
    let aborted = Report::Aborted { reason: "too late".to_owned() };
    let error = service.report(&lease, &aborted).await.expect_err("a sector with a proof on chain is not aborted");
    assert_eq!(error.kind(), ServiceErrorKind::Refused);
    for _ in 0..2 {
        assert!(service.report(&lease, &Report::Finalized).await.expect("report").finalized);
    }
}

/// A sector without pieces may still be given some.
const WAITS: PieceTerms = PieceTerms { most: None, least: 0, settles: false };

async fn pieces_stay(service: &dyn SealingService, world: &dyn World) {
    let lease = world.lease().await;
    let first = service.pieces(&lease, PieceTerms::default()).await.expect("pieces");
    for terms in [PieceTerms::default(), WAITS, PieceTerms::NONE] {
        assert_eq!(service.pieces(&lease, terms).await.expect("pieces"), first, "pieces never change");
    }
}

/// A piece that fills one part in so many of a sector of this lease.
fn part(lease: &SectorLease, of: u64, tag: u8) -> DealPiece {
    let size = PaddedPieceSize::try_from(lease.proof_type.sector_size().bytes() / of).expect("a power of two");
    DealPiece { piece: PieceInfo { comm_p: CommP([tag; 32]), size }, payload_size: size.unpadded().bytes() }
}

async fn pieces_follow_the_terms(service: &dyn SealingService, world: &dyn World) {
    let first = world.lease().await;
    let given = async |lease: &SectorLease, terms: PieceTerms| service.pieces(lease, terms).await.expect("pieces");
    assert_eq!(given(&first, WAITS).await, [], "nothing waits");
    let [quarter, half, large, last] = [(4, 1), (2, 2), (2, 3), (4, 4)].map(|(of, tag)| part(&first, of, tag));
    for piece in [&quarter, &half, &large] {
        world.add_piece(piece.clone()).await;
    }
    let one = PieceTerms { most: Some(1), ..WAITS };
    assert_eq!(given(&first, one).await, std::slice::from_ref(&quarter), "what waited longest, and no more");
    assert_eq!(given(&first, PieceTerms::default()).await, [quarter], "what it has stays");

    let (second, third) = (world.lease().await, world.lease().await);
    world.add_piece(last.clone()).await;
    let whole = first.proof_type.sector_size().bytes();
    let more_than_fits = PieceTerms { least: 2 * whole, ..WAITS };
    assert_eq!(given(&second, more_than_fits).await, [], "not enough");
    let two = PieceTerms { most: Some(2), least: whole, ..WAITS };
    assert_eq!(given(&second, two).await, [half.clone(), large.clone()], "it is filled");
    assert_eq!(given(&third, PieceTerms { least: whole / 2, ..WAITS }).await, [], "a quarter waits");
    assert_eq!(given(&third, PieceTerms { least: whole / 4, ..WAITS }).await, std::slice::from_ref(&last));
    assert_eq!(given(&second, PieceTerms::NONE).await, [half, large]);

    let fourth = world.lease().await;
    assert_eq!(given(&fourth, PieceTerms::NONE).await, []);
    world.add_piece(last.clone()).await;
    assert_eq!(given(&fourth, PieceTerms::default()).await, [], "it is settled");
    let fifth = world.lease().await;
    assert_eq!(given(&fifth, PieceTerms::NONE).await, [], "none is asked for");
    assert_eq!(given(&world.lease().await, PieceTerms::default()).await, [last], "it was left for others");
}

async fn what_is_sealed_without_data_gets_none(service: &dyn SealingService, world: &dyn World) {
    let lease = world.lease().await;
    assert_eq!(service.pieces(&lease, WAITS).await.expect("pieces"), [], "nothing waits");
    let ticket = service.ticket(&lease).await.expect("ticket");
    let comm_d = comm_d_of(&[], lease.proof_type.sector_size()).expect("nothing fits");
    let request = PreCommitRequest { comm_r: CommR([9; 32]), comm_d, ticket };
    assert_eq!(service.submit_pre_commit(&lease, &request).await.expect("submit"), SubmitAnswer::Accepted);
    let piece = part(&lease, 1, 5);
    world.add_piece(piece.clone()).await;
    assert_eq!(service.pieces(&lease, WAITS).await.expect("pieces"), [], "its replica has no room for it");
    let next = world.lease().await;
    assert_eq!(service.pieces(&next, PieceTerms::default()).await.expect("pieces"), [piece]);
}

async fn a_wrong_commitment_is_not_accepted(service: &dyn SealingService, world: &dyn World) {
    let lease = world.lease().await;
    let wrong = PreCommitRequest { comm_d: CommD([1; 32]), ..request(service, &lease).await };
    let answer = service.submit_pre_commit(&lease, &wrong).await.expect("submit");
    assert_ne!(answer, SubmitAnswer::Accepted, "a commitment to other data is not accepted");
    assert_eq!(service.pre_commit_state(&lease).await.expect("state"), CommitState::NotFound);
}

async fn an_old_fence_changes_nothing(service: &dyn SealingService, world: &dyn World) {
    let old = world.lease().await;
    let request = request(service, &old).await;
    let new = world.lease_again(&old).await;
    assert!(new.fence > old.fence && old.fence > Fence(0));
    service.pieces(&new, PieceTerms::default()).await.expect("the new holder may ask");
    let store = world.store();
    let failed = Report::Aborted { reason: "by an old process".to_owned() };
    let errors = [
        ("pieces", service.pieces(&old, PieceTerms::default()).await.err()),
        ("ticket", service.ticket(&old).await.err()),
        ("submit_pre_commit", service.submit_pre_commit(&old, &request).await.err()),
        ("pre_commit_state", service.pre_commit_state(&old).await.err()),
        ("reserve", service.reserve(&old, 1, &[]).await.err()),
        ("persisted", service.persisted(&old, &store).await.err()),
        ("seed", service.seed(&old).await.err()),
        ("submit_proof", service.submit_proof(&old, &[1; 192]).await.err()),
        ("proof_state", service.proof_state(&old).await.err()),
        ("report", service.report(&old, &failed).await.err()),
        ("changed", service.changed(&old, Duration::ZERO).await.err()),
    ];
    for (call, error) in errors {
        assert_eq!(error.map(|e| e.kind()), Some(ServiceErrorKind::Fenced), "{call} by an old holder");
    }
    assert_eq!(service.pre_commit_state(&new).await.expect("state"), CommitState::NotFound);
    let moved = Report::Moved { done: None, next: None };
    assert_eq!(service.report(&new, &moved).await.expect("report").abort_reason, None, "the old report left no trace");
}

async fn what_was_refused_makes_room(service: &dyn SealingService, world: &dyn World) {
    let lease = world.lease().await;
    let refused = request(service, &lease).await;
    assert_eq!(service.submit_pre_commit(&lease, &refused).await.expect("submit"), SubmitAnswer::Accepted);
    world.refuse_pre_commit(&lease);
    let mut state = CommitState::NotFound;
    for _ in 0..PATIENCE {
        state = service.pre_commit_state(&lease).await.expect("state");
        if !matches!(state, CommitState::Pending { .. }) {
            break;
        }
        world.tick().await;
    }
    assert!(matches!(state, CommitState::Refused { .. }), "the actor refused it: {state:?}");
    let answer = service.submit_pre_commit(&lease, &refused).await.expect("submit");
    assert!(matches!(answer, SubmitAnswer::Rejected { .. }), "the same is refused again: {answer:?}");
    let other = PreCommitRequest { comm_r: CommR([0xee; 32]), ..request(service, &lease).await };
    assert_eq!(service.submit_pre_commit(&lease, &other).await.expect("submit"), SubmitAnswer::Accepted);
}

async fn nothing_follows_an_abort(service: &dyn SealingService, world: &dyn World) {
    let lease = world.lease().await;
    let request = request(service, &lease).await;
    let aborted = Report::Aborted { reason: "given up".to_owned() };
    for _ in 0..2 {
        let answer = service.report(&lease, &aborted).await.expect("an abort may be repeated");
        assert_eq!(answer.abort_reason.as_deref(), Some("given up"));
    }
    let errors = [
        ("pieces", service.pieces(&lease, PieceTerms::default()).await.err()),
        ("ticket", service.ticket(&lease).await.err()),
        ("submit_pre_commit", service.submit_pre_commit(&lease, &request).await.err()),
        ("pre_commit_state", service.pre_commit_state(&lease).await.err()),
        ("reserve", service.reserve(&lease, 1, &[]).await.err()),
        ("persisted", service.persisted(&lease, &world.store()).await.err()),
        ("seed", service.seed(&lease).await.err()),
        ("submit_proof", service.submit_proof(&lease, &[1; 192]).await.err()),
        ("proof_state", service.proof_state(&lease).await.err()),
    ];
    for (call, error) in errors {
        let error = error.expect(call);
        assert_eq!((error.kind(), error.recovery()), (ServiceErrorKind::Refused, Recovery::Abandon), "{call}");
    }
}

async fn waiting_ends(service: &dyn SealingService, world: &dyn World) {
    let lease = world.lease().await;
    service.changed(&lease, Duration::from_millis(1)).await.expect("a wait that is over is no error");
    let wait = service.changed(&lease, Duration::from_secs(3600));
    tokio::pin!(wait);
    for _ in 0..PATIENCE {
        tokio::select! {
            ended = &mut wait => return ended.expect("wait"),
            () = tokio::time::sleep(Duration::from_millis(20)) => world.tick().await,
        }
    }
    panic!("a change of the chain ends a wait");
}
