//! The jobs that a child has.

use damocles_core::JobId;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

/// The jobs that came and have not ended.
#[derive(Clone, Default)]
pub(super) struct Jobs(Arc<Mutex<HashMap<JobId, Entry>>>);

#[derive(Default)]
struct Entry {
    running: Option<Running>,
    stopped: Arc<AtomicBool>,
    /// Closed when the job ends.
    watched: Vec<mpsc::Sender<()>>,
}

struct Running {
    stops_when_asked: bool,
}

/// What comes of a request to stop a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has ended by itself; its end is said or about to be.
    Ended,
    /// It will end soon.
    Ends,
    /// Only the end of the process ends it.
    EndsTheProcess,
}

impl Jobs {
    pub(super) fn add(&self, id: JobId) {
        self.0.lock().insert(id, Entry::default());
    }

    /// A receiver that is told nothing and closed when the job ends.
    pub(super) fn watch(&self, id: JobId) -> mpsc::Receiver<()> {
        let (ends, end) = mpsc::channel();
        if let Some(job) = self.0.lock().get_mut(&id) {
            job.watched.push(ends);
        }
        end
    }

    /// The work begins, unless it was stopped before. Gives what tells that it is to stop.
    pub(super) fn begin(&self, id: JobId, stops_when_asked: bool) -> Option<Arc<AtomicBool>> {
        let mut jobs = self.0.lock();
        let job = jobs.get_mut(&id)?;
        if job.stopped.load(Ordering::Relaxed) {
            jobs.remove(&id);
            return None;
        }
        job.running = Some(Running { stops_when_asked });
        Some(Arc::clone(&job.stopped))
    }

    pub(super) fn end(&self, id: JobId) {
        self.0.lock().remove(&id);
    }

    pub(super) fn stop(&self, id: JobId) -> Stop {
        let jobs = self.0.lock();
        let Some(job) = jobs.get(&id) else { return Stop::Ended };
        job.stopped.store(true, Ordering::Relaxed);
        match &job.running {
            Some(Running { stops_when_asked: false }) => Stop::EndsTheProcess,
            _ => Stop::Ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_stopped_where_it_is() {
        let jobs = Jobs::default();
        let (one, two) = (JobId(1), JobId(2));
        jobs.add(one);
        jobs.add(two);
        let end = jobs.watch(one);
        let stopped = jobs.begin(one, true).unwrap();
        assert_eq!(jobs.stop(two), Stop::Ends);
        assert!(jobs.begin(two, true).is_none(), "it never begins");
        assert_eq!(jobs.stop(two), Stop::Ended);
        assert_eq!(jobs.stop(one), Stop::Ends);
        assert!(stopped.load(Ordering::Relaxed));
        assert_eq!(end.try_recv(), Err(mpsc::TryRecvError::Empty));
        jobs.end(one);
        assert_eq!(end.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        jobs.add(one);
        assert!(!jobs.begin(one, false).unwrap().load(Ordering::Relaxed), "the same number again is another job");
        assert_eq!(jobs.stop(one), Stop::EndsTheProcess);
    }
}
