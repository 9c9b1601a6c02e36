//! How a command ends: exit codes, and the error that carries one together with a hint.

use damocles_core::{Error, Kind, Recovery};
use std::{error::Error as StdError, fmt, io::Write as _, process::ExitCode};

/// What the exit code of both programs says. The numbers are part of their interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// It failed, and the same call will fail again until something is changed.
    Failed = 1,
    /// The arguments or a configuration file cannot be used.
    Usage = 2,
    /// Something was left where it is until an operator acts.
    Parked = 10,
    /// Our own state is proven to be inconsistent.
    Halted = 70,
    /// It failed, and the same call may succeed later.
    Retryable = 75,
}

impl Exit {
    /// The failure of this number.
    pub fn of(code: u64) -> Option<Self> {
        let all = [Self::Failed, Self::Usage, Self::Parked, Self::Halted, Self::Retryable];
        all.into_iter().find(|exit| *exit as u64 == code)
    }
}

impl From<Recovery> for Exit {
    fn from(recovery: Recovery) -> Self {
        match recovery {
            Recovery::Retry { .. } => Self::Retryable,
            Recovery::Park => Self::Parked,
            Recovery::Abandon => Self::Failed,
            Recovery::Halt => Self::Halted,
            // `Recovery` may grow: an unknown remedy is an operator's matter.
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failed command: what happened, what an operator can do about it, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// What happened, with its causes.
    pub error: anyhow::Error,
    /// How the process ends.
    pub exit: Exit,
    /// What an operator can do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that ends with `exit`.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, ..Self::from(error.into()) }
    }

    /// Arguments or configuration that cannot be used.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { error: anyhow::anyhow!("{message}"), exit: Exit::Usage, hint: None }
    }

    /// The end of a command whose reader went away: silent, and no failure.
    pub fn reader_gone(error: std::io::Error) -> Self {
        Self { error: error.into(), exit: Exit::Ok, hint: None }
    }

    /// Says what an operator can do about it, unless that is known already.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Says what was being done when it happened.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.error = self.error.context(doing.to_string());
        self
    }
}

impl<K: Kind> From<Error<K>> for Failure {
    fn from(error: Error<K>) -> Self {
        let exit = Exit::from(error.recovery());
        let hint = error.hint().map(str::to_owned);
        Self { error: error.into(), exit, hint }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let advice = error.chain().find_map(Advice::of).unwrap_or_default();
        Self { error, exit: advice.exit.unwrap_or(Exit::Failed), hint: advice.hint }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::from(anyhow::Error::from(error))
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::from(anyhow::Error::from(error))
    }
}

impl From<crate::server::ServerError> for Failure {
    fn from(error: crate::server::ServerError) -> Self {
        Self::from(anyhow::Error::from(error))
    }
}

/// Exit code and hint of one error in a chain of causes, if it is of a type that has them.
#[derive(Default)]
struct Advice {
    exit: Option<Exit>,
    hint: Option<String>,
}

impl Advice {
    fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        use crate::{config::ConfigError, server::ServerError};
        use damocles_core::{
            allocator::AllocErrorKind, chain::ChainErrorKind, pipeline::SealErrorKind, pool::PoolErrorKind,
            post::PoStErrorKind, verify::VerifyErrorKind,
        };
        if let Some(error) = error.downcast_ref::<ConfigError>() {
            return Some(Self { exit: Some(Exit::Usage), hint: error.hint().map(str::to_owned) });
        }
        if let Some(error) = error.downcast_ref::<ServerError>() {
            return Some(Self { exit: Some(error.exit()), hint: error.hint() });
        }
        if let Some(error) = error.downcast_ref::<damocles_seal::params::ParamsError>() {
            return Some(Self { exit: None, hint: error.hint().map(str::to_owned) });
        }
        Self::of_kind::<AllocErrorKind>(error)
            .or_else(|| Self::of_kind::<ChainErrorKind>(error))
            .or_else(|| Self::of_kind::<SealErrorKind>(error))
            .or_else(|| Self::of_kind::<PoolErrorKind>(error))
            .or_else(|| Self::of_kind::<PoStErrorKind>(error))
            .or_else(|| Self::of_kind::<VerifyErrorKind>(error))
            .or_else(|| Self::of_kind::<damocles_seal::service::ServiceErrorKind>(error))
            .or_else(|| Self::of_kind::<damocles_seal::store::StoreErrorKind>(error))
            .or_else(|| Self::of_kind::<damocles_seal::placement::PlacementErrorKind>(error))
            .or_else(|| Self::of_kind::<damocles_chain::signer::SignerErrorKind>(error))
            .or_else(|| Self::of_kind::<damocles_chain::wallet::WalletErrorKind>(error))
            .or_else(|| Self::of_kind::<damocles_chain::devnet::DevnetErrorKind>(error))
    }

    fn of_kind<K: Kind>(error: &(dyn StdError + 'static)) -> Option<Self> {
        let error = error.downcast_ref::<Error<K>>()?;
        Some(Self { exit: Some(error.recovery().into()), hint: error.hint().map(str::to_owned) })
    }
}

/// The failure as an operator reads it: the error, its causes from the outermost on, and the hint.
pub fn render(failure: &Failure) -> String {
    let mut text = format!("error: {}\n", failure.error);
    for cause in failure.error.chain().skip(1) {
        text.push_str("  caused by: ");
        text.push_str(&cause.to_string());
        text.push('\n');
    }
    if let Some(hint) = &failure.hint {
        text.push_str("hint: ");
        text.push_str(hint);
        text.push('\n');
    }
    text
}

/// Writes the failure to standard error. A failure whose exit code is [`Exit::Ok`] is silent.
pub fn report(failure: &Failure) {
    if failure.exit != Exit::Ok {
        // Nobody is left to tell when standard error itself is closed.
        let _ = std::io::stderr().lock().write_all(render(failure).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use damocles_core::pool::PoolErrorKind;

    #[test]
    fn every_recovery_has_its_exit_code() {
        for (recovery, exit) in [
            (Recovery::RETRY, Exit::Retryable),
            (Recovery::Park, Exit::Parked),
            (Recovery::Abandon, Exit::Failed),
            (Recovery::Halt, Exit::Halted),
        ] {
            assert_eq!(Exit::from(recovery), exit);
        }
    }

    #[test]
    fn a_buried_core_error_decides_exit_and_hint() {
        let inner = Error::new(PoolErrorKind::NoProcessor, "run job").with("kind", "pc9");
        let failure = Failure::from(Err::<(), _>(inner).context("seal sector s-t01000-1").unwrap_err());
        assert_eq!(failure.exit, Exit::Parked);
        insta::assert_snapshot!(render(&failure), @r"
        error: seal sector s-t01000-1
          caused by: run job: no processor is configured for this kind of task (kind: pc9)
        hint: add a [[processors.<kind>]] entry for it
        ");
    }

    #[test]
    fn a_core_error_converts_directly() {
        let failure = Failure::from(Error::new(PoolErrorKind::Start, "start").recover_by(Recovery::Halt));
        assert_eq!(failure.exit, Exit::Halted);
        assert_eq!(Failure::new(Exit::Usage, std::io::Error::other("x")).exit, Exit::Usage);
    }
}
