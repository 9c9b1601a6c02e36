//! What stages ask of a manager.

use crate::support::{MINER, Manager, Meanwhile, TTL, Trip, proof_type};
use async_trait::async_trait;
use damocles_core::{
    CommP, CommR, Fence, PaddedPieceSize, PieceInfo, Recovery, SectorId, SectorNumber, StoreId, Timestamp,
    allocator::{AllocErrorKind, Outcome, SectorAllocator, SectorLease},
    chain::{Call, CallKind, ChainClient, OnChain},
    pipeline::StageId,
    testing::fake_proof,
    verify::SealStatement,
};
use damocles_seal::{
    allocator::MinerPolicy,
    sector_state::{AttemptKind, SectorEvent, SectorKind},
    service::{
        CommitState, DealPiece, InMemoryService, PieceTerms, PreCommitRequest, Report, SealingService, Seed,
        SeedAnswer, ServiceErrorKind, SubmitAnswer, comm_d_of,
        conformance::{self, World},
    },
};
use parking_lot::Mutex;
use std::time::Duration;

#[derive(Debug)]
struct MemoryWorld<'a>(&'a InMemoryService, Mutex<u64>);

#[async_trait]
impl World for MemoryWorld<'_> {
    async fn lease(&self) -> SectorLease {
        let mut next = self.1.lock();
        *next += 1;
        SectorLease {
            sector: SectorId::new(MINER, SectorNumber(*next)),
            proof_type: proof_type(),
            store: StoreId::new("store"),
            fence: Fence(1),
            heard_until: Timestamp(0),
        }
    }

    async fn lease_again(&self, lease: &SectorLease) -> SectorLease {
        SectorLease { fence: Fence(lease.fence.0 + 1), ..lease.clone() }
    }

    async fn tick(&self) {
        self.0.nudge();
    }

    fn store(&self) -> String {
        "persist".to_owned()
    }

    async fn add_piece(&self, piece: DealPiece) {
        self.0.add_piece(piece);
    }

    fn show_replicas(&self, shown: bool) {
        self.0.hide_replicas(!shown);
    }

    fn refuse_pre_commit(&self, lease: &SectorLease) {
        self.0.set_pre_commit_state(lease.sector, CommitState::Refused { reason: "the actor says no".to_owned() });
    }
}

#[tokio::test]
async fn the_service_in_memory_keeps_the_contract() {
    for polls in [0, 3] {
        let service = InMemoryService::new().land_after(polls);
        conformance::all(&service, &MemoryWorld(&service, Mutex::default())).await;
    }
}

#[tokio::test]
async fn the_managers_own_service_keeps_the_contract() {
    let manager = Manager::start().await;
    manager.spawn();
    conformance::all(&*manager.service, &manager).await;
    manager.cancel.cancel();
}

async fn request(manager: &Manager, lease: &SectorLease) -> PreCommitRequest {
    let pieces: Vec<PieceInfo> =
        manager.service.pieces(lease, PieceTerms::default()).await.unwrap().iter().map(|p| p.piece).collect();
    let ticket = manager.service.ticket(lease).await.unwrap();
    PreCommitRequest { comm_r: CommR([7; 32]), comm_d: comm_d_of(&pieces, proof_type().sector_size()).unwrap(), ticket }
}

async fn seed(manager: &Manager, lease: &SectorLease) -> Seed {
    match manager.service.seed(lease).await.unwrap() {
        SeedAnswer::Ready(seed) => seed,
        SeedAnswer::Wait(wake) => panic!("no seed yet: {wake:?}"),
    }
}

async fn proof(manager: &Manager, lease: &SectorLease, request: &PreCommitRequest) -> Vec<u8> {
    fake_proof::seal(&SealStatement {
        sector: lease.sector,
        proof_type: lease.proof_type,
        comm_r: request.comm_r,
        comm_d: request.comm_d,
        ticket: request.ticket.randomness,
        seed: seed(manager, lease).await.randomness,
    })
}

fn landed(manager: &Manager, kind: CallKind) -> usize {
    manager.chain.inner.landed_calls().iter().filter(|l| l.call.kind() == kind).count()
}

