//! The manager's RPC and pieces behind our server.

use crate::server::{FileLookup, RequestHeaders, RpcHandler};
use async_trait::async_trait;
use damocles_core::{CommP, Fence};
use damocles_seal::{
    rpc::{
        Caller, Method as _,
        damocles::{AbortSector, AddPiece, ListWorkers, ReleaseSector, RemoveWorker},
        manager_handler,
    },
    service::ManagerService,
};
use jsonrpc_core::MetaIoHandler;
use std::{path::PathBuf, sync::Arc};

/// What gives work up, brings new work in or tells of others is an operator's to ask for, on the socket of the home: whoever
/// reaches the port of the workers may be anybody on this machine.
const OF_OPERATORS: [&str; 5] =
    [AbortSector::NAME, ReleaseSector::NAME, AddPiece::NAME, ListWorkers::NAME, RemoveWorker::NAME];

/// Whether a method is served to operators only.
pub(super) fn is_of_operators(method: &str) -> bool {
    OF_OPERATORS.contains(&method)
}

/// The names of those methods.
pub(super) const fn of_operators() -> [&'static str; 5] {
    OF_OPERATORS
}

/// The manager's RPC.
#[derive(Clone)]
pub(super) struct ManagerRpc {
    service: Arc<ManagerService>,
    handler: Arc<MetaIoHandler<Caller>>,
}

impl ManagerRpc {
    /// Serves a manager to workers.
    pub(super) fn of_workers(service: Arc<ManagerService>) -> Self {
        let mut handler = MetaIoHandler::default();
        let all = manager_handler(Arc::clone(&service));
        handler.extend_with(all.into_iter().filter(|(name, _)| !is_of_operators(name)));
        Self { handler: Arc::new(handler), service }
    }

    /// Serves a manager to operators too.
    pub(super) fn of_operators(service: Arc<ManagerService>) -> Self {
        Self { handler: Arc::new(manager_handler(Arc::clone(&service))), service }
    }

    /// Finds the file of a piece by its CID.
    pub(super) fn pieces(&self) -> FileLookup {
        let service = Arc::clone(&self.service);
        Arc::new(move |name: &str| find(&service, name))
    }
}

fn find(service: &Arc<ManagerService>, name: &str) -> Option<PathBuf> {
    let piece: CommP = name.strip_suffix(".car").unwrap_or(name).parse().ok()?;
    let lookup = service.piece_path(piece);
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(lookup)).ok().flatten()
}

#[async_trait]
impl RpcHandler for ManagerRpc {
    async fn handle(&self, headers: &RequestHeaders, body: String) -> Option<String> {
        let caller = Caller { fence: headers.fence.map(Fence), idempotency_key: headers.idempotency_key.clone() };
        self.handler.handle_request(&body, caller).await
    }
}
