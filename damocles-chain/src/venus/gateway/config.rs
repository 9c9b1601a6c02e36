//! Where the gateway is.

use crate::rpc::Endpoint;
use std::time::Duration;

/// Where the gateway is, and how long it is given.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Its endpoint with the token; without a path it means `/rpc/v2`.
    pub endpoint: Endpoint,
    /// How long a call may take.
    pub timeout: Duration,
    /// How long the gateway may take, after a subscription, to say that it is ready.
    pub ready_within: Duration,
    /// How long a winning proof may take. A block that comes later is an orphan.
    pub prove_within: Duration,
    /// How long a signature may take.
    pub sign_within: Duration,
}

impl GatewayConfig {
    /// The usual set-up: a winning proof within an epoch of 30 seconds.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            timeout: Duration::from_secs(30),
            ready_within: Duration::from_secs(60),
            prove_within: Duration::from_secs(30),
            sign_within: Duration::from_secs(20),
        }
    }
}