/// A sector whose pre-commit landed and whose seed is drawn.
async fn pre_committed(manager: &Manager) -> (SectorLease, PreCommitRequest) {
    let lease = manager.lease().await;
    let request = request(manager, &lease).await;
    assert_eq!(manager.service.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
    manager.tick(30);
    assert!(matches!(manager.service.pre_commit_state(&lease).await.unwrap(), CommitState::Landed { .. }));
    (lease, request)
}

#[tokio::test]
async fn a_crash_around_a_submission_sends_it_once() {
    for trip in [Trip::Before, Trip::After] {
        let mut manager = Manager::start().await;
        let lease = manager.lease().await;
        let request = request(&manager, &lease).await;
        manager.chain.trips.lock().push(trip);
        let answer = manager.service.submit_pre_commit(&lease, &request).await.unwrap();
        assert_eq!(answer, SubmitAnswer::Accepted, "{trip:?}: it is recorded, so it will be sent");
        manager.restart().await;
        manager.spawn();
        // The loop sends what is open at the first head that it sees.
        manager.service.changed(&lease, Duration::from_secs(3600)).await.unwrap();
        assert_eq!(manager.service.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
        manager.tick(30);
        assert!(matches!(manager.service.pre_commit_state(&lease).await.unwrap(), CommitState::Landed { .. }));
        assert_eq!(landed(&manager, CallKind::PreCommit), 1, "{trip:?}");

        assert!(manager.service.persisted(&lease, "persist").await.unwrap());
        let proof = proof(&manager, &lease, &request).await;
        manager.cancel.cancel();
        manager.chain.trips.lock().push(trip);
        assert_eq!(manager.service.submit_proof(&lease, &proof).await.unwrap(), SubmitAnswer::Accepted);
        manager.restart().await;
        // Without the loop, the question where it stands sends it too.
        assert!(matches!(manager.service.proof_state(&lease).await.unwrap(), CommitState::Pending { .. }));
        manager.tick(30);
        assert!(matches!(manager.service.proof_state(&lease).await.unwrap(), CommitState::Landed { .. }));
        assert_eq!(landed(&manager, CallKind::ProveCommit), 1, "{trip:?}");
    }
}

#[tokio::test]
async fn a_service_that_is_dropped_while_it_submits_loses_nothing() {
    // Each number of polls drops the call at another of its waits.
    for polls in 1..60 {
        let mut manager = Manager::start().await;
        let lease = manager.lease().await;
        let request = request(&manager, &lease).await;
        let service = manager.service.clone();
        let mut call = Box::pin(service.submit_pre_commit(&lease, &request));
        let mut done = false;
        for _ in 0..polls {
            if futures::poll!(&mut call).is_ready() {
                done = true;
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(call);
        manager.restart().await;
        assert_eq!(manager.service.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
        manager.tick(30);
        assert!(matches!(manager.service.pre_commit_state(&lease).await.unwrap(), CommitState::Landed { .. }));
        assert_eq!(landed(&manager, CallKind::PreCommit), 1, "dropped after {polls} polls");
        if done {
            return;
        }
    }
    panic!("the call never ended");
}

#[tokio::test]
async fn a_process_that_lost_its_lease_while_it_submitted_records_nothing() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let request = request(&manager, &lease).await;
    let (service, old) = (manager.service.clone(), lease.clone());
    let take_up = async move {
        service.allocator().take_up(&old.store, old.sector, TTL).await.unwrap();
    };
    *manager.chain.meanwhile.lock() = Some(Meanwhile(Box::pin(take_up)));
    let error = manager.service.submit_pre_commit(&lease, &request).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Fenced, "the fence is checked where the decision is recorded");
    manager.tick(5);
    assert_eq!(manager.chain.inner.landed_calls(), []);
}

#[tokio::test]
async fn a_wrong_proof_never_reaches_the_chain() {
    let manager = Manager::start().await;
    let (lease, request) = pre_committed(&manager).await;
    let good = proof(&manager, &lease, &request).await;
    let answer = manager.service.submit_proof(&lease, &good).await.unwrap();
    assert!(matches!(answer, SubmitAnswer::FilesMissed { .. }), "not before the replica is in a store: {answer:?}");
    assert!(manager.service.persisted(&lease, "persist").await.unwrap());
    assert_eq!(manager.service.locate(lease.sector).await.unwrap().as_deref(), Some("persist"));
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    for wrong in [flipped, Vec::new(), vec![0; 1 << 20], good[..191].to_vec()] {
        let answer = manager.service.submit_proof(&lease, &wrong).await.unwrap();
        assert!(matches!(answer, SubmitAnswer::Rejected { .. }), "{} bytes: {answer:?}", wrong.len());
    }
    manager.tick(30);
    assert_eq!(landed(&manager, CallKind::ProveCommit), 0);
    assert_eq!(manager.service.submit_proof(&lease, &good).await.unwrap(), SubmitAnswer::Accepted);
    manager.tick(30);
    assert_eq!(landed(&manager, CallKind::ProveCommit), 1);
}

#[tokio::test]
async fn exit_codes_decide_whether_to_try_again() {
    for (code, again) in [(7, true), (19, true), (16, false)] {
        let manager = Manager::start().await;
        let lease = manager.lease().await;
        let request = request(&manager, &lease).await;
        manager.chain.inner.next_exit_code(code);
        manager.service.submit_pre_commit(&lease, &request).await.unwrap();
        manager.tick(30);
        let state = manager.service.pre_commit_state(&lease).await.unwrap();
        let answer = manager.service.submit_pre_commit(&lease, &request).await.unwrap();
        if again {
            assert!(
                matches!(&state, CommitState::Failed { reason } if reason.contains(&code.to_string())),
                "{state:?}"
            );
            assert_eq!(answer, SubmitAnswer::Accepted);
            manager.tick(30);
            let state = manager.service.pre_commit_state(&lease).await.unwrap();
            assert!(matches!(state, CommitState::Landed { .. }), "{state:?}");
            assert_eq!(landed(&manager, CallKind::PreCommit), 2);
        } else {
            assert!(matches!(&state, CommitState::Refused { reason } if reason.contains("16")), "{state:?}");
            assert!(matches!(answer, SubmitAnswer::Rejected { .. }), "{answer:?}");
            manager.tick(30);
            assert_eq!(landed(&manager, CallKind::PreCommit), 1, "nothing is sent again");
        }
    }
}

/// The chain's head and the challenge delay.
async fn now(manager: &Manager) -> (i64, i64) {
    let head = manager.chain.head().await.unwrap();
    (head.epoch.0, manager.chain.network(&head).await.unwrap().pre_commit_challenge_delay)
}

#[tokio::test]
async fn a_chain_that_denies_a_landed_pre_commit_is_doubted_until_no_proof_could_land() {
    let manager = Manager::start().await;
    let (lease, request) = pre_committed(&manager).await;
    let CommitState::Landed { epoch } = manager.service.pre_commit_state(&lease).await.unwrap() else {
        panic!("it landed");
    };
    let proof = proof(&manager, &lease, &request).await;
    assert!(manager.service.persisted(&lease, "persist").await.unwrap());
    for denied in [OnChain::Absent, OnChain::Gone] {
        manager.chain.inner.set_sector(lease.sector.number, denied.clone());
        let state = manager.service.pre_commit_state(&lease).await.unwrap();
        assert!(matches!(state, CommitState::Pending { .. }), "{denied:?}: {state:?}");
        let seed = manager.service.seed(&lease).await.unwrap();
        assert!(matches!(seed, SeedAnswer::Wait(_)), "{denied:?}: {seed:?}");
        let error = manager.service.submit_proof(&lease, &proof).await.unwrap_err();
        assert_eq!(error.kind(), ServiceErrorKind::Unavailable, "{denied:?}");
    }
    let (head, delay) = now(&manager).await;
    manager.tick(epoch.0 + 86_400 + delay - head);
    let state = manager.service.pre_commit_state(&lease).await.unwrap();
    assert!(matches!(state, CommitState::Pending { .. }), "at the last epoch for a proof: {state:?}");
    manager.tick(1);
    let state = manager.service.pre_commit_state(&lease).await.unwrap();
    assert!(matches!(state, CommitState::ShouldAbort { .. }), "after it: {state:?}");
    // A worker that was parked until now asks for neither the one nor the other state again.
    for error in [
        manager.service.seed(&lease).await.unwrap_err(),
        manager.service.submit_proof(&lease, &proof).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.recovery()), (ServiceErrorKind::Refused, Recovery::Abandon), "{error}");
    }
    manager.chain.inner.set_sector(lease.sector.number, OnChain::Absent);
    let state = manager.service.pre_commit_state(&lease).await.unwrap();
    assert!(matches!(state, CommitState::Pending { .. }), "a number that was used is never absent: {state:?}");
}

/// A sector whose proof landed.
async fn proven(manager: &Manager) -> SectorLease {
    let (lease, request) = pre_committed(manager).await;
    assert!(manager.service.persisted(&lease, "persist").await.unwrap());
    let proof = proof(manager, &lease, &request).await;
    assert_eq!(manager.service.submit_proof(&lease, &proof).await.unwrap(), SubmitAnswer::Accepted);
    manager.tick(30);
    assert!(matches!(manager.service.proof_state(&lease).await.unwrap(), CommitState::Landed { .. }));
    lease
}

#[tokio::test]
async fn a_chain_that_denies_a_landed_proof_is_waited_for() {
    let manager = Manager::start().await;
    let lease = proven(&manager).await;
    let (_, delay) = now(&manager).await;
    for epochs in [0, 86_401 + delay] {
        manager.tick(epochs);
        for denied in [OnChain::Absent, OnChain::Gone] {
            manager.chain.inner.set_sector(lease.sector.number, denied.clone());
            let state = manager.service.proof_state(&lease).await.unwrap();
            assert!(matches!(state, CommitState::Pending { .. }), "{denied:?}, {epochs} epochs later: {state:?}");
        }
    }
}

#[tokio::test]
async fn the_ticket_that_is_committed_to_is_given_again() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let first = request(&manager, &lease).await;
    manager.tick(3);
    let request = request(&manager, &lease).await;
    assert_ne!(request.ticket, first.ticket, "before the commitment each call draws");
    manager.chain.inner.next_exit_code(7);
    manager.service.submit_pre_commit(&lease, &request).await.unwrap();
    manager.tick(30);
    assert_eq!(manager.service.ticket(&lease).await.unwrap(), request.ticket, "open");
    assert!(matches!(manager.service.pre_commit_state(&lease).await.unwrap(), CommitState::Failed { .. }));
    assert_ne!(manager.service.ticket(&lease).await.unwrap(), request.ticket, "nothing is committed any more");
    manager.service.submit_pre_commit(&lease, &request).await.unwrap();
    manager.tick(30);
    assert!(matches!(manager.service.pre_commit_state(&lease).await.unwrap(), CommitState::Landed { .. }));
    assert_eq!(manager.service.ticket(&lease).await.unwrap(), request.ticket, "landed");
}

