//! Asking before money moves or keys change.

use crate::{
    exit::{Exit, Failure},
    output::Printer,
};
use anyhow::anyhow;
use clap::Args;
use std::io::{BufRead as _, IsTerminal as _};

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
    /// The operator does not want it.
    pub(super) fn ask(self, printer: Printer, plan: &str) -> Result<(), Failure> {
        if self.really_do_it {
            printer.note(plan);
            return Ok(());
        }
        self.possible()?;
        printer.prompt(&format!("{plan}\nDo it? [y/N] "))?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if is_yes(&answer) { Ok(()) } else { Err(Failure::new(Exit::Failed, anyhow!("nothing was done"))) }
    }
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
