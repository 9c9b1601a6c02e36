//! How a Venus client is set up.

use super::{
    gateway::{GatewayConfig, GatewayLink},
    messager::MessagerConfig,
};
use crate::{
    outbox::{Limits, Senders},
    rpc::Endpoint,
};
use damocles_core::{
    EventSink, NullSink, TokenAmount,
    chain::{CallKind, ChainError},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// How messages of one class are priced. Zero means what the messager is set to for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageFees {
    /// The gas limit as a multiple of the estimate.
    pub gas_over_estimation: f64,
    /// The premium as a multiple of the estimate.
    pub gas_over_premium: f64,
    /// The most that a message's gas may cost.
    pub max_fee: TokenAmount,
}

impl MessageFees {
    /// The messager's own estimates, up to so much.
    pub const fn up_to(max_fee: TokenAmount) -> Self {
        Self { gas_over_estimation: 0.0, gas_over_premium: 0.0, max_fee }
    }

    /// Whether every number is one that a messager can work with.
    pub(super) fn are_sane(&self) -> bool {
        let factor = |f: f64| f.is_finite() && (0.0..=100.0).contains(&f);
        factor(self.gas_over_estimation) && factor(self.gas_over_premium) && self.max_fee >= TokenAmount::ZERO
    }
}

/// How messages are priced, by class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeesByClass {
    /// Making a miner.
    pub create_miner: MessageFees,
    /// Pre-commits.
    pub pre_commit: MessageFees,
    /// Prove-commits, updates and non-interactive commits.
    pub prove_commit: MessageFees,
    /// Proofs of spacetime, faults and recoveries.
    pub post: MessageFees,
    /// Terminations.
    pub terminate: MessageFees,
    /// Everything else.
    pub other: MessageFees,
}

impl Default for FeesByClass {
    /// The messager's own estimates, up to the limits that hold without a messager too.
    fn default() -> Self {
        let fees = Limits::default().fees;
        let of = |kind| MessageFees::up_to(fees.policy(kind).max_fee);
        Self {
            create_miner: of(CallKind::CreateMiner),
            pre_commit: of(CallKind::PreCommit),
            prove_commit: of(CallKind::ProveCommit),
            post: of(CallKind::PoSt),
            terminate: of(CallKind::Terminate),
            other: of(CallKind::Other),
        }
    }
}

impl FeesByClass {
    /// How a class is priced.
    pub const fn of(&self, kind: CallKind) -> MessageFees {
        match kind {
            CallKind::CreateMiner => self.create_miner,
            CallKind::PreCommit => self.pre_commit,
            CallKind::ProveCommit => self.prove_commit,
            CallKind::PoSt => self.post,
            CallKind::Terminate => self.terminate,
            _ => self.other,
        }
    }
}

/// How a [`VenusClient`](super::VenusClient) and what belongs to it are set up.
#[derive(Clone, Debug)]
pub struct VenusConfig {
    /// The node, with the token.
    pub chain: Endpoint,
    /// The messager, with the token.
    pub messager: MessagerConfig,
    /// The gateway, if this manager serves proofs or signatures to the cluster.
    pub gateway: Option<GatewayConfig>,
    /// Who sends messages. Their keys lie in a wallet that the gateway reaches.
    pub senders: Senders,
    /// How messages are priced.
    pub fees: FeesByClass,
    /// The most that is sent along: deposits and pledges.
    pub limits: Limits,
    /// How often the head is asked for at a node that does not tell of it by itself.
    pub poll_every: Duration,
    /// After so long without news of the head a node that tells of it by itself is asked for it.
    pub silence: Duration,
    /// Where the progress of messages is reported.
    pub events: Arc<dyn EventSink>,
}

impl VenusConfig {
    /// The usual set-up, without a gateway.
    pub fn new(chain: Endpoint, messager: Endpoint, senders: Senders) -> Self {
        Self {
            chain,
            messager: MessagerConfig::new(messager),
            gateway: None,
            senders,
            fees: FeesByClass::default(),
            limits: Limits::default(),
            poll_every: Duration::from_secs(1),
            silence: Duration::from_secs(20),
            events: Arc::new(NullSink),
        }
    }

    /// Serves proofs or signatures through a gateway.
    #[must_use]
    pub fn with_gateway(mut self, gateway: Endpoint) -> Self {
        self.gateway = Some(GatewayConfig::new(gateway));
        self
    }

    /// The gateway, if one is named. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The token cannot be a header, or TLS cannot be set up.
    pub fn gateway_link(&self) -> Result<Option<Arc<GatewayLink>>, ChainError> {
        self.gateway.clone().map(GatewayLink::new).transpose()
    }

    /// Uses one token of sophon-auth for everything, as clusters usually do.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.chain = self.chain.with_token(token);
        self.messager.endpoint = self.messager.endpoint.with_token(token);
        self.gateway = self
            .gateway
            .map(|gateway| GatewayConfig { endpoint: gateway.endpoint.clone().with_token(token), ..gateway });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_for_all_and_shown_nowhere() {
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        let senders = Senders::all("t0100".parse().unwrap());
        let config = VenusConfig::new(endpoint("http://a:1"), endpoint("http://b:2"), senders)
            .with_gateway(endpoint("ws://c:3"))
            .with_token("sesame");
        let gateway = config.gateway.clone().unwrap();
        assert!(config.gateway_link().unwrap().is_some());
        for endpoint in [&config.chain, &config.messager.endpoint, &gateway.endpoint] {
            assert!(*endpoint == endpoint.clone().with_token("sesame"), "{endpoint}");
        }
        assert!(!format!("{config:?}").contains("sesame"));
    }

    #[test]
    fn fees_of_every_class_and_their_bounds() {
        let fees = FeesByClass { post: MessageFees::up_to(TokenAmount::from_fil(9)), ..FeesByClass::default() };
        assert_eq!(fees.of(CallKind::PoSt).max_fee, TokenAmount::from_fil(9));
        assert_eq!(fees.of(CallKind::CreateMiner).max_fee, Limits::default().fees.create_miner.max_fee);
        assert!(CallKind::ALL.iter().all(|kind| fees.of(*kind).are_sane()));
        for bad in [f64::NAN, f64::INFINITY, -1.0, 101.0] {
            assert!(!MessageFees { gas_over_estimation: bad, ..fees.post }.are_sane(), "{bad}");
            assert!(!MessageFees { gas_over_premium: bad, ..fees.post }.are_sane(), "{bad}");
        }
        assert!(!MessageFees::up_to(TokenAmount::from_atto(-1)).are_sane());
    }
}
