//! What makes a running worker look at its files again: a signal, and the kernel's word that a file changed.

use super::Hot;
use damocles_seal::watch::DirWatch;
use std::{convert::Infallible, future::pending, time::Duration};
use tokio::{signal::unix::Signal, time::timeout};

/// An editor replaces a file in several steps, which are over when nothing came for so long.
const SETTLED: Duration = Duration::from_millis(100);
/// A directory in which something happens all the time is looked at nevertheless, after so many steps.
const MOST_STEPS: usize = 50;

impl Hot {
    /// Takes over what changes, for as long as the worker runs. What is asked before it works is done when it does.
    pub(in crate::worker) async fn follow(&self, mut hangups: Signal) -> Infallible {
        self.begun.notified().await;
        let mut watch = self.watch();
        // What came between the start and the watch.
        self.look().await;
        loop {
            tokio::select! {
                Some(()) = hangups.recv() => drop(self.reload("SIGHUP").await),
                () = change(&mut watch) => {
                    settle(&mut watch).await;
                    self.look().await;
                }
            }
        }
    }

    /// Watches all stores. One that cannot be watched is looked at with the worker's file.
    fn watch(&self) -> Option<DirWatch> {
        let unwatched = |error: std::io::Error, what: &dyn std::fmt::Display| {
            tracing::warn!(
                %error, "{what} cannot be watched: a `config.toml` there is read at SIGHUP and `damocles-worker reload` \
                only (more watches: sysctl fs.inotify.max_user_watches and max_user_instances)"
            );
        };
        let watch = DirWatch::new().map_err(|error| unwatched(error, &"sealing stores")).ok()?;
        let config = self.config();
        let mut shown = self.shown.lock();
        for (thread, store) in config.sealing_thread.iter().zip(&mut shown.stores) {
            match watch.add(&thread.location) {
                Ok(()) => store.watched = true,
                Err(error) => unwatched(error, &thread.location.display()),
            }
        }
        Some(watch)
    }
}

/// Resolves when something changed in a store.
async fn change(watch: &mut Option<DirWatch>) {
    let Some(watched) = watch else { return pending().await };
    if let Err(error) = watched.next().await {
        tracing::warn!(%error, "the watch of sealing stores broke: their files are read at SIGHUP from now on");
        *watch = None;
    }
}

/// Waits until a change is complete.
async fn settle(watch: &mut Option<DirWatch>) {
    for _ in 0..MOST_STEPS {
        if timeout(SETTLED, change(watch)).await.is_err() {
            return;
        }
    }
}