#[tokio::test]
async fn what_the_chain_knows_already_is_adopted() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let request = request(&manager, &lease).await;
    let head = 1000;
    let on_chain = |comm_r| OnChain::PreCommitted {
        comm_r,
        ticket_epoch: request.ticket.epoch,
        epoch: damocles_core::Epoch(head + 1),
        expiration: damocles_core::Epoch(9_000_000),
    };
    manager.chain.inner.set_sector(lease.sector.number, on_chain(CommR([9; 32])));
    manager.tick(1);
    let answer = manager.service.submit_pre_commit(&lease, &request).await.unwrap();
    assert!(matches!(answer, SubmitAnswer::Rejected { .. }), "another replica: {answer:?}");
    manager.chain.inner.set_sector(lease.sector.number, on_chain(request.comm_r));
    let err = manager.service.submit_pre_commit(&lease, &request).await.unwrap_err();
    assert_eq!(err.kind(), ServiceErrorKind::Unavailable, "it may still be reverted");
    manager.tick(30);
    assert_eq!(manager.service.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
    assert!(matches!(manager.service.pre_commit_state(&lease).await.unwrap(), CommitState::Landed { .. }));
    assert_eq!(landed(&manager, CallKind::PreCommit), 0, "nothing was sent");
}

#[tokio::test]
async fn tickets_are_checked() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let good = request(&manager, &lease).await;
    let mut forged = good.clone();
    forged.ticket.randomness.0[0] ^= 1;
    let mut future = good.clone();
    future.ticket.epoch = damocles_core::Epoch(5000);
    for wrong in [forged, future] {
        let answer = manager.service.submit_pre_commit(&lease, &wrong).await.unwrap();
        assert!(matches!(answer, SubmitAnswer::Rejected { .. }), "{answer:?}");
    }
    manager.tick(2881);
    let answer = manager.service.submit_pre_commit(&lease, &good).await.unwrap();
    assert!(matches!(answer, SubmitAnswer::Rejected { .. }), "an expired ticket: {answer:?}");
    manager.tick(5);
    assert_eq!(manager.chain.inner.landed_calls(), []);
}

