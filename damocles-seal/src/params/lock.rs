//! One process at a time writes into a parameter cache.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::error::ParamsError;

/// Held while files are made. The kernel releases it with the process, however that ends.
#[derive(Debug)]
pub(crate) struct CacheLock {
    _file: File,
}

/// Beside the parameters, with a name that the library does not use. It stays there: removing it would race.
pub(crate) const LOCK_NAME: &str = "damocles-parameters.lock";

impl CacheLock {
    /// Takes the lock, after `waiting` was called if another process holds it.
    pub(crate) fn acquire(dir: &Path, cancel: &CancellationToken, waiting: impl FnOnce()) -> Result<Self, ParamsError> {
        let path = dir.join(LOCK_NAME);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| ParamsError::file("open the lock", &path, e))?;
        match file.try_lock() {
            Ok(()) => return Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => waiting(),
            Err(TryLockError::Error(e)) => return Err(ParamsError::file("lock", &path, e)),
        }
        // The kernel's wait cannot be cancelled, so a thread of its own waits. If the caller is gone by the time it has
        // the lock, the file is dropped with the unsent message, and the lock with it.
        let (sender, receiver) = oneshot::channel();
        let waiter = move || {
            let outcome = file.lock().map(|()| file);
            drop(sender.send(outcome));
        };
        std::thread::Builder::new()
            .name("params-lock".into())
            .spawn(waiter)
            .map_err(|e| ParamsError::file("wait for the lock", &path, e))?;
        futures::executor::block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(ParamsError::Cancelled),
                outcome = receiver => match outcome {
                    Ok(Ok(file)) => Ok(Self { _file: file }),
                    Ok(Err(e)) => Err(ParamsError::file("lock", &path, e)),
                    Err(_) => Err(ParamsError::Cancelled),
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_second_holder_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let first = CacheLock::acquire(dir.path(), &cancel, || panic!("nobody holds it")).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| CacheLock::acquire(dir.path(), &cancel, || sender.send(()).unwrap()).map(drop));
            receiver.recv().unwrap();
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_wait_can_be_cancelled_and_leaves_no_lock_behind() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let first = CacheLock::acquire(dir.path(), &cancel, || ()).unwrap();
        let second = CacheLock::acquire(dir.path(), &cancel, || cancel.cancel());
        assert!(matches!(second, Err(ParamsError::Cancelled)));
        drop(first);
        CacheLock::acquire(dir.path(), &CancellationToken::new(), || ()).unwrap();
    }
}
