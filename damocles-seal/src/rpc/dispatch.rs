//! The manager's dispatch.

use super::{
    Caller, Method, code,
    damocles::{self, Renewal},
    venus_dispatch,
};
use crate::{
    allocator::SqlAllocator,
    service::{ManagerService, SealingService, ServiceError, ServiceErrorKind},
};
use damocles_core::{
    Error, RequestId, SectorId,
    allocator::{SectorAllocator, SectorLease},
};
use jsonrpc_core::{Error as RpcError, MetaIoHandler, Params};
use std::{future::Future, sync::Arc, time::Duration};

/// Everything that a manager answers: `Venus.*` for the incumbent's workers and ours, `Damocles.*` for ours and for
/// the command line.
///
/// Whoever listens reads the headers into a [`Caller`] and passes it with the request to
/// [`MetaIoHandler::handle_request`].
pub fn manager_handler(service: Arc<ManagerService>) -> MetaIoHandler<Caller> {
    let mut server = Server { io: MetaIoHandler::default(), api: Arc::new(Api { service }) };
    venus_dispatch::add(&mut server);
    add_leases(&mut server);
    add_sectors(&mut server);
    server.io
}

/// What methods work on.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) service: Arc<ManagerService>,
}

impl Api {
    pub(super) fn allocator(&self) -> &SqlAllocator {
        self.service.allocator()
    }

    /// The lease that a caller acts under.
    ///
    /// A fence says that the caller is one of ours, and the service refuses another one than is recorded. Without a
    /// fence it is an incumbent's worker: it may touch what was handed out to such, and nothing else.
    pub(super) async fn lease(&self, sector: SectorId, caller: &Caller) -> Result<SectorLease, RpcError> {
        const OP: &str = "look lease up";
        let refused = |kind| code::of_service(&Error::new(kind, OP).with("sector", sector));
        let found = self.allocator().find(sector).await.map_err(|e| code::of_alloc(&e))?;
        let found = found.ok_or_else(|| refused(ServiceErrorKind::UnknownSector))?;
        match caller.fence {
            Some(fence) => Ok(SectorLease { fence, ..found.lease }),
            None if found.implicit => Ok(found.lease),
            None => Err(refused(ServiceErrorKind::Fenced)),
        }
    }
}

/// A dispatch under construction.
pub(super) struct Server {
    io: MetaIoHandler<Caller>,
    api: Arc<Api>,
}

impl Server {
    pub(super) fn on<M, F, R>(&mut self, act: F)
    where
        M: Method,
        F: Fn(Arc<Api>, M::Params, Caller) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Result<M::Output, RpcError>> + Send + 'static,
    {
        let api = self.api.clone();
        self.io.add_method_with_meta(M::NAME, move |params: Params, caller: Caller| {
            let api = api.clone();
            async move {
                // A call without parameters may leave them out.
                let params = match params {
                    Params::None => Params::Array(Vec::new()),
                    given => given,
                };
                let params: M::Params = params.parse()?;
                let output = act(api, params, caller).await?;
                serde_json::to_value(output).map_err(|_| RpcError::internal_error())
            }
        });
    }
}

pub(super) fn answer<T>(result: Result<T, ServiceError>) -> Result<T, RpcError> {
    result.map_err(|e| code::of_service(&e))
}

fn add_leases(server: &mut Server) {
    server.on::<damocles::Hello, _, _>(|api, _, _| async move { answer(api.service.hello().await) });
    server.on::<damocles::AllocateSector, _, _>(|api, (want,), _| async move {
        api.allocator().allocate(&want).await.map_err(|e| code::of_alloc(&e))
    });
    server.on::<damocles::TakeUp, _, _>(|api, (store, sector, ttl), caller| async move {
        let (allocator, ttl) = (api.allocator(), Duration::from_millis(ttl));
        let taken = match caller.idempotency_key {
            Some(key) => allocator.take_up_once(&RequestId::new(key), &store, sector, ttl).await,
            None => allocator.take_up(&store, sector, ttl).await,
        };
        taken.map_err(|e| code::of_alloc(&e))
    });
    server.on::<damocles::HeldBy, _, _>(|api, (store,), _| async move {
        api.allocator().held_by(&store).await.map_err(|e| code::of_alloc(&e))
    });
    server.on::<damocles::RenewLeases, _, _>(|api, (leases, ttl), _| async move {
        let mut renewals = Vec::with_capacity(leases.len());
        for lease in &leases {
            renewals.push(match api.allocator().renew(lease, Duration::from_millis(ttl)).await {
                Ok(lease) => Renewal::Renewed(lease),
                Err(e) => {
                    let error = code::of_alloc(&e);
                    Renewal::Failed { code: error.code.code(), message: error.message }
                }
            });
        }
        Ok(renewals)
    });
    server.on::<damocles::ReleaseLease, _, _>(|api, (lease, outcome), _| async move {
        api.allocator().release(&lease, outcome).await.map_err(|e| code::of_alloc(&e))
    });
}

fn add_sectors(server: &mut Server) {
    server.on::<damocles::Events, _, _>(|api, (sector, millis), caller| async move {
        let lease = api.lease(sector, &caller).await?;
        let wait = Duration::from_millis(millis).min(damocles::LONGEST_WAIT);
        answer(api.service.changed(&lease, wait).await)
    });
    server.on::<damocles::AddPiece, _, _>(|api, (piece, payload_size, path), _| async move {
        answer(api.service.add_piece(piece, payload_size, &path).await)
    });
    server.on::<damocles::ListSectors, _, _>(|api, _, _| async move { answer(api.service.sectors().await) });
    server
        .on::<damocles::ShowSector, _, _>(|api, (sector,), _| async move { answer(api.service.sector(sector).await) });
    server.on::<damocles::ListWorkers, _, _>(|api, _, _| async move {
        let known = answer(api.service.workers().await)?;
        Ok(known.into_iter().map(Into::into).collect())
    });
    server.on::<damocles::RemoveWorker, _, _>(|api, (name,), _| async move {
        answer(api.service.forget_worker(&name).await)
    });
    server.on::<damocles::ReleaseSector, _, _>(|api, (sector,), _| async move {
        answer(api.service.release_by_operator(sector).await)
    });
    server.on::<damocles::AbortSector, _, _>(|api, (sector,), _| async move {
        answer(api.service.abort_by_operator(sector).await)
    });
}

/// What a method answers.
pub(super) type Answer<T> = Result<T, RpcError>;
