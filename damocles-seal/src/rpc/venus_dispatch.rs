//! The incumbent's methods, answered by ours.

use super::{
    Caller, code,
    dispatch::{Answer, Api, Server, answer},
    venus::{
        AcquireDeals, AllocateSector, AllocateSpec, AllocatedSector, AssignTicket, Base64, DealInfo,
        PollPreCommitState, PollProofState, PollResponse, ReportAborted, ReportFinalized, ReportState, SectorPiece,
        SectorStateResponse, StateReport, StoreBasicInfo, StoreInfo, StoreReserveSpace, SubmitPersistedEx,
        SubmitPreCommit, SubmitProof, SubmitResponse, WaitSeed, WaitSeedResponse, WireCid, WirePiece, WirePreCommit,
        WireSector, WireSeed, WireTicket, WorkerPing,
    },
};
use crate::{
    allocator::INCUMBENT_STORE,
    service::{
        CommitState, DealPiece, PieceTerms, PreCommitRequest, Report, SealingService, Seed, SeedAnswer,
        ServiceErrorKind, SubmitAnswer, Ticket,
    },
};
use damocles_core::{
    ActorId, CommD, CommR, Error, Recovery, RequestId, SealProofType, SectorId, StoreId,
    allocator::{AllocateRequest, Outcome, SectorAllocator, SectorLease},
    pipeline::{StageId, Wake},
    verify::Randomness,
};
use jsonrpc_core::Error as RpcError;
use std::time::Duration;

/// An incumbent's worker that has not reported for so long is shown as silent.
const INCUMBENT_TTL: Duration = Duration::from_secs(24 * 3600);

pub(super) fn add(server: &mut Server) {
    server.on::<AllocateSector, _, _>(|api, (spec,), caller| async move { allocate(&api, spec, caller).await });
    server.on::<AcquireDeals, _, _>(|api, (sector, spec), caller| async move {
        let terms = PieceTerms::from(spec);
        // An incumbent's worker may ask again after an answer without pieces. What it seals without any is settled by
        // its pre-commit.
        let terms = PieceTerms { settles: terms.settles && caller.fence.is_some(), ..terms };
        deals(&api, sector, terms, &caller).await
    });
    server.on::<AssignTicket, _, _>(|api, (sector,), caller| async move {
        let lease = api.lease(sector.into(), &caller).await?;
        let ticket = answer(api.service.ticket(&lease).await)?;
        Ok(WireTicket { ticket: Base64(ticket.randomness.0.to_vec()), epoch: ticket.epoch })
    });
    server.on::<SubmitPreCommit, _, _>(|api, (sector, request, _), caller| async move {
        let lease = api.lease(sector.id.into(), &caller).await?;
        if sector.proof_type != lease.proof_type.number() {
            return Err(RpcError::invalid_params("the sector was leased with another proof type"));
        }
        submitted(answer(api.service.submit_pre_commit(&lease, &pre_commit(&request)?).await)?)
    });
    server.on::<PollPreCommitState, _, _>(|api, (sector,), caller| async move {
        let lease = api.lease(sector.into(), &caller).await?;
        polled(answer(api.service.pre_commit_state(&lease).await)?, &caller)
    });
    server.on::<WaitSeed, _, _>(|api, (sector, _), caller| async move { seed(&api, sector, &caller).await });
    server.on::<SubmitProof, _, _>(|api, (sector, proof, _), caller| async move {
        let lease = api.lease(sector.into(), &caller).await?;
        submitted(answer(api.service.submit_proof(&lease, &proof.proof.0).await)?)
    });
    server.on::<PollProofState, _, _>(|api, (sector,), caller| async move {
        let lease = api.lease(sector.into(), &caller).await?;
        polled(answer(api.service.proof_state(&lease).await)?, &caller)
    });
    add_reports(server);
    add_stores(server);
}

fn add_reports(server: &mut Server) {
    server.on::<ReportState, _, _>(|api, (sector, report), caller| async move {
        let lease = bound(&api, sector.into(), &report, &caller).await?;
        let told = answer(api.service.report(&lease, &report_of(&report)).await)?;
        Ok(SectorStateResponse { id: sector, finalized: told.finalized, abort_reason: told.abort_reason })
    });
    server.on::<ReportFinalized, _, _>(|api, (sector,), caller| async move {
        ended(&api, sector, &caller, Report::Finalized, Outcome::Sealed).await
    });
    server.on::<ReportAborted, _, _>(|api, (sector, reason), caller| async move {
        ended(&api, sector, &caller, Report::Aborted { reason }, Outcome::Abandoned).await
    });
    server.on::<WorkerPing, _, _>(|api, (info,), _| async move {
        let document = serde_json::to_string(&info).map_err(|_| RpcError::internal_error())?;
        answer(api.service.heard_from(&info.name, &info.dest, &document).await)
    });
}