#[tokio::test]
async fn a_piece_goes_to_the_next_sector_and_onto_the_chain() {
    let manager = Manager::start().await;
    let piece = PieceInfo { comm_p: CommP([3; 32]), size: PaddedPieceSize::try_from(1024).unwrap() };
    let file = manager.piece_file("piece");
    manager.service.add_piece(piece, 1000, &file).await.unwrap();
    let huge = PieceInfo { size: PaddedPieceSize::try_from(4096).unwrap(), ..piece };
    let err = manager.service.add_piece(huge, 1, &file).await.unwrap_err();
    assert_eq!(err.kind(), ServiceErrorKind::Refused);
    let err = manager.service.add_piece(piece, 1017, &file).await.unwrap_err();
    assert_eq!(err.kind(), ServiceErrorKind::Refused);

    let (data, request) = pre_committed(&manager).await;
    let (cc, _) = pre_committed(&manager).await;
    assert_eq!(manager.service.pieces(&data, PieceTerms::default()).await.unwrap().len(), 1);
    assert_eq!(manager.service.pieces(&cc, PieceTerms::default()).await.unwrap(), []);
    assert_eq!(manager.service.piece_path(piece.comm_p).await.unwrap(), Some(file));
    let comm_ds: Vec<_> = manager
        .chain
        .inner
        .landed_calls()
        .iter()
        .filter_map(|l| match &l.call {
            Call::PreCommit(batch) => batch.sectors.first().map(|s| s.comm_d),
            _ => None,
        })
        .collect();
    assert_eq!(comm_ds, [Some(request.comm_d), None], "committed capacity names no data");

    manager.service.persisted(&data, "persist").await.unwrap();
    let proof = proof(&manager, &data, &request).await;
    manager.service.submit_proof(&data, &proof).await.unwrap();
    manager.tick(10);
    let Some(Call::ProveCommit(call)) = manager.chain.inner.landed_calls().pop().map(|l| l.call) else {
        panic!("a proof landed last");
    };
    assert!(call.all_or_nothing);
    assert_eq!(call.sectors[0].pieces[0].piece, piece);
    let summaries = manager.service.sectors().await.unwrap();
    let kinds: Vec<_> = summaries.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [Some(SectorKind::Data), Some(SectorKind::Cc)]);
    assert!(summaries[0].pre_commit.as_ref().is_some_and(|a| a.cid.is_some() && a.exit_code == Some(0)));
}

