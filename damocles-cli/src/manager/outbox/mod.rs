//! The outbox of a home, whoever runs it: the daemon, or the command itself. Two processes never run one outbox: the
//! lock of the database says who does, and a command that does not get it asks the daemon by its socket.

mod begin;
mod entry;
mod here;
mod rpc;
mod shelf;
mod standing;

pub(super) use begin::{Asked, Begun, Earlier};
pub(super) use entry::{AtMessager, Entry};
pub(super) use here::Here;
pub(super) use rpc::{OperatorRpc, socket};
pub(super) use shelf::Shelf;
pub(super) use standing::{Most, Standing};

use super::{chain, signer::Keys};
use crate::{
    config::{ManagerConfig, manager::Home},
    database::Database,
    exit::{Exit, Failure},
    server::ServerError,
};
use anyhow::anyhow;
use damocles_chain::{Replacement, rpc::RpcMetrics};
use damocles_core::{
    Address, Context,
    chain::{MessageId, MessageState, Receipt},
};
use here::Wake;
use rpc::Daemon;
use std::sync::Arc;

/// The outbox of a home.
#[derive(Debug)]
pub(super) struct Outbox {
    way: Way,
    confidence: i64,
}

#[derive(Debug)]
enum Way {
    Here(Box<Here>),
    Daemon(Daemon),
}

impl Outbox {
    /// Takes the outbox, or finds the daemon that has it. A wallet that is a file is unlocked only in the first case.
    ///
    /// # Errors
    ///
    /// The keys or the database cannot be used, the node is on another network, or another command has the outbox.
    pub(super) async fn open(config: &ManagerConfig, home: &Home) -> Result<Self, Failure> {
        let confidence = i64::from(config.commitment.confidence);
        let way = match Database::open_if_free(&home.database()).await? {
            Some(database) => Way::Here(Box::new(here(config, home, database).await?)),
            None => Way::Daemon(Daemon::of(home)?),
        };
        Ok(Self { way, confidence })
    }

    /// Whether a daemon runs it.
    pub(super) fn is_daemons(&self) -> bool {
        matches!(self.way, Way::Daemon(_))
    }

    /// Records a call under the first key of it whose end no command has reported: one that was begun by a command that
    /// did not see its end is taken up again, and nothing is sent twice.
    ///
    /// # Errors
    ///
    /// The call cannot be sent, or somebody else than `from` would send it.
    pub(super) async fn begin(&self, asked: &Asked, from: &Address) -> Result<Begun, Failure> {
        match &self.way {
            Way::Here(here) => here.begin(asked, from).await,
            Way::Daemon(daemon) => daemon.call("BeginMessage", &(asked, from)).await,
        }
    }

    /// Notes that the operator knows how a call ended: the next one like it is a new one.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub(super) async fn told(&self, id: &MessageId) -> Result<(), Failure> {
        match &self.way {
            Way::Here(here) => here.told(id).await,
            Way::Daemon(daemon) => daemon.call("MessageTold", &(id,)).await,
        }
    }

    /// Waits until a call has landed with the confidence of the configuration. That it never will is told by that.
    ///
    /// # Errors
    ///
    /// It never will, or the command was cancelled.
    pub(super) async fn landed(&self, id: &MessageId, cx: &Context) -> Result<Receipt, Failure> {
        let ended = match &self.way {
            Way::Here(here) => here.ended(id, self.confidence, cx).await?,
            Way::Daemon(daemon) => {
                cx.cancel.run_until_cancelled(daemon.ended(id, self.confidence)).await.transpose()?
            }
        };
        match ended {
            Some(MessageState::Landed(receipt)) => Ok(receipt),
            Some(MessageState::Dropped { reason }) => {
                self.told(id).await?;
                let error = anyhow!("message {id} will never land: {reason}");
                Err(Failure::new(Exit::Parked, error).hint("the same command makes a new one"))
            }
            _ => Err(Failure::new(Exit::Retryable, anyhow!("cancelled before message {id} had landed"))
                .hint(format!("`damocles-manager message wait {id}` waits on"))),
        }
    }

    /// One call.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub(super) async fn entry(&self, id: &MessageId) -> Result<Entry, Failure> {
        match &self.way {
            Way::Here(here) => here.chain().entry(id).await,
            Way::Daemon(daemon) => daemon.call("ShowMessage", &(id,)).await,
        }
    }

    /// Replaces the message of a call by a dearer one.
    ///
    /// # Errors
    ///
    /// There is none on its way, or no node would take the new one.
    pub(super) async fn replace(&self, id: &MessageId, by: Replacement, cx: &Context) -> Result<Entry, Failure> {
        match &self.way {
            Way::Here(here) => here.replace(id, by, cx).await,
            Way::Daemon(daemon) => daemon.call("ReplaceMessage", &(id, by)).await,
        }
    }

    /// Gives a call up.
    ///
    /// # Errors
    ///
    /// There is none on its way.
    pub(super) async fn cancel(&self, id: &MessageId, cx: &Context) -> Result<Entry, Failure> {
        match &self.way {
            Way::Here(here) => here.cancel(id, cx).await,
            Way::Daemon(daemon) => daemon.call("CancelMessage", &(id,)).await,
        }
    }
}

async fn here(config: &ManagerConfig, home: &Home, database: Database) -> Result<Here, Failure> {
    let keys = Keys::to_send(config, home)?;
    let senders = chain::senders(config, &keys).await?;
    let wake = Arc::new(Wake::default());
    let client = chain::connect(config, home, &keys, database.pool.clone(), wake.clone()).await?;
    chain::admit(config, &keys, &client.network_name().await?)?;
    Here::new(client, wake, senders, database).await
}

/// Whether a daemon answers for a home, even if only that it is starting.
pub(super) async fn is_served(home: &Home) -> bool {
    match Daemon::of(home) {
        Ok(daemon) => !matches!(daemon.standing().await, Ok(None)),
        Err(_) => false,
    }
}

/// What the daemon of a home asked its nodes so far.
///
/// # Errors
///
/// No daemon runs, or it does not count.
pub(super) async fn daemon_metrics(home: &Home) -> Result<RpcMetrics, Failure> {
    let asked = Daemon::of(home)?.call("ChainMetrics", &[(); 0]).await;
    asked.map_err(|failure| Failure {
        hint: Some("requests are counted by a daemon while it runs: start it with `daemon run`".to_owned())
            .filter(|_| failure.exit == Exit::Retryable)
            .or(failure.hint),
        ..failure
    })
}

/// What is said when the outbox is taken, and nobody answers for it.
fn busy(error: ServerError) -> Failure {
    if matches!(error, ServerError::Unreachable { .. } | ServerError::Silent { .. }) {
        let failure = Failure::new(
            Exit::Retryable,
            anyhow::Error::new(error).context("another process has the outbox of this home"),
        );
        return Failure { hint: None, ..failure }.hint(
            "a command that waits for its message has it, or a daemon that is just starting or very busy; try again when it is done",
        );
    }
    Failure::from(error)
}
