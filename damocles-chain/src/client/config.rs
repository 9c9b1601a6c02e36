//! How a client is set up.

use crate::{
    outbox::{Limits, Senders},
    rpc::{Endpoint, RpcOptions},
};
use damocles_core::{EventSink, NullSink};
use std::{sync::Arc, time::Duration};

/// How a [`LotusClient`](crate::LotusClient) is set up.
#[derive(Clone, Debug)]
pub struct LotusConfig {
    /// The nodes, which stand in for each other; the first is preferred.
    pub endpoints: Vec<Endpoint>,
    /// How they are asked, and when they agree.
    pub rpc: RpcOptions,
    /// Who sends messages.
    pub senders: Senders,
    /// The most that messages may cost.
    pub limits: Limits,
    /// How often the head is asked for at a node that does not tell of it by itself.
    pub poll_every: Duration,
    /// After so long without news of the head a node that tells of it by itself is asked for it.
    pub silence: Duration,
    /// Where the progress of messages is reported.
    pub events: Arc<dyn EventSink>,
}

impl LotusConfig {
    /// The usual set-up: the head is polled every second where it must be, and nothing is reported.
    pub fn new(endpoint: Endpoint, senders: Senders) -> Self {
        Self::with_endpoints(vec![endpoint], senders)
    }

    /// [`LotusConfig::new`] with several nodes that stand in for each other. [`Endpoint::parse_list`] reads them from
    /// what stands in `FULLNODE_API_INFO`.
    pub fn with_endpoints(endpoints: Vec<Endpoint>, senders: Senders) -> Self {
        Self {
            endpoints,
            rpc: RpcOptions::default(),
            senders,
            limits: Limits::default(),
            poll_every: Duration::from_secs(1),
            silence: Duration::from_secs(20),
            events: Arc::new(NullSink),
        }
    }
}
