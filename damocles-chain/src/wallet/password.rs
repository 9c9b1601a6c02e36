//! Passwords.

use super::{WalletError, WalletErrorKind};
use std::fmt;
use zeroize::Zeroizing;

const SHORTEST: usize = 8;

/// A password; wiped from memory when dropped and never shown.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// A password as it was given.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The first line of a password file; the rest must be empty.
    ///
    /// # Errors
    ///
    /// The file has no line, or several.
    pub fn from_file_text(text: &str) -> Result<Self, WalletError> {
        let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        if line.is_empty() || line.contains(['\n', '\r']) {
            return Err(WalletError::new(WalletErrorKind::WeakPassword, "read password")
                .with("what", "a password file has one line"));
        }
        Ok(Self::new(line))
    }

    pub(super) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// For new passwords only: one that was set earlier must open its wallet all the same.
    pub(super) fn check_strength(&self) -> Result<(), WalletError> {
        if self.0.chars().count() < SHORTEST {
            return Err(WalletError::new(WalletErrorKind::WeakPassword, "set password")
                .with("least", format_args!("{SHORTEST} characters")));
        }
        Ok(())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_line() {
        for text in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            assert_eq!(Password::from_file_text(text).unwrap().expose(), b"correct horse");
        }
        for bad in ["", "\n", "a\nb", "a\n\n"] {
            assert!(Password::from_file_text(bad).is_err(), "{bad:?}");
        }
        assert_eq!(format!("{:?}", Password::new("secret")), "Password(..)");
        assert!(Password::new("1234567").check_strength().is_err());
    }
}
