//! The streams of a child that speaks a protocol.

use nix::unistd::{dup2_stdin, dup2_stdout};
use std::{
    fs::File,
    io::{self, stderr, stdin, stdout},
    os::fd::AsFd,
};

/// Takes standard input and output for the protocol. From then on whoever reads standard input finds its end, and
/// whoever writes to standard output writes to standard error: no library can garble the protocol.
pub(crate) fn take_protocol() -> io::Result<(File, File)> {
    let requests = stdin().as_fd().try_clone_to_owned()?;
    let answers = stdout().as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(stderr())?;
    Ok((requests.into(), answers.into()))
}
