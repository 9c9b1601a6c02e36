//! One error shape for every seam.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// A boxed cause.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What the caller should do about an error.
///
/// Every loop in the workspace decides on this and never on message text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recovery {
    /// The same call may succeed later; wait at least `after` if it is given.
    Retry {
        /// The delay that the other side asked for.
        after: Option<Duration>,
    },
    /// Leave the sector where it is until an operator acts.
    Park,
    /// The sector cannot be saved: release its resources.
    Abandon,
    /// Our own state is proven to be inconsistent: stop the process.
    Halt,
}

impl Recovery {
    /// A retry without a delay asked for by the other side.
    pub const RETRY: Self = Self::Retry { after: None };
}

/// The category of an error at one seam.
///
/// Kinds are what a caller can act on, not where an error came from.
pub trait Kind: Copy + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// The recovery that fits this kind unless the error says otherwise.
    fn recovery(self) -> Recovery;

    /// What an operator can do about it, if that follows from the kind alone.
    fn hint(self) -> Option<&'static str> {
        None
    }
}

/// An error with a kind, the operation that failed, and key-value context.
///
/// `Display` says what happened at this level only: the cause is in `source()`, the remedy in [`Error::hint`].
#[derive(Debug)]
pub struct Error<K> {
    kind: K,
    op: &'static str,
    context: Vec<(&'static str, String)>,
    recovery: Option<Recovery>,
    hint: Option<Cow<'static, str>>,
    source: Option<BoxError>,
}

impl<K: Kind> Error<K> {
    /// Creates an error of `kind`, raised by `op`.
    pub fn new(kind: K, op: &'static str) -> Self {
        Self { kind, op, context: Vec::new(), recovery: None, hint: None, source: None }
    }

    /// Adds one fact that helps an operator find the cause.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Overrides the kind's own recovery.
    #[must_use]
    pub fn recover_by(mut self, recovery: Recovery) -> Self {
        self.recovery = Some(recovery);
        self
    }

    /// Says what an operator can do about it.
    #[must_use]
    pub fn hint_with(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The category.
    pub fn kind(&self) -> K {
        self.kind
    }

    /// What to do about it.
    pub fn recovery(&self) -> Recovery {
        self.recovery.unwrap_or_else(|| self.kind.recovery())
    }

    /// What an operator can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| self.kind.hint())
    }

    /// This level and every cause below it on one line, for records that outlive the error.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl<K: Kind> fmt::Display for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.kind)?;
        for (i, (key, value)) in self.context.iter().enumerate() {
            let open = if i == 0 { " (" } else { ", " };
            write!(f, "{open}{key}: {value}")?;
        }
        if self.context.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl<K: Kind> StdError for Error<K> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::PoolErrorKind;

    #[test]
    fn display_holds_neither_cause_nor_remedy() {
        let error = Error::new(PoolErrorKind::Start, "start processor")
            .with("kind", "pc2")
            .with("slot", 3)
            .hint_with("check the path")
            .because(std::io::Error::other("no such file"));
        assert_eq!(error.to_string(), "start processor: the processor did not start (kind: pc2, slot: 3)");
        assert_eq!(error.source().unwrap().to_string(), "no such file");
        assert_eq!(error.hint(), Some("check the path"));
        assert!(error.chain().ends_with("slot: 3): no such file"));
    }

    #[test]
    fn an_override_beats_the_kind() {
        let error = Error::new(PoolErrorKind::Start, "x");
        assert_eq!(error.recovery(), Recovery::RETRY);
        assert_eq!(error.recover_by(Recovery::Halt).recovery(), Recovery::Halt);
    }
}