#[tokio::test]
async fn an_aborted_sector_gives_its_piece_back() {
    let manager = Manager::start().await;
    let piece = PieceInfo { comm_p: CommP([3; 32]), size: PaddedPieceSize::try_from(2048).unwrap() };
    manager.service.add_piece(piece, 1000, &manager.piece_file("piece")).await.unwrap();
    let first = manager.lease().await;
    assert_eq!(manager.service.pieces(&first, PieceTerms::default()).await.unwrap().len(), 1);
    manager.service.report(&first, &Report::Aborted { reason: "ticket expired".to_owned() }).await.unwrap();
    let second = manager.lease().await;
    assert_eq!(manager.service.pieces(&second, PieceTerms::default()).await.unwrap().len(), 1);
    let shown = manager.service.sector(first.sector).await.unwrap().unwrap();
    assert_eq!(shown.summary.abort_reason.as_deref(), Some("ticket expired"));
}

fn aborted() -> Report {
    Report::Aborted { reason: "by the operator".to_owned() }
}

#[tokio::test]
async fn a_sector_whose_proof_may_be_on_chain_is_not_aborted() {
    let manager = Manager::start().await;
    let (open, request) = pre_committed(&manager).await;
    assert!(manager.service.persisted(&open, "persist").await.unwrap());
    let proof = proof(&manager, &open, &request).await;
    manager.chain.trips.lock().push(Trip::After);
    assert_eq!(manager.service.submit_proof(&open, &proof).await.unwrap(), SubmitAnswer::Accepted);
    let error = manager.service.report(&open, &aborted()).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Refused, "it was sent, whatever is recorded");
    assert!(error.hint().is_some());
    let landed = proven(&manager).await;
    let error = manager.service.report(&landed, &aborted()).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Refused);
    for lease in [open, landed] {
        assert_eq!(manager.service.sector(lease.sector).await.unwrap().unwrap().summary.abort_reason, None);
    }
}

#[tokio::test]
async fn what_an_aborted_sector_decided_and_never_sent_is_never_sent() {
    let mut manager = Manager::start().await;
    let piece = PieceInfo { comm_p: CommP([3; 32]), size: PaddedPieceSize::try_from(1024).unwrap() };
    manager.service.add_piece(piece, 1000, &manager.piece_file("piece")).await.unwrap();
    let unsent = manager.lease().await;
    let request = request(&manager, &unsent).await;
    manager.chain.trips.lock().push(Trip::Before);
    assert_eq!(manager.service.submit_pre_commit(&unsent, &request).await.unwrap(), SubmitAnswer::Accepted);
    manager.service.report(&unsent, &aborted()).await.unwrap();
    manager.restart().await;
    let witness = manager.lease().await;
    manager.spawn();
    manager.service.changed(&witness, Duration::from_secs(3600)).await.unwrap();
    manager.tick(30);
    assert_eq!(manager.chain.inner.landed_calls(), []);
    let shown = manager.service.sector(unsent.sector).await.unwrap().unwrap();
    assert_eq!(shown.attempts[0].ended.as_deref(), Some("dropped"));

    let (promised, _) = pre_committed(&manager).await;
    assert_eq!(manager.service.pieces(&promised, PieceTerms::default()).await.unwrap().len(), 1, "the piece came back");
    manager.service.report(&promised, &aborted()).await.unwrap();
    let next = manager.lease().await;
    assert_eq!(
        manager.service.pieces(&next, PieceTerms::default()).await.unwrap().len(),
        1,
        "it can never become active in that sector"
    );
    manager.cancel.cancel();
}

#[tokio::test]
async fn a_message_that_was_taken_before_a_crash_is_found_by_an_abort() {
    let mut manager = Manager::start().await;
    let lease = manager.lease().await;
    let request = request(&manager, &lease).await;
    manager.chain.trips.lock().push(Trip::After);
    assert_eq!(manager.service.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
    manager.restart().await;
    let attempt =
        async |manager: &Manager| manager.service.sector(lease.sector).await.unwrap().unwrap().attempts.pop().unwrap();
    assert_eq!(attempt(&manager).await.message, None, "the answer was lost");
    manager.chain.inner.set_unavailable(true);
    let error = manager.service.abort_by_operator(lease.sector).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Unavailable, "nobody knows whether it was sent");
    manager.chain.inner.set_unavailable(false);
    manager.service.report(&lease, &aborted()).await.unwrap();
    let shown = attempt(&manager).await;
    assert!(shown.message.is_some() && shown.ended.is_none(), "it is on its way: {shown:?}");
}

