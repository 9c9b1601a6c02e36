//! What can be wrong with a placement.

use damocles_core::{Error, Kind, Recovery};
use std::{fmt, io, path::Path};

/// An error of placing a child.
pub type PlacementError = Error<PlacementErrorKind>;

/// What is wrong with a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlacementErrorKind {
    /// The host has nothing that could give what was asked for.
    Missing,
    /// The host has it, and this user may not use it.
    Denied,
    /// The kernel did not take a setting, or a file of it could not be read.
    Kernel,
    /// The settings contradict each other or can never be had.
    Settings,
    /// A process is not bound as it should be.
    Differs,
}

impl fmt::Display for PlacementErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "this host cannot give it",
            Self::Denied => "this user may not use the control groups",
            Self::Kernel => "the kernel did not do it",
            Self::Settings => "the settings do not fit together",
            Self::Differs => "the process is not bound as configured",
        })
    }
}

impl Kind for PlacementErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Missing | Self::Denied | Self::Settings => Recovery::Park,
            Self::Kernel | Self::Differs => Recovery::RETRY,
        }
    }
}

/// What an operator does to let this user have groups.
pub(super) fn grant() -> String {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    format!("run `damocles-worker cgroup setup --user {user}` as root, and start the worker as it says")
}

/// Whether an error says that somebody else could do it.
pub(super) fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// An error of a control file or directory. fs-err has put the path into `error`.
pub(super) fn of_io(op: &'static str, error: io::Error) -> PlacementError {
    if is_denied(&error) {
        Error::new(PlacementErrorKind::Denied, op).hint_with(grant()).because(error)
    } else {
        Error::new(PlacementErrorKind::Kernel, op).because(error)
    }
}

/// A setting that reads back otherwise than it was written.
pub(super) fn differs(path: &Path, wanted: impl fmt::Display, got: impl fmt::Display) -> PlacementError {
    Error::new(PlacementErrorKind::Differs, "read back a setting")
        .with("file", path.display())
        .with("wanted", wanted)
        .with("got", got)
}
