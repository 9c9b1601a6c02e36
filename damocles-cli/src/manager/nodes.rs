//! `chain nodes` and `chain metrics`: the nodes that the configuration names, as they are now and as they answered.

use super::{chain, outbox};
use crate::{
    config::{ManagerConfig, manager::Home},
    exit::{Exit, Failure},
    output::{Printer, Render, table},
};
use anyhow::anyhow;
use damocles_chain::{
    Operator,
    rpc::{EndpointHealth, HealthState, RpcMetrics},
};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Nodes {
    /// What the nodes that are relied on serve.
    network: Option<String>,
    nodes: Vec<EndpointHealth>,
}

impl Render for Nodes {
    fn text(&self, color: bool) -> String {
        let rows = self.nodes.iter().map(|node| {
            let state = if node.preferred && node.state == HealthState::Ok { "ok, preferred" } else { "" };
            [
                node.endpoint.clone(),
                if state.is_empty() { node.state.to_string() } else { state.to_owned() },
                node.head.as_ref().map_or_else(|| "-".to_owned(), |head| head.epoch.to_string()),
                node.reason.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        });
        table(&["NODE", "STATE", "HEAD", "REASON"], rows, color)
    }
}

/// Compares the nodes and shows how each is. What is shown stands on standard output even where the command fails.
///
/// # Errors
///
/// None of them can be relied on, or those that can are on another network than the configuration wants.
pub(super) async fn show(home: &Home, printer: Printer) -> Result<(), Failure> {
    let config = ManagerConfig::load(home.config())?;
    let operator = Operator::with_endpoints(chain::endpoints(&config, home)?)?;
    let nodes = operator.endpoints().await;
    let network = if nodes.iter().any(|node| node.state == HealthState::Ok) {
        let head = operator.head().await?;
        Some(operator.network(&head).await?.name)
    } else {
        None
    };
    printer.data(&Nodes { network: network.clone(), nodes })?;
    let Some(network) = network else {
        return Err(Failure::new(Exit::Retryable, anyhow!("no node can be relied on"))
            .hint("are they running, and are their addresses and tokens in [chain] of manager.toml right?"));
    };
    chain::admit_network(&config, &network, &operator.endpoint()).map(drop)
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Metrics(RpcMetrics);

impl Render for Metrics {
    fn text(&self, color: bool) -> String {
        let rows = self.0.endpoints.iter().flat_map(|endpoint| {
            endpoint.methods.iter().map(|(method, m)| {
                let errors: Vec<_> = m.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
                let millis = |micros: u64| format!("{}.{:03} ms", micros / 1000, micros % 1000);
                [
                    endpoint.endpoint.clone(),
                    method.clone(),
                    m.calls.to_string(),
                    millis(m.total_micros.checked_div(m.calls).unwrap_or_default()),
                    millis(m.longest_micros),
                    if errors.is_empty() { "-".to_owned() } else { errors.join(", ") },
                ]
            })
        });
        table(&["NODE", "METHOD", "CALLS", "MEAN", "LONGEST", "ERRORS"], rows, color)
    }
}

/// Shows what the daemon of a home asked its nodes.
///
/// # Errors
///
/// No daemon runs.
pub(super) async fn metrics(home: &Home, printer: Printer) -> Result<(), Failure> {
    printer.data(&Metrics(outbox::daemon_metrics(home).await?))
}
