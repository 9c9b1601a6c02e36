//! What the tests share.

use damocles_core::{
    ActorId, Context, JobId, SealProofType, SectorId, SectorNumber, SectorSize,
    pool::{PoolError, ProcessorPoolExt, Task, TaskKind},
};
use damocles_seal::{
    pool::{CommandSpec, LocalPool, PoolSpec, Protocol, SlotSpec},
    task::{C2, C2Output},
};
use std::{env::current_exe, fs, future::Future, path::Path, time::Duration};

pub(crate) const SECTOR: SectorId = SectorId::new(ActorId(1000), SectorNumber(7));
pub(crate) const PROOF: SealProofType = SealProofType::of(SectorSize::KiB2);

/// This program as a child.
pub(crate) fn me<'a>(args: impl IntoIterator<Item = &'a str>) -> CommandSpec {
    CommandSpec::new(current_exe().unwrap(), args)
}

pub(crate) fn slot(protocol: Protocol, kind: TaskKind, command: CommandSpec) -> SlotSpec {
    let mut slot = SlotSpec::new(format!("{kind}-0"), vec![kind], command);
    slot.protocol = protocol;
    slot
}

pub(crate) fn pool_of(slot: SlotSpec, change: impl FnOnce(&mut PoolSpec)) -> LocalPool {
    let mut spec = PoolSpec::new(vec![slot]);
    spec.rest = Duration::from_millis(1);
    spec.grace = Duration::from_millis(500);
    change(&mut spec);
    LocalPool::new(spec).unwrap()
}

/// A C2 task with these nodes.
pub(crate) fn c2(dir: &Path, nodes: &str) -> C2 {
    let c1 = dir.join("c1.json");
    fs::write(&c1, nodes).unwrap();
    C2 { sector: SECTOR, proof_type: PROOF, c1 }
}

pub(crate) async fn prove(pool: &LocalPool, task: &C2, cx: &Context) -> Result<C2Output, PoolError> {
    in_time(pool.run_task(JobId(1), Some(SECTOR), task, cx)).await
}

pub(crate) async fn run<T: Task>(pool: &LocalPool, task: &T) -> T::Output {
    let output = in_time(pool.run_task(JobId(1), Some(SECTOR), task, &Context::detached())).await;
    output.unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Far longer than any of these takes: what hangs is a failure and not a test that never ends.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work).await.expect("it ends in time")
}

/// Waits until the file is there, and reads the process numbers in it.
pub(crate) async fn pids(file: &Path) -> Vec<i32> {
    in_time(async {
        loop {
            if let Ok(text) = fs::read_to_string(file) {
                return text.split(' ').map(|n| n.parse().unwrap()).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Whether a process runs. A zombie does not: it waits for somebody who is no part of this.
pub(crate) fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
