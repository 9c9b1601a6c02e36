//! `damocles-worker explain`: why a sector or a thread does not work.

use crate::output::{Render, time_text};
use damocles_core::SectorId;
use damocles_seal::{
    pool::schedule::WaitingJob,
    worker::{Drain, Pause, ThreadState, ThreadStatus},
};
use serde::{Deserialize, Serialize};
use std::{fmt::Write as _, path::PathBuf};

/// The version of the document that `explain --json` prints.
pub const EXPLANATION_VERSION: u32 = 1;

/// Why each thread does not work, or that it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The version of this document.
    pub version: u32,
    /// The worker's name.
    pub worker: String,
    /// The threads, in the order of the configuration file.
    pub threads: Vec<Why>,
}

/// Why one thread does not work, or that it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Its number.
    pub index: usize,
    /// Its sealing store.
    pub location: PathBuf,
    /// Its sector.
    pub sector: Option<SectorId>,
    /// The stage of that sector.
    pub stage: Option<String>,
    /// Whether it works at this moment.
    pub works: bool,
    /// What it does or waits for, each in a sentence.
    pub reasons: Vec<String>,
    /// What can be done about it.
    pub hint: Option<String>,
}

/// What is known of a thread.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) status: &'a ThreadStatus,
    pub(super) pause: Option<Pause>,
    pub(super) drain: Option<Drain>,
    /// Its job in words, if it has one.
    pub(super) job: Option<String>,
    /// Its job, if that has no slot.
    pub(super) waiting: Option<&'a WaitingJob>,
    /// What its stage waits for before it has a job.
    pub(super) waits: Option<String>,
}

/// Whether a thread works, and the sentences that say what it does.
pub(super) fn reasons(known: &Known<'_>) -> (bool, Vec<String>, Option<String>) {
    let status = known.status;
    let error = status.last_error.as_ref();
    let said = error.map_or("no error is recorded", |e| e.error.as_str());
    let hint = error.and_then(|e| e.hint.clone());
    let again = |what: &str| status.wakes_at.map(|at| format!("{what} at {}", time_text(at)));
    let mut reasons = Vec::new();
    let mut works = false;
    let mut advice = None;
    if status.ending {
        reasons
            .push("the work on the sector is over, and nothing is removed before the manager has confirmed it".into());
    }
    match status.state {
        ThreadState::Running => match known.waiting {
            None if known.waits.is_some() => reasons.extend(known.waits.iter().map(|why| format!("it waits: {why}"))),
            Some(job) => reasons.push(format!("{} waits for a slot: {}", job.kind, job.reason)),
            None => {
                works = true;
                reasons.push(known.job.clone().map_or_else(|| "it works".to_owned(), |job| format!("it works: {job}")));
            }
        },
        ThreadState::Waiting => {
            advice = hint;
            match (status.epoch, error) {
                (Some(epoch), _) => reasons.push(format!("it waits for epoch {epoch} of the chain")),
                (None, Some(_)) => {
                    let times = if status.failures == 1 { "once" } else { "again and again" };
                    reasons.push(format!("it failed {times} ({}) and is tried again: {said}", status.failures));
                }
                (None, None) if status.waits_for_pieces() => {
                    reasons.push("it waits for deals: `disable_cc` is set".to_owned());
                    advice = Some("queue pieces at the manager, as many as `min_deal_space` asks for".to_owned());
                }
                (None, None) => reasons.push("it waits until the manager says that something changed".to_owned()),
            }
            reasons.extend(again("it looks again"));
        }
        ThreadState::Parked => {
            reasons.push(format!("it is parked by an error: {said}"));
            reasons.extend(again("it goes on by itself"));
            advice = Some(hint.unwrap_or_else(|| resume("when the cause is gone")));
        }
        ThreadState::Paused => {
            let by = known.pause.as_ref().and_then(|pause| pause.by.clone());
            reasons.push(format!("it was paused by {}", by.unwrap_or_else(|| "an operator".to_owned())));
            advice = Some(resume("to go on"));
        }
        ThreadState::Drained => {
            reasons.push("it is drained and takes nothing on".to_owned());
            if error.is_some() {
                reasons.push(format!("its sector failed last by: {said}"));
            }
            advice = Some(resume("to let it work again"));
        }
        ThreadState::Stopped => {
            reasons.push("it has ended".to_owned());
            advice = Some("restart the worker to let it work again".to_owned());
        }
        _ => {
            reasons.push("it has no sector".to_owned());
            if error.is_some() {
                reasons.push(format!("it gets none: {said}"));
                advice = hint;
            }
            reasons.extend(again("it asks the manager"));
        }
    }
    match known.drain.filter(|_| !matches!(status.state, ThreadState::Drained | ThreadState::Stopped)) {
        Some(Drain::Step) => reasons.push("it is drained: it stops with the running step".to_owned()),
        Some(Drain::Sector) => reasons.push("it is drained: it finishes its sector and takes no other".to_owned()),
        None => {}
    }
    (works, reasons, advice)
}

fn resume(when: &str) -> String {
    format!("`damocles-worker resume` {when}")
}

/// A thread that is not at work yet.
pub(super) fn not_begun(endpoint: &str) -> Vec<String> {
    vec![format!("the worker waits for its manager at {endpoint}, or for proof parameters")]
}

impl Explanation {
    /// Whether all threads work.
    pub fn all_work(&self) -> bool {
        self.threads.iter().all(|why| why.works)
    }
}

