//! Threads in the words of the incumbent's control RPC.

use super::control::{JobView, ThreadState, ThreadStatus};
use damocles_core::Timestamp;
use serde_json::{Value, json};

/// Our stages, what the incumbent calls them while they run, and the state that a sector has before them.
const STAGES: [(&str, &str, &str); 15] = [
    ("pieces", "AcquireDeals", "Allocated"),
    ("add_pieces", "AddPieces", "DealsAcquired"),
    ("tree_d", "TreeD", "PieceAdded"),
    ("ticket", "AssignTicket", "TreeDBuilt"),
    ("pc1", "PC1", "TicketAssigned"),
    ("pc2", "PC2", "PC1Done"),
    ("pre_commit", "SubmitPreCommit", "PC2Done"),
    ("pre_commit_landed", "WaitPCLanded", "PCSubmitted"),
    ("persist", "PersistFiles", "PCLanded"),
    ("seed", "WaitSeed", "PersistanceSubmitted"),
    ("c1", "C1", "SeedAssigned"),
    ("c2", "C2", "C1Done"),
    ("prove_commit", "SubmitProof", "C2Done"),
    ("prove_commit_landed", "WaitProofLanded", "ProofSubmitted"),
    ("clean_up", "-", "Finished"),
];

/// The stage that comes next in a sector of this state of the incumbent's.
pub(super) fn stage_of(state: &str) -> Option<&'static str> {
    STAGES.iter().find(|(_, _, before)| *before == state).map(|(stage, _, _)| *stage)
}

/// One thread as `VenusWorker.WorkerList` lists it.
pub(super) fn row(thread: &ThreadStatus, now: Timestamp) -> Value {
    let stage = STAGES.iter().find(|(stage, _, _)| Some(*stage) == thread.stage.as_deref());
    let state = match thread.state {
        ThreadState::Running => "Running",
        ThreadState::Waiting => "Waiting",
        ThreadState::Paused | ThreadState::Parked => "Paused",
        ThreadState::Starting
        | ThreadState::Idle
        | ThreadState::Draining
        | ThreadState::Drained
        | ThreadState::Stopped => "Idle",
    };
    json!({
        "location": thread.location,
        "plan": thread.plan,
        "job_id": thread.sector.map(|s| s.to_string()),
        "index": thread.index,
        "thread_state": {
            "state": state,
            "elapsed": thread.since.map_or(0, |since| now.since(since).as_secs()),
            "proc": thread.job.as_ref().map(JobView::short),
        },
        "job_state": stage.map_or("Empty", |(_, _, before)| before),
        "job_stage": stage.map(|(_, running, _)| running),
        "last_error": thread.last_error,
    })
}