#[tokio::test]
async fn a_submission_that_is_overtaken_by_an_abort_is_not_recorded() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let early = request(&manager, &lease).await;
    let (service, sector) = (manager.service.clone(), lease.sector);
    let abort = async move { service.abort_by_operator(sector).await.unwrap() };
    *manager.chain.meanwhile.lock() = Some(Meanwhile(Box::pin(abort)));
    let error = manager.service.submit_pre_commit(&lease, &early).await.unwrap_err();
    assert_eq!((error.kind(), error.recovery()), (ServiceErrorKind::Refused, Recovery::Abandon), "{error}");

    let (lease, request) = pre_committed(&manager).await;
    assert!(manager.service.persisted(&lease, "persist").await.unwrap());
    let proof = proof(&manager, &lease, &request).await;
    let (service, late) = (manager.service.clone(), lease.clone());
    let abort = async move { drop(service.report(&late, &aborted()).await.unwrap()) };
    *manager.chain.meanwhile.lock() = Some(Meanwhile(Box::pin(abort)));
    let error = manager.service.submit_proof(&lease, &proof).await.unwrap_err();
    assert_eq!((error.kind(), error.recovery()), (ServiceErrorKind::Refused, Recovery::Abandon), "{error}");
    manager.tick(30);
    assert_eq!(landed(&manager, CallKind::ProveCommit), 0);
    for sector in [sector, lease.sector] {
        let shown = manager.service.sector(sector).await.unwrap().unwrap();
        assert!(shown.attempts.iter().all(|a| a.kind == AttemptKind::PreCommit && sector == lease.sector), "{shown:?}");
    }
}

#[tokio::test]
async fn an_operator_gives_a_sector_up_unless_its_proof_stands() {
    let manager =
        Manager::with_policy(MinerPolicy { max_sectors: Some(2), ..MinerPolicy::new(MINER, proof_type()) }).await;
    let piece = PieceInfo { comm_p: CommP([3; 32]), size: PaddedPieceSize::try_from(1024).unwrap() };
    manager.service.add_piece(piece, 1000, &manager.piece_file("piece")).await.unwrap();
    let (lost, _) = pre_committed(&manager).await;
    assert!(manager.service.reserve(&lost, 1 << 20, &[]).await.unwrap().is_some());
    let proven = proven(&manager).await;
    assert_eq!(manager.allocator().allocate(&manager.want("new")).await.unwrap(), None, "there are as many as may be");

    for _ in 0..2 {
        manager.service.abort_by_operator(lost.sector).await.unwrap();
    }
    let error = manager.service.seed(&lost).await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Abandon, "its worker hears of it");
    let moved = Report::Moved { done: None, next: None };
    assert!(manager.service.report(&lost, &moved).await.unwrap().abort_reason.is_some());
    manager.service.changed(&lost, Duration::from_secs(3600)).await.unwrap();
    let next = manager.allocator().allocate(&manager.want("new")).await.unwrap().unwrap();
    assert_eq!(
        manager.service.pieces(&next, PieceTerms::default()).await.unwrap().len(),
        1,
        "its data goes to the next sector"
    );
    assert!(manager.service.reserve(&next, 1 << 20, &[]).await.unwrap().is_some(), "its room is free");
    manager.service.report(&lost, &aborted()).await.unwrap();
    manager.allocator().release(&lost, Outcome::Abandoned).await.unwrap();

    let error = manager.service.abort_by_operator(proven.sector).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Refused);
    assert!(error.chain().contains("provecommit/") && error.hint().is_some(), "{}", error.chain());
    manager.service.report(&proven, &Report::Finalized).await.unwrap();
    let error = manager.service.abort_by_operator(proven.sector).await.unwrap_err();
    assert!(error.chain().contains("proven"), "{}", error.chain());
    assert!(manager.service.release_by_operator(proven.sector).await.is_err());
    let unknown = SectorId::new(MINER, SectorNumber(99));
    let error = manager.service.abort_by_operator(unknown).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::UnknownSector);
}

#[tokio::test]
async fn a_released_sector_that_nobody_can_finish_is_given_up() {
    let manager = Manager::start().await;
    let piece = PieceInfo { comm_p: CommP([3; 32]), size: PaddedPieceSize::try_from(1024).unwrap() };
    manager.service.add_piece(piece, 1000, &manager.piece_file("piece")).await.unwrap();
    let (lost, _) = pre_committed(&manager).await;
    assert_eq!(manager.service.release_by_operator(lost.sector).await.unwrap(), Outcome::Abandoned);
    let error = manager.allocator().renew(&lost, TTL).await.unwrap_err();
    assert_eq!(error.kind(), AllocErrorKind::Fenced, "what runs is stopped");
    let error = manager.allocator().take_up(&lost.store, lost.sector, TTL).await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Abandon, "a worker that comes back removes what it sealed");
    // Which it tells under the lease that it knows.
    manager.service.report(&lost, &aborted()).await.unwrap();
    manager.allocator().release(&lost, Outcome::Abandoned).await.unwrap();
    assert!(manager.service.release_by_operator(lost.sector).await.is_err());

    let (stored, _) = pre_committed(&manager).await;
    assert_eq!(manager.service.pieces(&stored, PieceTerms::default()).await.unwrap().len(), 1, "the data came back");
    assert!(manager.service.persisted(&stored, "persist").await.unwrap());
    for _ in 0..2 {
        assert_eq!(manager.service.release_by_operator(stored.sector).await.unwrap(), Outcome::Handed);
    }
    let shown = manager.service.sector(stored.sector).await.unwrap().unwrap();
    assert_eq!(shown.summary.abort_reason, None, "its replica may be brought back");
    manager.service.abort_by_operator(stored.sector).await.unwrap();
    assert_eq!(manager.service.release_by_operator(stored.sector).await.unwrap(), Outcome::Abandoned);
}