impl Render for Explanation {
    fn text(&self, _: bool) -> String {
        let mut text = String::new();
        if self.all_work() && !self.threads.is_empty() {
            text.push_str("everything works\n");
        }
        for why in &self.threads {
            let sector = why.sector.map_or_else(|| "no sector".to_owned(), |sector| sector.to_string());
            let stage = why.stage.as_ref().map(|stage| format!(", {stage}")).unwrap_or_default();
            let _ = writeln!(text, "thread {} ({}): {sector}{stage}", why.index, why.location.display());
            for reason in &why.reasons {
                let _ = writeln!(text, "  {reason}");
            }
            if let Some(hint) = &why.hint {
                let _ = writeln!(text, "  hint: {hint}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{ActorId, Epoch, SectorNumber, Timestamp, pipeline::StageId};
    use damocles_seal::worker::ThreadError;

    fn status(state: ThreadState) -> ThreadStatus {
        ThreadStatus {
            location: "/mnt/a".into(),
            sector: Some(SectorId::new(ActorId(1000), SectorNumber(7))),
            stage: Some(StageId::new("seed")),
            state,
            since: Timestamp(0),
            last_error: None,
            failures: 0,
            ending: false,
            wakes_at: None,
            epoch: None,
        }
    }

    fn said(status: &ThreadStatus, pause: Option<Pause>, drain: Option<Drain>) -> String {
        let (works, reasons, hint) = reasons(&Known { status, pause, drain, job: None, waiting: None, waits: None });
        format!("works {works}; {}; {}", reasons.join("; "), hint.unwrap_or_default())
    }

    #[test]
    fn every_wait_is_told() {
        let error = ThreadError { error: "no route to host".to_owned(), hint: Some("mend the cable".to_owned()) };
        let wakes_at = Some(Timestamp(60_000));
        let mut texts = vec![said(&status(ThreadState::Running), None, Some(Drain::Step))];
        let chain = ThreadStatus { epoch: Some(Epoch(900)), wakes_at, ..status(ThreadState::Waiting) };
        texts.push(said(&chain, None, None));
        texts.push(said(&status(ThreadState::Waiting), None, Some(Drain::Sector)));
        let failed = ThreadStatus { last_error: Some(error.clone()), failures: 3, ..chain };
        texts.push(said(&ThreadStatus { epoch: None, ..failed.clone() }, None, None));
        texts.push(said(&ThreadStatus { state: ThreadState::Parked, ..failed.clone() }, None, None));
        texts.push(said(&ThreadStatus { ending: true, epoch: None, ..failed }, None, None));
        let pause = Pause { now: true, by: Some("alice".to_owned()) };
        texts.push(said(&status(ThreadState::Paused), Some(pause), None));
        texts.push(said(&ThreadStatus { last_error: Some(error), wakes_at, ..status(ThreadState::Idle) }, None, None));
        texts.push(said(&status(ThreadState::Stopped), None, Some(Drain::Step)));
        texts.push(said(&status(ThreadState::Drained), None, Some(Drain::Sector)));
        let deals = ThreadStatus { stage: Some(StageId::new("pieces")), wakes_at, ..status(ThreadState::Waiting) };
        texts.push(said(&deals, None, None));
        let expected: [&[&str]; 11] = [
            &["works true; it works", "stops with the running step"],
            &["works false; it waits for epoch 900 of the chain", "it looks again at 1970-01-01T00:01:00Z"],
            &["until the manager says", "finishes its sector and takes no other"],
            &["it failed again and again (3) and is tried again: no route to host", "mend the cable"],
            &["it is parked by an error: no route to host; it goes on by itself at 1970", "mend the cable"],
            &["the work on the sector is over, and nothing is removed before", "tried again"],
            &["works false; it was paused by alice; `damocles-worker resume` to go on"],
            &["it has no sector; it gets none: no route to host; it asks the manager at 1970", "mend the cable"],
            &["works false; it has ended; restart the worker"],
            &["works false; it is drained and takes nothing on; `damocles-worker resume` to let it work again"],
            &["works false; it waits for deals: `disable_cc` is set; it looks again at 1970", "queue pieces"],
        ];
        assert_eq!(texts.len(), expected.len());
        for (text, parts) in texts.iter().zip(expected) {
            for part in parts {
                assert!(text.contains(part), "`{part}` in `{text}`");
            }
        }
    }

    #[test]
    fn a_stage_that_waits_for_space_says_so() {
        let status = status(ThreadState::Running);
        let waits = Some("reserve space (needed: 384GiB, promised to: s-t01000-7 421GiB)".to_owned());
        let (works, told, _) =
            reasons(&Known { status: &status, pause: None, drain: None, job: None, waiting: None, waits });
        assert!(!works && told[0].contains("s-t01000-7 421GiB"), "{told:?}");
    }

    #[test]
    fn what_works_is_told_to_work() {
        let why = Why {
            index: 0,
            location: "/mnt/a".into(),
            sector: None,
            stage: Some("pc1".to_owned()),
            works: true,
            reasons: vec!["it works: pc1-0 (pid 7) 3/11".to_owned()],
            hint: None,
        };
        let threads = vec![why.clone(), Why { works: false, hint: Some("do".to_owned()), ..why }];
        let both = Explanation { version: EXPLANATION_VERSION, worker: "w".to_owned(), threads };
        let one = Explanation { threads: both.threads.iter().take(1).cloned().collect(), ..both.clone() };
        assert!(one.text(false).starts_with("everything works"));
        assert!(!both.text(false).contains("everything") && both.text(false).contains("hint: do"));
    }
}
