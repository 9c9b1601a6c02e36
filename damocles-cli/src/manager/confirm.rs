//! Asking before money moves or keys change.

use crate::{
    exit::{Exit, Failure},
    output::Printer,
};
use anyhow::anyhow;
use clap::Args;
use damocles_core::Context;
use std::io::{BufRead as _, IsTerminal as _};
use tokio::sync::oneshot;

/// Whether an operator was asked already, or a call is only tried out.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Consent {
    /// Whether it is asked.
    #[command(flatten)]
    pub agreed: Agreed,
    /// Send nothing: show what the node predicts and what it would cost; the exit code is 1 if it would be refused
    #[arg(long, conflicts_with = "really_do_it")]
    pub simulate: bool,
}

impl Consent {
    /// Somebody agreed.
    pub const GIVEN: Self = Self { agreed: Agreed { really_do_it: true }, simulate: false };

    /// As [`Agreed::possible`]; what is only tried out needs nobody's consent.
    ///
    /// # Errors
    ///
    /// As [`Agreed::possible`].
    pub(super) fn possible(self) -> Result<(), Failure> {
        if self.simulate { Ok(()) } else { self.agreed.possible() }
    }
}

/// Whether an operator was asked already.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Agreed {
    /// Do it without asking; without this switch and without a terminal nothing is done
    #[arg(long)]
    pub really_do_it: bool,
}

impl Agreed {
    /// Refuses at once where nobody can be asked.
    ///
    /// # Errors
    ///
    /// There is neither the switch nor a terminal.
    pub(super) fn possible(self) -> Result<(), Failure> {
        if self.really_do_it || std::io::stdin().is_terminal() {
            return Ok(());
        }
        Err(Failure::usage("this moves money or changes keys, and there is no terminal to ask on")
            .hint("add --really-do-it to do it without being asked"))
    }

    /// Says what will be done and asks, unless the switch is there.
    ///
    /// # Errors
    ///
    /// The operator does not want it, or the command was cancelled meanwhile: an answer counts no more then.
    pub(super) async fn ask(self, printer: Printer, plan: &str, cx: &Context) -> Result<(), Failure> {
        if self.really_do_it {
            printer.note(plan);
            return Ok(());
        }
        self.possible()?;
        printer.prompt(&format!("{plan}\nDo it? [y/N] "))?;
        let agreed = match cx.cancel.run_until_cancelled(line()).await {
            Some(answer) => is_yes(&answer?),
            None => false,
        };
        if agreed && !cx.cancel.is_cancelled() {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, anyhow!("nothing was done")))
    }
}

/// A line of the terminal. Its thread is left to itself where nobody waits for it any more: reading cannot be broken off.
async fn line() -> Result<String, Failure> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("prompt".to_owned()).spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let _ = tell.send(read.map(|_| line));
    })?;
    let ended = || Failure::new(Exit::Failed, anyhow!("the terminal is gone"));
    Ok(told.await.map_err(|_| ended())??)
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (answer, yes) in [("y\n", true), ("Yes\n", true), ("\n", false), ("", false), ("n\n", false), ("yy", false)]
        {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
        assert!(Consent::GIVEN.possible().is_ok());
    }
}