fn add_stores(server: &mut Server) {
    server.on::<SubmitPersistedEx, _, _>(|api, (sector, store, upgrade), caller| async move {
        let lease = api.lease(sector.into(), &caller).await?;
        if upgrade {
            return Err(RpcError::invalid_params("snap-upgrades are not supported"));
        }
        answer(api.service.persisted(&lease, &store).await)
    });
    server.on::<StoreReserveSpace, _, _>(|api, (sector, bytes, candidates), caller| async move {
        let lease = api.lease(sector.into(), &caller).await?;
        let chosen = answer(api.service.reserve(&lease, bytes, &candidates.unwrap_or_default()).await)?;
        Ok(chosen.map(|c| store_info(&api, c.name)))
    });
    server.on::<StoreBasicInfo, _, _>(|api, (name,), _| async move {
        let known = api.service.stores().names().contains(&name);
        Ok(known.then(|| store_info(&api, name)))
    });
}

fn store_info(api: &Api, name: String) -> StoreInfo {
    let path = api.service.stores().path(&name).map(|p| p.display().to_string()).unwrap_or_default();
    StoreInfo { name, path, strict: false, read_only: false, weight: 1, meta: None }
}

/// Hands a sector to a worker that knows no leases. With an idempotency key a lost reply returns the same sector.
async fn allocate(api: &Api, spec: AllocateSpec, caller: Caller) -> Answer<Option<AllocatedSector>> {
    let wanted = spec.allowed_proof_types.unwrap_or_default();
    let known: Vec<_> = wanted.iter().filter_map(|n| SealProofType::try_from(*n).ok()).collect();
    if known.is_empty() && !wanted.is_empty() {
        return Ok(None);
    }
    let request = caller.idempotency_key.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let want = AllocateRequest {
        request: RequestId::new(format!("{INCUMBENT_STORE}{request}")),
        store: StoreId::new(INCUMBENT_STORE),
        worker: "incumbent".to_owned(),
        miners: spec.allowed_miners.unwrap_or_default().into_iter().map(ActorId).collect(),
        proof_types: known,
        ttl: INCUMBENT_TTL,
    };
    let lease = api.allocator().allocate_implicit(&want).await.map_err(|e| code::of_alloc(&e))?;
    Ok(lease.map(|l| AllocatedSector { id: l.sector.into(), proof_type: l.proof_type.number() }))
}

async fn deals(api: &Api, sector: WireSector, terms: PieceTerms, caller: &Caller) -> Answer<Option<Vec<SectorPiece>>> {
    let lease = api.lease(sector.into(), caller).await?;
    let pieces = answer(api.service.pieces(&lease, terms).await)?;
    let wire: Vec<_> = pieces.iter().zip(1..).map(|(piece, nth)| wire_piece(lease.sector, piece, nth)).collect();
    Ok((!wire.is_empty()).then_some(wire))
}

/// The incumbent's worker takes a piece without a deal for a filler of zeros, so each piece gets a number.
fn wire_piece(sector: SectorId, piece: &DealPiece, nth: u64) -> SectorPiece {
    let piece_cid = WireCid { cid: piece.piece.comm_p.to_string() };
    let size = piece.piece.size.bytes();
    let deal_info = DealInfo {
        deal_id: if piece.payload_size == 0 { 0 } else { nth },
        publish_cid: None,
        allocation_id: 0,
        piece_cid: piece_cid.clone(),
        piece_size: size,
        client: "<empty>".to_owned(),
        provider: format!("t0{}", sector.miner),
        offset: 0,
        length: size,
        payload_size: piece.payload_size,
        start_epoch: 0,
        end_epoch: 0,
        is_builtin_market: false,
        is_compatible: false,
    };
    SectorPiece { piece: WirePiece { size, piece_cid }, deal_info: Some(deal_info) }
}

