//! What a pool adds to the work of a task: in this process, in a child, and in a child in a control group.
//!
//! `cargo bench -p damocles-seal --bench pool --profile dev`, on a quiet machine. The task does nothing, or spins for the
//! given time (`-- 1s`), so that the ratio to the same work done directly can be read off. The program is its own child.
#![expect(clippy::print_stdout, reason = "a bench reports on standard output")]
#![expect(clippy::unwrap_used, reason = "a bench has nobody to hand an error to")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use damocles_core::{
    Context, JobId,
    pool::{ProcessorPool, ProcessorPoolExt as _, Task, TaskKind},
};
use damocles_seal::{
    pool::{CommandSpec, InlinePool, LocalPool, PoolSpec, SlotSpec},
    processor::{Processor, ProcessorError, ProgressSink, Registry, ServeOptions, serve},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Work of a known length.
#[derive(Debug, Serialize, Deserialize)]
struct Spin {
    nanos: u64,
}

impl Task for Spin {
    const KIND: TaskKind = TaskKind::new("spin");
    type Output = u64;
}

#[derive(Debug)]
struct Spinner;

fn spin(time: Duration) -> u64 {
    let (begun, mut turns) = (Instant::now(), 0_u64);
    while begun.elapsed() < time {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
    turns
}

impl Processor<Spin> for Spinner {
    fn process(&self, task: Spin, _: &dyn ProgressSink) -> Result<u64, ProcessorError> {
        Ok(spin(Duration::from_nanos(task.nanos)))
    }
}

fn registry() -> Registry {
    Registry::new().with::<Spin>(Spinner)
}

fn slot() -> SlotSpec {
    let me = std::env::current_exe().unwrap();
    SlotSpec::new("spin-0", vec![Spin::KIND], CommandSpec::new(me, ["child"]))
}

/// The mean time of a task.
async fn measure(pool: &dyn ProcessorPool, work: Duration, rounds: u32) -> Duration {
    let cx = Context::detached();
    let task = Spin { nanos: u64::try_from(work.as_nanos()).unwrap() };
    // The child is started by the first one.
    pool.run_task(JobId(0), None, &task, &cx).await.unwrap();
    let begun = Instant::now();
    for n in 1..=rounds {
        pool.run_task(JobId(u128::from(n)), None, &task, &cx).await.unwrap();
    }
    begun.elapsed() / rounds
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "child") {
        serve(registry(), &ServeOptions::default()).unwrap();
        return;
    }
    let asked = args.iter().find_map(|arg| arg.strip_suffix("ms").and_then(|ms| ms.parse().ok()));
    let works = asked.map_or_else(|| vec![0, 1, 1000], |ms: u64| vec![ms]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut bound = slot();
    bound.placement.cpus = "0".parse().ok();
    let pools: [(&str, Arc<dyn ProcessorPool>); 3] = [
        ("in process", Arc::new(InlinePool::new(registry()))),
        ("child", Arc::new(LocalPool::new(PoolSpec::new(vec![slot()])).unwrap())),
        ("child, bound", Arc::new(LocalPool::new(PoolSpec::new(vec![bound])).unwrap())),
    ];
    for ms in works {
        let work = Duration::from_millis(ms);
        let rounds = if ms >= 100 { 5 } else { 500 };
        let begun = Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(spin(work));
        }
        let direct = begun.elapsed() / rounds;
        println!("work of {work:?}: directly {direct:?}");
        for (name, pool) in &pools {
            let mean = runtime.block_on(measure(&**pool, work, rounds));
            let added = mean.saturating_sub(direct);
            let ratio = mean.as_secs_f64() / direct.as_secs_f64();
            println!("  {name:<13} {mean:?} (+{added:?}, ratio {ratio:.4})");
        }
    }
    runtime.block_on(async {
        for (_, pool) in &pools {
            pool.drain().await.unwrap();
        }
    });
}
