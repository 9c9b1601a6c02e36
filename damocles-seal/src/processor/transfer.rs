//! Copying files between stores.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{remove_left, replace},
};
use crate::task::{CopiedFile, CopyFile, Transfer, Transferred};
use fs_err as fs;
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
};

const BLOCK: usize = 1 << 20;

/// Copies file by file; a target is there whole or not at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransferProcessor;

impl Processor<Transfer> for TransferProcessor {
    fn process(&self, task: Transfer, progress: &dyn ProgressSink) -> Result<Transferred, ProcessorError> {
        let mut total = 0;
        for file in &task.files {
            total += check(file)?;
        }
        let mut done = 0;
        let mut files = Vec::with_capacity(task.files.len());
        for file in task.files {
            let what = || format!("copy {} to {}", file.from.display(), file.to.display());
            let copied = copy(&file, |block| {
                done += block;
                progress.progress(done, Some(total));
                if progress.is_stopped() { Err(io::Error::other("stopped before it was done")) } else { Ok(()) }
            });
            let (len, sha256) = copied.map_err(|e| ProcessorError::new(what(), e))?;
            files.push(CopiedFile { path: file.to, len, sha256 });
        }
        Ok(Transferred { files })
    }

    fn stops_when_asked(&self) -> bool {
        true
    }
}

/// The length of the source, if it can be copied.
fn check(file: &CopyFile) -> Result<u64, ProcessorError> {
    let (from, to) = (file.from.display(), file.to.display());
    let source = fs::metadata(&file.from).map_err(|e| ProcessorError::new(format!("copy {from}"), e))?;
    if !source.is_file() {
        return Err(ProcessorError::because(format!("{from} is not a file")));
    }
    // Also by another name: a rename would put the copy in place of its own source.
    let same = fs::metadata(&file.to).is_ok_and(|target| (target.dev(), target.ino()) == (source.dev(), source.ino()));
    if same || file.from == file.to {
        return Err(ProcessorError::because(format!("{to} is its own source")));
    }
    if file.to.file_name().is_none() {
        return Err(ProcessorError::because(format!("{to} does not name a file")));
    }
    Ok(source.len())
}

fn copy(file: &CopyFile, mut copied: impl FnMut(u64) -> io::Result<()>) -> io::Result<(u64, String)> {
    let mut source = fs::File::open(&file.from)?;
    remove_left(&file.to)?;
    replace(&file.to, |target| {
        let mut hasher = Sha256::new();
        let mut len = 0;
        let mut block = vec![0; BLOCK];
        loop {
            let n = match source.read(&mut block) {
                Ok(0) => return Ok((len, hex::encode(hasher.finalize()))),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(read) = block.get(..n) else { return Err(io::ErrorKind::InvalidData.into()) };
            target.write_all(read)?;
            hasher.update(read);
            len += n as u64;
            copied(n as u64)?;
        }
    })
}
