//! Asking disks that may hang.

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Questions to disks, each on a thread of its own, and one at a time for each disk.
///
/// A mount that hangs never gives its thread back. On the runtime's pool such threads would add up until nothing that
/// blocks could start, proofs included.
#[derive(Debug, Default)]
pub(super) struct Probes(Mutex<BTreeMap<String, Arc<Slot>>>);

#[derive(Debug)]
struct Slot {
    free: Arc<Semaphore>,
    /// The question under way took longer than somebody was ready to wait.
    late: AtomicBool,
}

impl Default for Slot {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(1)), late: AtomicBool::new(false) }
    }
}

impl Probes {
    /// Does `work` on `disk`. While an earlier question is late, this one is not asked.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        disk: &str,
        at_most: Duration,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let slot = Arc::clone(self.0.lock().entry(disk.to_owned()).or_default());
        let silent = || io::Error::new(io::ErrorKind::TimedOut, format!("`{disk}` does not answer"));
        if slot.late.load(Ordering::Relaxed) && slot.free.available_permits() == 0 {
            return Err(silent());
        }
        let asked = async {
            // It is never closed.
            let permit = Arc::clone(&slot.free).acquire_owned().await.map_err(io::Error::other)?;
            slot.late.store(false, Ordering::Relaxed);
            run(permit, work)?.await.map_err(io::Error::other)?
        };
        match tokio::time::timeout(at_most, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                slot.late.store(true, Ordering::Relaxed);
                Err(silent())
            }
        }
    }
}

/// The thread keeps the permit until it ends, whether or not anybody still waits.
fn run<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<oneshot::Receiver<io::Result<T>>> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("disk-probe".to_owned()).spawn(move || {
        let answer = work();
        drop(permit);
        // Whoever asked may have gone.
        let _ = tell.send(answer);
    })?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{atomic::AtomicUsize, mpsc};

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_disk_that_hangs_holds_one_thread_and_no_other_disk() {
        let probes = Probes::default();
        let (release, held) = mpsc::channel::<()>();
        let hung = probes.ask("nfs", Duration::from_millis(1), move || Ok(held.recv().is_err()));
        assert_eq!(hung.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let runs = Arc::new(AtomicUsize::new(0));
        for _ in 0..1_000 {
            let runs = Arc::clone(&runs);
            let again = probes.ask("nfs", LONG, move || Ok(runs.fetch_add(1, Ordering::Relaxed)));
            let error = again.await.unwrap_err();
            assert!(error.to_string().contains("`nfs`"), "{error}");
        }
        assert_eq!(runs.load(Ordering::Relaxed), 0, "nothing is asked while the first question is open");
        assert_eq!(probes.ask("local", LONG, || Ok(7)).await.unwrap(), 7);
        // It comes back.
        drop(release);
        let back = loop {
            match probes.ask("nfs", LONG, || Ok(8)).await {
                Ok(answer) => break answer,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(back, 8);
    }

    #[tokio::test]
    async fn questions_to_one_disk_wait_for_each_other() {
        let probes = Probes::default();
        let asked = (0..50).map(|n| probes.ask("disk", LONG, move || Ok(n)));
        let answers = futures::future::join_all(asked).await;
        assert_eq!(answers.into_iter().map(Result::unwrap).sum::<i32>(), 49 * 25);
        let broken = probes.ask("disk", LONG, || if true { panic!("a panic") } else { Ok(()) }).await;
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::Other);
        assert_eq!(probes.ask("disk", LONG, || Ok(1)).await.unwrap(), 1);
    }
}
