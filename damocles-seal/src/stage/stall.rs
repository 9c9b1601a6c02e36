//! Seeing that a copy stands still.
//!
//! A mount that hangs in the middle of a copy would keep its slot until the time limit of the task, which is hours. So a
//! copy of which nothing was heard for a while has its store looked at, by a child that may be left behind.

use super::StageDeps;
use crate::task::Transfer;
use damocles_core::{
    CancellationToken, Context, Event, EventSink, JobEvent,
    pipeline::{SealError, SealErrorKind},
    pool::Task as _,
};
use std::{future::Future, sync::Arc};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// A copy that does not move is given up after so many looks at its store, though that answers each time: a disk that
/// syncs tens of gigabytes may take minutes for it.
const MOST_LOOKS: u32 = 15;

/// What was heard of a copy.
#[derive(Clone, Copy, Debug, Default)]
struct Beat {
    /// When it was heard last; none while it has no slot.
    at: Option<Instant>,
    done: u64,
}

/// Listens to what is told of a copy on its way to who else listens.
#[derive(Debug)]
struct Listener {
    inner: Arc<dyn EventSink>,
    heard: watch::Sender<Beat>,
}

impl EventSink for Listener {
    fn emit(&self, event: Event) {
        if let Event::Job { kind, what, .. } = &event
            && *kind == Transfer::KIND
        {
            let now = Some(Instant::now());
            self.heard.send_if_modified(|beat| {
                let next = match what {
                    JobEvent::Started { .. } => Beat { at: now, done: 0 },
                    JobEvent::Progress { done, .. } if *done != beat.done || beat.at.is_none() => {
                        Beat { at: now, done: *done }
                    }
                    JobEvent::Queued { .. } | JobEvent::Ended { .. } => Beat::default(),
                    _ => return false,
                };
                *beat = next;
                true
            });
        }
        self.inner.emit(event);
    }
}

/// Does a copy to this store and stops it when it stands still: the error of the copy, or why it was stopped.
pub(super) async fn watched<T, F>(
    deps: &StageDeps,
    store: &str,
    cx: &Context,
    copy: impl FnOnce(Context) -> F + Send,
) -> Result<Result<T, SealError>, String>
where
    T: Send,
    F: Future<Output = Result<T, SealError>> + Send,
{
    let (heard, beats) = watch::channel(Beat::default());
    let listener = Listener { inner: Arc::clone(&cx.events), heard };
    let inner = Context { cancel: cx.cancel.child_token(), events: Arc::new(listener) };
    let stop: CancellationToken = inner.cancel.clone();
    let copy = copy(inner);
    tokio::pin!(copy);
    let why = tokio::select! {
        biased;
        done = &mut copy => return Ok(done),
        why = stands_still(deps, store, beats, cx) => why,
    };
    stop.cancel();
    // Not dropped: the pool sees to the end of the child, and does not wait for ever for one that does not die.
    match copy.await {
        Err(error) if error.kind() == SealErrorKind::Cancelled && !cx.cancel.is_cancelled() => Err(why),
        done => Ok(done),
    }
}

/// Reads from this store on a thread of this process, and gives up when that stands still; `read` is given what to call
/// whenever something was read. The thread stays behind then, for as long as the disk keeps it.
pub(super) async fn read_watched<T, F>(
    deps: &StageDeps,
    store: &str,
    cx: &Context,
    read: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> F + Send,
) -> Result<T, String>
where
    T: Send,
    F: Future<Output = T> + Send,
{
    let (heard, beats) = watch::channel(Beat { at: Some(Instant::now()), done: 0 });
    let tick = move || heard.send_modify(|beat| *beat = Beat { at: Some(Instant::now()), done: beat.done + 1 });
    tokio::select! {
        biased;
        done = read(Box::new(tick)) => Ok(done),
        why = stands_still(deps, store, beats, cx) => Err(why),
    }
}

/// Ends when a copy stands still, with the reason.
async fn stands_still(deps: &StageDeps, store: &str, mut beats: watch::Receiver<Beat>, cx: &Context) -> String {
    let limit = deps.persist.settings().stall_limit;
    let mut looks = 0;
    loop {
        let beat = *beats.borrow_and_update();
        let due = async {
            match beat.at {
                Some(at) => sleep_until(at + limit.saturating_mul(looks + 1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = beats.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                looks = 0;
                continue;
            }
            () = due => looks += 1,
        }
        let looked = deps.persist.look(store, None, cx).await;
        if beats.has_changed().unwrap_or_default() {
            looks = 0;
            continue;
        }
        let silence = limit.saturating_mul(looks);
        match looked {
            Err(unusable) => return format!("nothing moved there for {silence:?}: {}", unusable.chain()),
            // A processor that never says how far it is may be far.
            Ok(_) if looks >= MOST_LOOKS && beat.done > 0 => {
                return format!("nothing moved there for {silence:?}, though it answers");
            }
            Ok(_) => {}
        }
    }
}
