//! The outbox of a home, whoever runs it: the daemon, or the command itself. Two processes never run one outbox: the
//! lock of the database says who does, and a command that does not get it asks the daemon by its socket.

mod begin;
mod here;
mod rpc;

pub(super) use begin::Begun;
pub(super) use here::Here;
pub(super) use rpc::{OperatorRpc, socket};

use super::{chain, signer};
use crate::{
    config::{ManagerConfig, manager::Home},
    database::Database,
    exit::{Exit, Failure},
    server::ServerError,
};
use anyhow::anyhow;
use damocles_chain::{OutboxEntry, Replacement, Senders};
use damocles_core::{
    Context,
    chain::{Call, MessageId, MessageState, Receipt},
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
            Some(database) => {
                let signer = signer::open(config, home)?;
                let senders = chain::senders(config, signer.as_ref()).await?;
                let wake = Arc::new(Wake::default());
                let client = chain::connect(config, Arc::clone(&signer), database.pool.clone(), wake.clone()).await?;
                chain::admit(config, signer.as_ref(), &client.network_name().await?)?;
                Way::Here(Box::new(Here::new(client, wake, senders, database).await?))
            }
            None => Way::Daemon(Daemon::of(home)?),
        };
        Ok(Self { way, confidence })
    }

    /// Whether a daemon runs it.
    pub(super) fn is_daemons(&self) -> bool {
        matches!(self.way, Way::Daemon(_))
    }

    /// Who sends what.
    ///
    /// # Errors
    ///
    /// The daemon does not answer.
    pub(super) async fn senders(&self) -> Result<Senders, Failure> {
        match &self.way {
            Way::Here(here) => Ok(here.senders().clone()),
            Way::Daemon(daemon) => daemon.call("Senders", &[(); 0]).await,
        }
    }

    /// Records a call under the first key of `stem` whose end no command has reported: one that was begun by a command
    /// that did not see its end is taken up again, and nothing is sent twice.
    ///
    /// # Errors
    ///
    /// The call cannot be sent.
    pub(super) async fn begin(&self, stem: &str, call: &Call) -> Result<Begun, Failure> {
        match &self.way {
            Way::Here(here) => here.begin(stem, call).await,
            Way::Daemon(daemon) => daemon.call("BeginMessage", &(stem, call)).await,
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

    /// Waits until a call has landed with the confidence of the configuration.
    ///
    /// # Errors
    ///
    /// It never will, or the command was cancelled.
    pub(super) async fn landed(&self, id: &MessageId, cx: &Context) -> Result<Receipt, Failure> {
        let state = match &self.way {
            Way::Here(here) => return here.landed(id, self.confidence, cx).await,
            Way::Daemon(daemon) => cx.cancel.run_until_cancelled(daemon.ended(id, self.confidence)).await,
        };
        let stopped = |what: String| {
            Failure::new(Exit::Retryable, anyhow!(what)).hint(format!("`damocles-manager message wait {id}` waits on"))
        };
        match state.transpose()? {
            Some(MessageState::Landed(receipt)) => Ok(receipt),
            Some(MessageState::Dropped { reason }) => {
                Err(Failure::new(Exit::Parked, anyhow!("message {id} will never land: {reason}")))
            }
            _ => Err(stopped(format!("cancelled before message {id} had landed"))),
        }
    }

    /// All calls.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(super) async fn entries(&self) -> Result<Vec<OutboxEntry>, Failure> {
        match &self.way {
            Way::Here(here) => Ok(here.client().outbox().await?),
            Way::Daemon(daemon) => daemon.call("ListMessages", &[(); 0]).await,
        }
    }

    /// One call.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub(super) async fn entry(&self, id: &MessageId) -> Result<OutboxEntry, Failure> {
        match &self.way {
            Way::Here(here) => Ok(here.client().outbox_entry(id).await?),
            Way::Daemon(daemon) => daemon.call("ShowMessage", &(id,)).await,
        }
    }

    /// Replaces the message of a call by a dearer one.
    ///
    /// # Errors
    ///
    /// There is none on its way, or no node would take the new one.
    pub(super) async fn replace(&self, id: &MessageId, by: Replacement, cx: &Context) -> Result<OutboxEntry, Failure> {
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
    pub(super) async fn cancel(&self, id: &MessageId, cx: &Context) -> Result<OutboxEntry, Failure> {
        match &self.way {
            Way::Here(here) => here.cancel(id, cx).await,
            Way::Daemon(daemon) => daemon.call("CancelMessage", &(id,)).await,
        }
    }
}

/// What is said when the outbox is taken, and nobody answers for it.
fn busy(error: ServerError) -> Failure {
    if matches!(error, ServerError::Unreachable { .. }) {
        let failure = Failure::new(
            Exit::Retryable,
            anyhow::Error::new(error).context("another process has the outbox of this home"),
        );
        return Failure { hint: None, ..failure }.hint(
            "a command that waits for its message has it, or a daemon that is just starting; try again when it is done",
        );
    }
    Failure::from(error)
}
