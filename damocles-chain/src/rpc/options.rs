//! How a client asks.

use super::method::{Class, class_of};
use std::{collections::BTreeMap, time::Duration};

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// How an [`RpcClient`](super::RpcClient) asks.
#[derive(Clone, Debug)]
pub struct RpcOptions {
    /// How long each method may take.
    pub timeouts: Timeouts,
    /// The largest answer that is read, in bytes.
    pub max_answer: usize,
    /// When several endpoints agree.
    pub agreement: Agreement,
    /// How often several endpoints are compared.
    pub check_every: Duration,
    /// How many answers about final tipsets are kept; none if zero.
    pub cached: usize,
}

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            max_answer: MAX_ANSWER,
            agreement: Agreement::default(),
            check_every: Duration::from_secs(10),
            cached: 1024,
        }
    }
}

/// When several endpoints agree on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// A node whose head is more epochs behind the best than this lags.
    pub max_lag: i64,
    /// Two nodes whose chains differ so many epochs below the lower of their heads are on different forks. What is
    /// above is the ordinary coming and going of tipsets.
    pub fork_depth: i64,
}

impl Default for Agreement {
    fn default() -> Self {
        Self { max_lag: 5, fork_depth: 20 }
    }
}

/// How long an answer may take, by how much work it is for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// What a node knows by heart: its version, its head.
    pub quick: Duration,
    /// A look into the chain or its state.
    pub read: Duration,
    /// What makes a node run messages, walk the chain or go through whole tables.
    pub slow: Duration,
    /// A message on its way out, and a signature.
    pub push: Duration,
    /// What waits for the chain.
    pub wait: Duration,
    /// Methods with a limit of their own, by full name, e.g. `Filecoin.StateMinerSectors`.
    pub methods: BTreeMap<String, Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            quick: Duration::from_secs(15),
            read: Duration::from_secs(30),
            slow: Duration::from_secs(120),
            push: Duration::from_secs(30),
            wait: Duration::from_secs(3600),
            methods: BTreeMap::new(),
        }
    }
}

impl Timeouts {
    /// How long a method may take.
    pub fn of(&self, method: &str) -> Duration {
        if let Some(own) = self.methods.get(method) {
            return *own;
        }
        match class_of(method) {
            Class::Quick => self.quick,
            Class::Read => self.read,
            Class::Slow => self.slow,
            Class::Push => self.push,
            Class::Wait => self.wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_its_time() {
        let mut timeouts = Timeouts::default();
        timeouts.methods.insert("Filecoin.StateMinerInfo".to_owned(), Duration::from_millis(7));
        for (method, limit) in [
            ("Filecoin.ChainHead", timeouts.quick),
            ("Filecoin.StateSectorGetInfo", timeouts.read),
            ("Filecoin.StateSearchMsg", timeouts.slow),
            ("Filecoin.GasEstimateMessageGas", timeouts.slow),
            ("Filecoin.MpoolPush", timeouts.push),
            ("Filecoin.StateWaitMsg", timeouts.wait),
            ("Devnet.Mine", timeouts.read),
            ("Filecoin.StateMinerInfo", Duration::from_millis(7)),
        ] {
            assert_eq!(timeouts.of(method), limit, "{method}");
        }
    }
}
