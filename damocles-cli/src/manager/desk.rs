//! What commands that look at the chain share: the node, the network and how it spells things.

use super::chain;
use crate::{
    config::{ManagerConfig, manager::Home},
    exit::{Exit, Failure},
    output::Printer,
};
use anyhow::anyhow;
use damocles_chain::Operator;
use damocles_core::{ActorId, Address, Context, Epoch, EpochTimes, Network, chain::TipsetRef};
use serde::Serialize;
use std::fmt;

/// The chain as the node of this home shows it at one head.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) home: &'a Home,
    pub(super) printer: Printer,
    pub(super) config: ManagerConfig,
    pub(super) node: Operator,
    pub(super) head: TipsetRef,
    pub(super) network: Network,
    pub(super) cx: Context,
    times: EpochTimes,
}

/// An epoch and when it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct When {
    pub(super) epoch: Epoch,
    pub(super) time: String,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.epoch, self.time)
    }
}

pub(super) use crate::output::time_text;

impl<'a> Desk<'a> {
    /// Asks the node that the configuration names.
    pub(super) async fn open(home: &'a Home, printer: Printer, cx: &Context) -> Result<Self, Failure> {
        let config = ManagerConfig::load(home.config())?;
        Self::with(config, home, printer, cx).await
    }

    /// Asks the node that this configuration names.
    pub(super) async fn with(
        config: ManagerConfig,
        home: &'a Home,
        printer: Printer,
        cx: &Context,
    ) -> Result<Self, Failure> {
        let node = Operator::with_endpoints(chain::endpoints(&config, home)?)?;
        let head = node.head().await.map_err(|e| {
            Failure::from(e).hint("is the node running, and are `chain.endpoint` and its token in manager.toml right?")
        })?;
        let network = chain::admit_network(&config, &node.network(&head).await?.name, &node.endpoint())?;
        let times = node.times().await?;
        Ok(Self { home, printer, config, node, head, network, cx: cx.clone(), times })
    }

    /// The miner that is named, else the only one of the configuration.
    pub(super) fn miner(&self, named: Option<ActorId>) -> Result<ActorId, Failure> {
        if let Some(named) = named {
            return Ok(named);
        }
        let mut all = self.config.miners.iter().map(|section| section.actor);
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(Failure::usage("manager.toml has no miner").hint("name one with --miner, e.g. t01000")),
            (Some(_), Some(_)) => Err(Failure::usage("manager.toml has several miners").hint("name one with --miner")),
        }
    }

    /// An address as this network writes it.
    pub(super) fn spell(&self, address: &Address) -> Address {
        self.network.spell(address).parse().unwrap_or_else(|_| address.clone())
    }

    /// A miner as this network writes it.
    pub(super) fn name(&self, miner: ActorId) -> Address {
        self.spell(&Address::from_actor(miner))
    }

    /// An epoch with its time.
    pub(super) fn when(&self, epoch: Epoch) -> When {
        When { epoch, time: time_text(self.times.time_of(epoch)) }
    }

    /// The account's ID.
    pub(super) async fn id_of(&self, address: &Address) -> Result<ActorId, Failure> {
        let found = self.node.lookup_id(&self.head, address).await?;
        found.ok_or_else(|| {
            Failure::new(Exit::Failed, anyhow!("{address} is not on chain yet"))
                .hint("send it some FIL first: an account is made by what it receives")
        })
    }
}

/// Reads `t01000`, `f01000` or `1000`.
pub(super) fn parse_miner(text: &str) -> Result<ActorId, String> {
    let digits = text.strip_prefix("t0").or_else(|| text.strip_prefix("f0")).unwrap_or(text);
    digits.parse().map(ActorId).map_err(|_| "write a miner as t01000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::Timestamp;

    #[test]
    fn miners_and_times_are_read_and_written() {
        for text in ["t01000", "f01000", "1000"] {
            assert_eq!(parse_miner(text), Ok(ActorId(1000)));
        }
        for bad in ["", "t1abc", "t0", "-1", "x01000"] {
            assert!(parse_miner(bad).is_err(), "{bad}");
        }
        assert_eq!(time_text(Timestamp(1_779_890_400_000)), "2026-05-27T14:00:00Z");
        assert_eq!(time_text(Timestamp(i64::MIN)), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(Timestamp(i64::MAX)), "9999-12-31T23:59:59Z");
    }
}