#[tokio::test]
async fn a_store_that_hangs_holds_up_no_other_and_is_asked_once() {
    let manager = Manager::impatient(Duration::from_secs(2)).await;
    let lease = manager.lease().await;
    manager.stores.hang(true);
    for _ in 0..5 {
        let chosen = manager.service.reserve(&lease, 90, &[]).await.unwrap();
        assert_eq!(chosen.map(|c| c.name).as_deref(), Some("small"));
    }
    for error in [
        manager.service.reserve(&lease, 1 << 10, &[]).await.unwrap_err(),
        manager.service.persisted(&lease, "persist").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ServiceErrorKind::Unavailable);
        assert!(error.chain().contains("persist") && error.hint().is_some(), "{}", error.chain());
    }
    assert_eq!(manager.service.reserve(&lease, 1 << 10, &["small".to_owned()]).await.unwrap(), None);
    assert_eq!(*manager.stores.asked.lock(), 1, "one thread waits for it, however often it is wanted");
    manager.stores.hang(false);
}

#[tokio::test]
async fn a_failure_that_is_repeated_is_recorded_once() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let failed = |error: &str| Report::Failed {
        stage: StageId::new("persist"),
        error: error.to_owned(),
        recovery: Recovery::RETRY,
    };
    for error in ["full", "full", "full", "broken", "full"] {
        manager.service.report(&lease, &failed(error)).await.unwrap();
    }
    let events = manager.service.sector(lease.sector).await.unwrap().unwrap().events;
    let reported = events.iter().filter(|e| matches!(e.event, SectorEvent::Reported { .. })).count();
    assert_eq!(reported, 3, "{events:?}");
}

#[tokio::test]
async fn a_step_that_is_told_again_is_recorded_once() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let moved = |done, next| Report::Moved { done: Some(StageId::new(done)), next: Some(StageId::new(next)) };
    let failed = Report::Failed { stage: StageId::new("pc2"), error: "no gpu".to_owned(), recovery: Recovery::RETRY };
    // A worker that ended before it could note that it was heard tells the last one again. After a failure the same step
    // is another one.
    let told = [moved("tree_d", "pc1"), moved("pc1", "pc2"), moved("pc1", "pc2"), failed, moved("pc1", "pc2")];
    for report in &told {
        manager.service.report(&lease, report).await.unwrap();
    }
    let events = manager.service.sector(lease.sector).await.unwrap().unwrap().events;
    let reported = events.into_iter().filter_map(|recorded| match recorded.event {
        SectorEvent::Reported { report } => Some(report),
        _ => None,
    });
    let [first, second, _, third, fourth] = told;
    assert_eq!(reported.collect::<Vec<_>>(), [first, second, third, fourth]);
}

#[tokio::test]
async fn no_file_is_served_that_left_the_directories_of_pieces() {
    let manager = Manager::start().await;
    let piece = PieceInfo { comm_p: CommP([3; 32]), size: PaddedPieceSize::try_from(1024).unwrap() };
    let (file, secret) = (manager.piece_file("piece"), manager.dir.path().join("secret"));
    std::fs::write(&secret, "key").unwrap();
    let error = manager.service.add_piece(piece, 3, &secret).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Refused);
    manager.service.add_piece(piece, 3, &file).await.unwrap();
    assert_eq!(manager.service.piece_path(piece.comm_p).await.unwrap(), Some(file.clone()));
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&secret, &file).unwrap();
    assert_eq!(manager.service.piece_path(piece.comm_p).await.unwrap(), None, "it leads elsewhere now");
}

