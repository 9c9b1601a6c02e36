//! Ctrl-C and SIGTERM: the first drains, the second stops children, the third aborts.

use crate::output;
use damocles_core::CancellationToken;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the process is told to end. `stop` never fires before `drain`.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take nothing new; what runs may end.
    pub drain: CancellationToken,
    /// Stop what runs; everything durable is in the journal.
    pub stop: CancellationToken,
}

impl Shutdown {
    /// A shutdown that no signal triggers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next step, as a signal would, and says what it was.
    pub fn advance(&self) -> Step {
        if !self.drain.is_cancelled() {
            self.drain.cancel();
            Step::Drain
        } else if !self.stop.is_cancelled() {
            self.stop.cancel();
            Step::Stop
        } else {
            Step::Abort
        }
    }
}

/// One step of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing new is taken.
    Drain,
    /// Running work is stopped.
    Stop,
    /// The process dies at once.
    Abort,
}

impl Step {
    fn says(self) -> &'static str {
        match self {
            Self::Drain => "draining: running work is finished, nothing new is taken (once more: stop the children)",
            Self::Stop => "stopping children; sectors go on from their journals at the next start (once more: abort)",
            Self::Abort => "aborted",
        }
    }
}

/// Listens for Ctrl-C and SIGTERM from now on. Call it once, inside the runtime.
///
/// # Errors
///
/// The kernel refuses the handlers.
pub fn install() -> io::Result<Shutdown> {
    let shutdown = Shutdown::new();
    let interrupt = signal(SignalKind::interrupt())?;
    let terminate = signal(SignalKind::terminate())?;
    tokio::spawn(listen(shutdown.clone(), interrupt, terminate));
    Ok(shutdown)
}

/// SIGHUP from now on, by which an operator asks for the configuration to be read again. It ends nothing any more: a
/// daemon that outlives its terminal goes on.
///
/// # Errors
///
/// The kernel refuses the handler.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

async fn listen(shutdown: Shutdown, mut interrupt: Signal, mut terminate: Signal) {
    loop {
        let received = tokio::select! {
            received = interrupt.recv() => received,
            received = terminate.recv() => received,
        };
        if received.is_none() {
            return;
        }
        let step = shutdown.advance();
        output::line(step.says());
        if step == Step::Abort {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_in_order() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.advance(), Step::Drain);
        assert!(shutdown.drain.is_cancelled() && !shutdown.stop.is_cancelled());
        assert_eq!(shutdown.advance(), Step::Stop);
        assert!(shutdown.stop.is_cancelled());
        assert_eq!(shutdown.advance(), Step::Abort);
    }
}
