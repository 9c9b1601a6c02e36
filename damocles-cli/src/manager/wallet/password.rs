//! Where passwords come from: a file, an environment variable, or the terminal.

use super::args::PasswordArgs;
use crate::exit::{Exit, Failure};
use anyhow::{Context as _, anyhow};
use damocles_chain::wallet::Password;
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};
use zeroize::Zeroizing;

/// No password is longer.
const MOST: u64 = 64 << 10;
const INTERRUPT: u8 = 3;

/// How the source of a password is named by whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manager) enum Asked {
    /// By the switches of a command.
    Switches,
    /// By the switches for a new password.
    NewSwitches,
    /// By manager.toml.
    File,
}

impl Asked {
    const fn names(self) -> &'static str {
        match self {
            Self::Switches => "--password-file or --password-env",
            Self::NewSwitches => "--new-password-file or --new-password-env",
            Self::File => "`password_file` or `password_env` in [wallet] of manager.toml",
        }
    }
}

/// The password of a wallet.
///
/// # Errors
///
/// Its source cannot be read, or there is neither a source nor a terminal.
pub(in crate::manager) fn current(args: &PasswordArgs, asked: Asked) -> Result<Password, Failure> {
    match source(args.password_file.as_deref(), args.password_env.as_deref())? {
        Some(password) => Ok(password),
        None => ask("Password of the wallet: ", asked.names()),
    }
}

/// A new password, asked for twice.
///
/// # Errors
///
/// As [`current`], or the two are not the same.
pub(in crate::manager) fn new(file: Option<&Path>, variable: Option<&str>, asked: Asked) -> Result<Password, Failure> {
    if let Some(password) = source(file, variable)? {
        return Ok(password);
    }
    let first = ask_text("New password of the wallet: ", asked.names())?;
    let second = ask_text("The same once more: ", asked.names())?;
    if *first != *second {
        return Err(Failure::usage("the two passwords are not the same"));
    }
    Ok(Password::new(first.as_str()))
}

/// Reads a secret of one line, such as a key, from the terminal without showing it.
///
/// # Errors
///
/// There is no terminal.
pub(super) fn secret_line(prompt: &str, instead: &str) -> Result<Zeroizing<String>, Failure> {
    ask_text(prompt, instead)
}

#[expect(clippy::disallowed_methods, reason = "the program reads its environment")]
fn source(file: Option<&Path>, variable: Option<&str>) -> Result<Option<Password>, Failure> {
    if let Some(file) = file {
        return from_file(file).map(Some);
    }
    let Some(name) = variable else { return Ok(None) };
    let value = std::env::var_os(name).ok_or_else(|| {
        Failure::usage(format_args!("the environment variable `{name}` is not set"))
            .hint("the switch takes the name of a variable that holds the password, not the password")
    })?;
    let text = value
        .into_string()
        .map_err(|_| Failure::usage(format_args!("the environment variable `{name}` is not text")))?;
    Ok(Some(Password::new(text)))
}

fn from_file(path: &Path) -> Result<Password, Failure> {
    Ok(Password::from_file_text(&private_text(path)?)?)
}

/// The text of a file that is for its owner only, or of a pipe.
///
/// # Errors
///
/// The file cannot be read, others can read it, or it is no text.
pub(crate) fn private_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let file = fs_err::File::open(path)?;
    let about = file.metadata()?;
    let foreign = about.uid() != nix::unistd::geteuid().as_raw();
    if about.is_file() && (about.permissions().mode() & 0o077 != 0 || (foreign && about.uid() != 0)) {
        let error = anyhow!("others can read `{}`", path.display());
        return Err(Failure::new(Exit::Usage, error).hint(format!("run `chmod 600 {}`", path.display())));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MOST).read_to_string(&mut text).with_context(|| format!("read `{}`", path.display()))?;
    Ok(text)
}

fn ask(prompt: &str, instead: &str) -> Result<Password, Failure> {
    Ok(Password::new(ask_text(prompt, instead)?.as_str()))
}

fn ask_text(prompt: &str, instead: &str) -> Result<Zeroizing<String>, Failure> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|e| {
        let error = anyhow::Error::from(e).context("there is no terminal to ask for the password");
        Failure::new(Exit::Usage, error).hint(format!("name its source with {instead}"))
    })?;
    let hidden = Hidden::begin(terminal)?;
    (&hidden.terminal).write_all(prompt.as_bytes())?;
    let mut line = Zeroizing::new(String::with_capacity(256));
    let read = BufReader::new((&hidden.terminal).take(MOST)).read_line(&mut line);
    let _ = (&hidden.terminal).write_all(b"\n");
    read.context("read from the terminal")?;
    if line.as_bytes().contains(&INTERRUPT) || line.is_empty() {
        return Err(Failure::usage("no password was given"));
    }
    let length = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(length);
    Ok(line)
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn begin(terminal: File) -> Result<Self, Failure> {
        let before = termios::tcgetattr(&terminal).context("ask the terminal how it is set")?;
        let mut hidden = before.clone();
        // Ctrl-C ends the line instead of the process, which would leave the terminal as it is set here.
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        if let Some(end) = hidden.control_chars.get_mut(SpecialCharacterIndices::VEOL as usize) {
            *end = INTERRUPT;
        }
        termios::tcsetattr(&terminal, SetArg::TCSAFLUSH, &hidden).context("hide what is typed")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        fs_err::write(&path, "correct horse\n").unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let failure = source(Some(&path), None).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.hint.unwrap().contains("chmod 600"));
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(source(Some(&path), None).unwrap().is_some());
        fs_err::write(&path, "two\nlines\n").unwrap();
        assert!(source(Some(&path), None).is_err());
        assert!(source(None, Some("DAMOCLES_NO_SUCH_VARIABLE")).unwrap_err().hint.is_some());
        assert!(source(None, None).unwrap().is_none());
    }
}