#[tokio::test]
async fn a_message_that_the_client_refuses_has_ended() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let request = request(&manager, &lease).await;
    manager.chain.trips.lock().push(Trip::Refused);
    assert_eq!(manager.service.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
    let state = manager.service.pre_commit_state(&lease).await.unwrap();
    assert!(matches!(&state, CommitState::Failed { reason } if reason.contains("rejected")), "{state:?}");
    let shown = manager.service.sector(lease.sector).await.unwrap().unwrap();
    assert_eq!(shown.attempts[0].ended.as_deref(), Some("dropped"));
    assert_eq!(manager.service.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
    manager.tick(30);
    assert!(matches!(manager.service.pre_commit_state(&lease).await.unwrap(), CommitState::Landed { .. }));
    assert_eq!(landed(&manager, CallKind::PreCommit), 1);
}

#[tokio::test]
async fn rows_that_cannot_be_read_park_their_sector_and_no_other() {
    let mut manager = Manager::start().await;
    let (broken, sound) = (manager.lease().await, manager.lease().await);
    for lease in [&broken, &sound] {
        let request = request(&manager, lease).await;
        manager.chain.trips.lock().push(Trip::Before);
        assert_eq!(manager.service.submit_pre_commit(lease, &request).await.unwrap(), SubmitAnswer::Accepted);
    }
    let pool = manager.service.db().pool().clone();
    let spoil = |sql: &'static str| sqlx::query(sql).execute(&pool);
    spoil("UPDATE seal_intents SET call = '{' WHERE number = 1").await.unwrap();
    manager.restart().await;
    manager.spawn();
    manager.service.changed(&sound, Duration::from_secs(3600)).await.unwrap();
    manager.tick(30);
    assert_eq!(landed(&manager, CallKind::PreCommit), 1, "the readable one is sent");
    let error = manager.service.pre_commit_state(&broken).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Refused, "{}", error.chain());
    assert!(error.chain().contains("precommit/1000/1/"), "{}", error.chain());
    spoil("UPDATE seal_sectors SET fence = -1 WHERE number = 1").await.unwrap();
    let errors = [
        manager.service.pieces(&broken, PieceTerms::default()).await.unwrap_err(),
        manager.service.pre_commit_state(&broken).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ServiceErrorKind::Refused, "{}", error.chain());
        assert!(error.chain().contains("seal_sectors"), "{}", error.chain());
    }
    let error = manager.allocator().renew(&broken, TTL).await.unwrap_err();
    assert_eq!(error.kind(), AllocErrorKind::Refused, "{}", error.chain());
    manager.cancel.cancel();
}

#[tokio::test]
async fn a_released_sector_refuses_its_old_holder() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    manager.allocator().release_by_operator(lease.sector).await.unwrap();
    assert_eq!(manager.service.ticket(&lease).await.unwrap_err().kind(), ServiceErrorKind::Fenced);
    let taken = manager.allocator().take_up(&StoreId::new("other"), lease.sector, TTL).await.unwrap();
    manager.service.ticket(&taken).await.unwrap();
    let unknown = SectorLease { sector: SectorId::new(MINER, SectorNumber(u64::MAX)), ..taken };
    assert_eq!(manager.service.ticket(&unknown).await.unwrap_err().kind(), ServiceErrorKind::UnknownSector);
    assert_eq!(
        manager.service.pieces(&unknown, PieceTerms::default()).await.unwrap_err().kind(),
        ServiceErrorKind::UnknownSector
    );
}

#[tokio::test]
async fn a_chain_that_is_away_is_waited_for() {
    let manager = Manager::start().await;
    let (lease, _) = pre_committed(&manager).await;
    let fresh = manager.lease().await;
    manager.chain.inner.set_unavailable(true);
    for error in [
        manager.service.ticket(&fresh).await.err(),
        manager.service.seed(&lease).await.err(),
        manager.service.pre_commit_state(&lease).await.err(),
    ] {
        assert_eq!(error.map(|e| e.kind()), Some(ServiceErrorKind::Unavailable));
    }
    manager.service.hello().await.unwrap();
    manager.chain.inner.set_unavailable(false);
    seed(&manager, &lease).await;
}

#[tokio::test]
async fn reservations_leave_room_for_each_other() {
    let manager = Manager::start().await;
    let (one, two) = (manager.lease().await, manager.lease().await);
    let room = 1 << 20;
    assert!(manager.service.reserve(&one, room, &[]).await.unwrap().is_some());
    assert_eq!(manager.service.reserve(&two, room, &[]).await.unwrap(), None, "the room is promised");
    assert_eq!(manager.service.reserve(&two, 1, &["nowhere".to_owned()]).await.unwrap(), None);
    manager.service.report(&one, &Report::Finalized).await.unwrap();
    assert!(manager.service.reserve(&two, room, &[]).await.unwrap().is_some());
}

#[tokio::test]
async fn a_reservation_is_kept_while_its_store_serves() {
    let manager = Manager::start().await;
    let lease = manager.lease().await;
    let chosen = async || manager.service.reserve(&lease, 90, &[]).await.unwrap().map(|c| c.name);
    assert_eq!(chosen().await.as_deref(), Some("persist"));
    *manager.stores.read_only.lock() = true;
    assert_eq!(chosen().await.as_deref(), Some("persist"), "the replica is there");
    manager.show_replicas(false);
    assert_eq!(chosen().await.as_deref(), Some("small"), "nothing can be written to the first choice");
    *manager.stores.read_only.lock() = false;
    assert_eq!(chosen().await.as_deref(), Some("small"), "the new choice stays, though another has more room");
}
