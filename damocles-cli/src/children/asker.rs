//! Asking another program on this machine to give a GPU back.

use crate::server::UnixClient;
use async_trait::async_trait;
use damocles_core::{BoxError, pool::TaskKind};
use damocles_seal::claims::{Asker, Holder, Resource};
use serde_json::json;

/// Asks a worker at its control socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketAsker;

#[async_trait]
impl Asker for SocketAsker {
    async fn ask(&self, holder: &Holder, resource: &Resource, wanted_for: &TaskKind) -> Result<bool, BoxError> {
        let socket = holder.socket.as_ref().ok_or("it has no control socket")?;
        Ok(UnixClient::new(socket)?.call("Worker.Yield", json!([resource, wanted_for])).await?)
    }
}
