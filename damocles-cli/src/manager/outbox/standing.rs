//! What the one that sends for a home goes by: the daemon that runs there, else the command itself.

use super::{Asked, Shelf, rpc::Daemon};
use crate::{
    exit::{Exit, Failure},
    manager::{chain, desk::Desk, signer::Keys},
};
use anyhow::anyhow;
use damocles_chain::{Fees, Lanes, Senders};
use damocles_core::{
    Address, Network, TokenAmount,
    chain::{Call, CallKind},
};
use serde::{Deserialize, Serialize};

/// What whoever sends goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::manager) struct Standing {
    /// The network that a daemon sends to; none where no daemon runs.
    pub(in crate::manager) network: Option<String>,
    /// Who sends what.
    pub(in crate::manager) senders: Senders,
    /// What is paid for it.
    pub(in crate::manager) fees: Fees,
}

impl Standing {
    /// The daemon's, if one runs, else that of the configuration. A wallet is opened only where no default sender is named.
    ///
    /// # Errors
    ///
    /// The daemon does not answer or is on another network than the node of the configuration, or no sender is known.
    pub(in crate::manager) async fn of(desk: &Desk<'_>) -> Result<Self, Failure> {
        let Desk { config, home, network, .. } = desk;
        if let Some(theirs) = Daemon::of(home)?.standing().await? {
            theirs.admits(network)?;
            return Ok(theirs);
        }
        let keys = if config.senders.default.is_some() { Keys::none() } else { Keys::to_send(config, home)? };
        Ok(Self { network: None, senders: chain::senders(config, &keys).await?, fees: config.fees.clone() })
    }

    /// Who sends a call that is begun now. Without a daemon that is foretold from the names alone: a wallet is unlocked
    /// and the outbox taken only once it was agreed to.
    ///
    /// # Errors
    ///
    /// The daemon does not answer, nobody can send it, or the database or the node cannot be read.
    pub(in crate::manager) async fn sender(&self, desk: &Desk<'_>, asked: &Asked) -> Result<Address, Failure> {
        if self.network.is_some() {
            return Daemon::of(desk.home)?.call("MessageSender", &(asked,)).await;
        }
        let key = Shelf::open(&desk.config, desk.home).await?.next(asked).await?;
        Ok(keys_of(desk, &self.senders).await?.pick_plain(&key, asked.call())?)
    }

    /// Refuses a daemon that sends to another network than the one that was looked at.
    fn admits(&self, here: &Network) -> Result<(), Failure> {
        let Some(told) = &self.network else { return Ok(()) };
        if told.parse::<Network>().is_ok_and(|theirs| theirs == *here) {
            return Ok(());
        }
        let error = anyhow!("the daemon of this home is on network `{told}`, and the node of manager.toml on `{here}`");
        Err(Failure::new(Exit::Usage, error)
            .hint("start the daemon again with this manager.toml, or name a node of its network; nothing was sent"))
    }

    /// The most that a call may cost in fees, whoever replaces its message by a dearer one.
    ///
    /// # Errors
    ///
    /// The node does not know a sender.
    pub(in crate::manager) async fn most(&self, desk: &Desk<'_>, call: &Call, from: &Address) -> Result<Most, Failure> {
        let plain = |address: &Address| address.as_str().get(1..).map(str::to_owned);
        let senders = keys_of(desk, &self.senders).await?;
        let posts = senders.post.as_ref().unwrap_or(&senders.default).all();
        Ok(Most::of(&self.fees, call.kind(), posts.iter().any(|address| plain(address) == plain(from))))
    }
}

/// The senders as our outbox has them: by the addresses of their keys, from which follows who of several sends a call. A
/// messager takes the names as they are.
async fn keys_of(desk: &Desk<'_>, senders: &Senders) -> Result<Senders, Failure> {
    let mut keys = senders.clone();
    if desk.config.venus.is_some() {
        return Ok(keys);
    }
    let Senders { default, post, commit, create_miner } = &mut keys;
    for lanes in std::iter::once(default).chain([post, commit, create_miner].into_iter().flatten()) {
        let mut all = Vec::new();
        for address in lanes.all() {
            all.push(match address.actor_id() {
                Some(_) => desk.node.account_key(&desk.head, address).await?,
                None => address.clone(),
            });
        }
        *lanes = Lanes::new(all)?;
    }
    Ok(keys)
}

/// The most that a message may pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(in crate::manager) struct Most {
    /// What its class may.
    pub(in crate::manager) class: TokenAmount,
    /// What it may as long as a proof of spacetime waits behind it, if one can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::manager) before_proof: Option<TokenAmount>,
}

impl Most {
    /// That of a class; `posts` says whether its sender sends proofs of spacetime too.
    pub(in crate::manager) fn of(fees: &Fees, kind: CallKind, posts: bool) -> Self {
        let (class, proof) = (fees.policy(kind).max_fee, fees.policy(CallKind::PoSt).max_fee);
        Self { class, before_proof: (posts && proof > class).then_some(proof) }
    }
}

impl std::fmt::Display for Most {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "never more than {}", self.class)?;
        match self.before_proof {
            Some(proof) => write!(f, ", or {proof} while a proof of spacetime of the same sender waits behind it"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_another_network_is_refused_in_both_spellings() {
        let senders = Senders::all("t0101".parse().unwrap());
        let of = |network: &str| Standing {
            network: Some(network.to_owned()),
            senders: senders.clone(),
            fees: Fees::default(),
        };
        of("testnetnet").admits(&Network::Mainnet).unwrap();
        let failure = of("calibrationnet").admits(&Network::Mainnet).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(crate::exit::render(&failure).contains("`calibrationnet`"), "{failure:?}");
    }

    #[test]
    fn the_most_is_that_of_the_class_or_of_the_proof_behind_it() {
        let fees = Fees::default();
        let alone = Most::of(&fees, CallKind::Other, false);
        assert_eq!(alone.to_string(), "never more than 0.5 FIL");
        let before = Most::of(&fees, CallKind::Other, true).to_string();
        assert!(before.starts_with("never more than 0.5 FIL, or 10 FIL while a proof"), "{before}");
        assert_eq!(Most::of(&fees, CallKind::PoSt, true).before_proof, None);
    }
}
