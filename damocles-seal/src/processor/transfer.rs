//! Copying files between stores.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{remove_other_left, resume},
    pace::{Bucket, Pace},
};
use crate::task::{CopiedFile, CopyFile, Transfer, Transferred};
use fs_err as fs;
use sha2::{Digest, Sha256};
use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// A multiple of every block size, so that file systems can share blocks instead of copying them.
const BLOCK: usize = 1 << 20;

/// Copies file by file; a target is there whole or not at all.
///
/// The kernel copies (`copy_file_range`): it shares blocks on file systems that can, and has an NFS server copy by
/// itself. Where it cannot, the standard library falls back to reading and writing. The hash is that of what was read
/// from the source, so that a copy that went wrong differs from it.
#[derive(Clone, Debug, Default)]
pub struct TransferProcessor(Pace);

impl Processor<Transfer> for TransferProcessor {
    fn process(&self, task: Transfer, progress: &dyn ProgressSink) -> Result<Transferred, ProcessorError> {
        let mut total = 0;
        for file in &task.files {
            total += check(file)?;
        }
        let Pace { clock, sleep } = &self.0;
        let mut bucket = task.bytes_per_second.map(|rate| Bucket::new(rate, clock.now()));
        let mut done = 0;
        let mut files = Vec::with_capacity(task.files.len());
        for file in task.files {
            let what = || format!("copy {} to {}", file.from.display(), file.to.display());
            let copied = copy(&file, |block, written| {
                done += block;
                progress.progress(done, Some(total));
                let wait = bucket.as_mut().filter(|_| written).map(|bucket| bucket.take(clock.now(), block));
                if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
                    sleep(wait);
                }
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

/// What tells a source from what it was at an earlier try.
fn identity(meta: &Metadata) -> [i128; 4] {
    [meta.ino().into(), meta.len().into(), meta.mtime().into(), meta.mtime_nsec().into()]
}

/// A name for the unfinished copy of this source: of another path, file, length or time it has another.
fn key(from: &Path, source: &Metadata) -> String {
    let mut hasher = Sha256::new().chain_update(from.as_os_str().as_bytes());
    identity(source).iter().for_each(|part| hasher.update(part.to_be_bytes()));
    hex::encode(hasher.finalize().get(..16).unwrap_or_default())
}

fn copy(file: &CopyFile, mut passed: impl FnMut(u64, bool) -> io::Result<()>) -> io::Result<(u64, String)> {
    let source = fs::File::open(&file.from)?;
    let before = source.metadata()?;
    let key = key(&file.from, &before);
    remove_other_left(&file.to, &key)?;
    resume(&file.to, &key, |target| {
        let (source, target) = (source.file(), target.file());
        let mut copying = Copying { source, target, hasher: Sha256::new(), len: 0 };
        while let Some(block) = copying.same_block()? {
            passed(block, false)?;
        }
        copying.go_on_from_here()?;
        while let Some(block) = copying.next_block()? {
            passed(block, true)?;
        }
        if identity(&source.metadata()?) != identity(&before) || copying.len != before.len() {
            return Err(io::Error::other("the source changed while it was copied"));
        }
        Ok((copying.len, hex::encode(copying.hasher.finalize())))
    })
}

struct Copying<'a> {
    source: &'a File,
    target: &'a File,
    hasher: Sha256,
    len: u64,
}

impl Copying<'_> {
    /// The length of the next block, if what an earlier try left of it is what the source has: after a power cut, parts of
    /// a file can be zeros.
    fn same_block(&mut self) -> io::Result<Option<u64>> {
        let (from, to) = (block_at(self.source, self.len)?, block_at(self.target, self.len)?);
        if from.is_empty() || from != to {
            return Ok(None);
        }
        Ok(Some(self.count(&from)))
    }

    /// Drops what the target has beyond the good part.
    fn go_on_from_here(&mut self) -> io::Result<()> {
        self.target.set_len(self.len)?;
        self.target.seek(SeekFrom::Start(self.len))?;
        self.source.seek(SeekFrom::Start(self.len)).map(drop)
    }

    fn next_block(&mut self) -> io::Result<Option<u64>> {
        let read = block_at(self.source, self.len)?;
        if read.is_empty() {
            return Ok(None);
        }
        let mut left = self.source.take(read.len() as u64);
        while left.limit() > 0 {
            if io::copy(&mut left, &mut self.target)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(self.count(&read)))
    }

    fn count(&mut self, block: &[u8]) -> u64 {
        let bytes = block.len() as u64;
        self.hasher.update(block);
        self.len += bytes;
        bytes
    }
}

/// A whole block, or what there is of it before the end of the file.
fn block_at(mut file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    file.seek(SeekFrom::Start(offset))?;
    file.take(BLOCK as u64).read_to_end(&mut block)?;
    // The kernel copies from here.
    file.seek(SeekFrom::Start(offset))?;
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{Timestamp, testing::FakeClock};
    use parking_lot::Mutex;
    use std::{num::NonZeroU64, sync::Arc, time::Duration};

    struct Deaf;
    impl ProgressSink for Deaf {
        fn progress(&self, _: u64, _: Option<u64>) {}
    }

    #[test]
    fn the_rate_is_kept_over_all_files_of_a_task() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<CopyFile> = ["a", "b"]
            .map(|name| {
                let from = dir.path().join(name);
                fs::write(&from, vec![7; 3 * BLOCK]).unwrap();
                CopyFile { from, to: dir.path().join(format!("{name}-copy")) }
            })
            .into();
        let clock = Arc::new(FakeClock::at(Timestamp(0)));
        let slept = Arc::new(Mutex::new(Duration::ZERO));
        let sleep = {
            let (clock, slept) = (Arc::clone(&clock), Arc::clone(&slept));
            move |time| {
                clock.advance(time);
                *slept.lock() += time;
            }
        };
        let processor = TransferProcessor(Pace { clock, sleep: Arc::new(sleep) });
        let mut task = Transfer { files, bytes_per_second: NonZeroU64::new(BLOCK as u64 / 2) };
        processor.process(task.clone(), &Deaf).unwrap();
        // Six blocks at half a block a second.
        assert_eq!(*slept.lock(), Duration::from_secs(12));
        task.bytes_per_second = None;
        processor.process(task, &Deaf).unwrap();
        assert_eq!(*slept.lock(), Duration::from_secs(12));
    }

    #[test]
    fn a_source_that_changes_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let file = CopyFile { from: dir.path().join("from"), to: dir.path().join("to") };
        fs::write(&file.from, vec![7; 2 * BLOCK]).unwrap();
        let changes = || fs::OpenOptions::new().append(true).open(&file.from).unwrap();
        let mut grown = false;
        let error = copy(&file, |_, _| {
            if !std::mem::replace(&mut grown, true) {
                io::Write::write_all(&mut changes(), b"more").unwrap();
            }
            Ok(())
        });
        assert!(error.unwrap_err().to_string().contains("changed"));
        assert!(!file.to.exists());
        // What was copied of the old one is not taken for the new one, and is removed.
        copy(&file, |_, written| {
            assert!(written);
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read(&file.to).unwrap(), fs::read(&file.from).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_what_is_like_the_source_is_kept_of_an_unfinished_copy() {
        let dir = tempfile::tempdir().unwrap();
        let file = CopyFile { from: dir.path().join("from"), to: dir.path().join("to") };
        let bytes: Vec<u8> = (0..5 * BLOCK / 2).map(|n| n.to_le_bytes()[1]).collect();
        fs::write(&file.from, &bytes).unwrap();
        let name = format!(".to.{}.damocles-tmp", key(&file.from, &std::fs::metadata(&file.from).unwrap()));
        let mut hole = bytes.clone();
        hole[BLOCK + 4000..BLOCK + 4096].fill(0);
        let longer = [&bytes[..], b"rubbish"].concat();
        for (left, kept) in [(&bytes[..0], 0), (&bytes[..BLOCK], 1), (&bytes[..BLOCK + 5], 1), (&hole, 1), (&longer, 2)]
        {
            fs::write(dir.path().join(&name), left).unwrap();
            let mut same = 0;
            let (len, sha256) = copy(&file, |_, written| {
                same += u32::from(!written);
                Ok(())
            })
            .unwrap();
            assert_eq!((len, same), (bytes.len() as u64, kept));
            assert_eq!(sha256, hex::encode(Sha256::digest(&bytes)));
            assert_eq!(fs::read(&file.to).unwrap(), bytes);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        }
    }
}
