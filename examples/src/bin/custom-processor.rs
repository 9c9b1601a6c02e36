//! An external prover: a program of one's own that a pool starts, feeds with tasks, watches and stops.
//!
//! The task is a plain struct; what does it is a `Processor`; `serve` speaks the child protocol on standard input and
//! output. Here one program is both sides: started with `child` it is the prover, else the pool that starts it. One for
//! sealing is the same with tasks that exist already: `Registry::new().with::<C2>(MyProver)`. A child in another language
//! speaks the frames of `docs/processor-protocol.md`.
//!
//! The proof here is one of work: a nonce that takes long to find and no time to check.
//!
//! ```sh
//! cargo run --bin custom-processor  # about a second; nothing is faked
//! ```
#![expect(clippy::print_stdout, reason = "it shows what it does")]

use anyhow::{Context as _, ensure};
use damocles_core::{
    Context, Event, EventSink, JobId,
    pool::{PoolErrorKind, ProcessorPool, ProcessorPoolExt, Task, TaskKind},
};
use damocles_seal::{
    pool::{CommandSpec, LocalPool, PoolSpec, SlotSpec},
    processor::{Processor, ProcessorError, ProgressSink, Registry, ServeOptions, serve},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{env, sync::Arc};

/// The task, as data: it goes to the child as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    challenge: String,
    /// How many zero bits the digest must begin with.
    bits: u32,
}

impl Task for Work {
    const KIND: TaskKind = TaskKind::new("work");
    type Output = u64;
}

impl Work {
    fn is_proven_by(&self, nonce: u64) -> bool {
        let digest = Sha256::new().chain_update(&self.challenge).chain_update(nonce.to_le_bytes()).finalize();
        digest.first_chunk().is_some_and(|head| u64::from_be_bytes(*head).leading_zeros() >= self.bits)
    }
}

/// The child's side.
#[derive(Debug)]
struct Prover;

impl Processor<Work> for Prover {
    fn process(&self, task: Work, progress: &dyn ProgressSink) -> Result<u64, ProcessorError> {
        if task.bits > 40 {
            return Err(ProcessorError::because(format!("{} zero bits would take years", task.bits)));
        }
        let mut tries = (0..u64::MAX).inspect(|n| {
            if n % 10_000 == 0 {
                progress.progress(*n, None);
            }
        });
        tries.find(|nonce| task.is_proven_by(*nonce)).ok_or_else(|| ProcessorError::because("there is no such nonce"))
    }
}

/// The parent's side: shows what the pool tells.
#[derive(Debug)]
struct Show;

impl EventSink for Show {
    fn emit(&self, event: Event) {
        if let Event::Job { what, .. } = event {
            println!("event    {what:?}");
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if env::args().nth(1).as_deref() == Some("child") {
        // Until the pool says so, or is gone.
        return Ok(serve(Registry::new().with(Prover), &ServeOptions::default()).map(|_| ())?);
    }
    let me = CommandSpec::new(env::current_exe()?, ["child"]);
    let pool = LocalPool::new(PoolSpec::new(vec![SlotSpec::new("work-0", vec![Work::KIND], me)]))?;
    let cx = Context::new(Arc::new(Show));

    let task = Work { challenge: "damocles".to_owned(), bits: 16 };
    let nonce = pool.run_task(JobId(1), None, &task, &cx).await?;
    ensure!(task.is_proven_by(nonce), "the child gave {nonce}, which proves nothing");
    let pid = pool.slots().first().and_then(|slot| slot.pid).context("the child is kept for the next task")?;
    println!("proven   by {nonce}, in process {pid}; this one is {}", std::process::id());

    // What a child cannot do is an error with its words, and the child goes on.
    let error = pool.run_task(JobId(2), None, &Work { bits: 99, ..task }, &cx).await.expect_err("nobody can do that");
    ensure!(error.kind() == PoolErrorKind::Failed, error);
    println!("refused  {}", error.chain());
    Ok(pool.drain().await?)
}