fn pre_commit(wire: &WirePreCommit) -> Answer<PreCommitRequest> {
    let randomness: [u8; 32] =
        wire.ticket.ticket.0.as_slice().try_into().map_err(|_| RpcError::invalid_params("a ticket has 32 bytes"))?;
    Ok(PreCommitRequest {
        comm_r: CommR(wire.comm_r),
        comm_d: CommD(wire.comm_d),
        ticket: Ticket { randomness: Randomness(randomness), epoch: wire.ticket.epoch },
    })
}

fn submitted(told: SubmitAnswer) -> Answer<SubmitResponse> {
    let (res, desc) = match told {
        SubmitAnswer::Accepted => (1, None),
        SubmitAnswer::Mismatched { reason } => (3, Some(reason)),
        SubmitAnswer::Rejected { reason } => (4, Some(reason)),
        SubmitAnswer::FilesMissed { reason } => (5, Some(reason)),
    };
    Ok(SubmitResponse { res, desc })
}

fn polled(state: CommitState, caller: &Caller) -> Answer<PollResponse> {
    let (state, desc, epoch) = match state {
        CommitState::NotFound => (4, None, None),
        CommitState::Pending { .. } => (1, None, None),
        CommitState::Landed { epoch } => (3, None, Some(epoch)),
        CommitState::Failed { reason } => (5, Some(reason), None),
        CommitState::Refused { reason } => (6, Some(reason), None),
        CommitState::ShouldAbort { reason } => (7, Some(reason), None),
    };
    Ok(PollResponse { state, desc, epoch: epoch.filter(|_| caller.fence.is_some()) })
}

async fn seed(api: &Api, sector: WireSector, caller: &Caller) -> Answer<WaitSeedResponse> {
    let lease = api.lease(sector.into(), caller).await?;
    Ok(match answer(api.service.seed(&lease).await)? {
        SeedAnswer::Ready(Seed { randomness, epoch }) => {
            let seed = WireSeed { seed: Base64(randomness.0.to_vec()), epoch };
            WaitSeedResponse { should_wait: false, delay: 0, seed: Some(seed), epoch: None }
        }
        SeedAnswer::Wait(wake) => {
            let delay = answer(api.service.time_until(wake).await)?;
            let epoch = match wake {
                Wake::Epoch(epoch) if caller.fence.is_some() => Some(epoch),
                _ => None,
            };
            let delay = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX).max(1);
            WaitSeedResponse { should_wait: true, delay, seed: None, epoch }
        }
    })
}

/// The lease of a reporting worker; an incumbent's is bound to whoever reports.
async fn bound(api: &Api, sector: SectorId, report: &StateReport, caller: &Caller) -> Answer<SectorLease> {
    let lease = api.lease(sector, caller).await?;
    if caller.fence.is_some() {
        return Ok(lease);
    }
    let holder = format!("{}@{}", report.worker.instance, report.worker.location);
    if holder.len() > 1000 {
        return Err(code::of_service(
            &Error::new(ServiceErrorKind::Refused, "bind lease").with("bytes in the worker's name", holder.len()),
        ));
    }
    api.allocator().bind_implicit(sector, &holder, INCUMBENT_TTL).await.map_err(|e| code::of_alloc(&e))?;
    api.lease(sector, caller).await
}

/// Records the end of a sector. An incumbent's worker knows no lease that it could give back.
async fn ended(api: &Api, sector: WireSector, caller: &Caller, report: Report, outcome: Outcome) -> Answer<()> {
    let lease = api.lease(sector.into(), caller).await?;
    answer(api.service.report(&lease, &report).await)?;
    match caller.fence {
        Some(_) => Ok(()),
        None => api.allocator().release(&lease, outcome).await.map_err(|e| code::of_alloc(&e)),
    }
}

fn report_of(wire: &StateReport) -> Report {
    let stage = |name: &str| (!name.is_empty()).then(|| StageId::read(name));
    let (prev, next) = (stage(&wire.state_change.prev), stage(&wire.state_change.next));
    match &wire.failure {
        Some(failure) => {
            let recovery = match failure.level.to_ascii_lowercase().as_str() {
                level if level.starts_with("temp") => Recovery::RETRY,
                "abort" => Recovery::Abandon,
                "critical" => Recovery::Halt,
                _ => Recovery::Park,
            };
            let stage = next.or(prev).unwrap_or(StageId::new("unknown"));
            Report::Failed { stage, error: failure.desc.clone(), recovery }
        }
        None => Report::Moved { done: prev, next },
    }
}
