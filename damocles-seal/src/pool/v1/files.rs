//! Large files, until told to stop.

use damocles_core::CancellationToken;
use fs_err as fs;
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read},
    path::Path,
};

/// How much is done between two looks at whether to stop.
const STEP: u64 = 64 << 20;

/// Copies a file to one that is not there yet, within the kernel where it can.
pub(super) fn copy(from: &Path, to: &Path, stop: &CancellationToken) -> io::Result<()> {
    let (source, mut target) = (fs::File::open(from)?, fs::File::create_new(to)?);
    loop {
        go_on(stop)?;
        if io::copy(&mut source.file().take(STEP), target.file_mut())? == 0 {
            return Ok(());
        }
    }
}

/// The length of a file and SHA-256 of its contents, in hex.
pub(super) fn digest(path: &Path, stop: &CancellationToken) -> io::Result<(u64, String)> {
    let file = fs::File::open(path)?;
    let (mut hasher, mut len) = (Sha256::new(), 0);
    loop {
        go_on(stop)?;
        match io::copy(&mut (&file).take(STEP), &mut hasher)? {
            0 => return Ok((len, hex::encode(hasher.finalize()))),
            step => len += step,
        }
    }
}

fn go_on(stop: &CancellationToken) -> io::Result<()> {
    // Not `Interrupted`: that would be tried again.
    if stop.is_cancelled() { Err(io::Error::other("stopped before it was done")) } else { Ok(()) }
}
