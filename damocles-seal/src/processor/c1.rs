//! The challenged nodes.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{expect_len, replace},
    library::{self, failed},
};
use crate::task::{C1, C1Output};
use filecoin_proofs_api::seal::{self, SealPreCommitPhase2Output};
use std::io::{BufWriter, Write};

/// Reads the challenged nodes with the proofs library and writes them as JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct C1Processor;

impl Processor<C1> for C1Processor {
    fn process(&self, task: C1, _: &dyn ProgressSink) -> Result<C1Output, ProcessorError> {
        expect_len("sealed file", &task.sealed, task.proof_type.sector_size().bytes())?;
        let pre_commit = SealPreCommitPhase2Output {
            registered_proof: library::seal_proof(task.proof_type),
            comm_r: task.comm_r.0,
            comm_d: task.comm_d.0,
        };
        let nodes = seal::seal_commit_phase1(
            &task.cache,
            &task.sealed,
            library::prover_id(task.sector.miner),
            library::sector_id(task.sector.number),
            task.ticket.0,
            task.seed.0,
            pre_commit,
            &library::pieces(&task.pieces)?,
        )
        .map_err(|e| failed(format!("C1 of {} from {}", task.sector, task.cache.display()), e))?;
        let len = replace(&task.output, |file| {
            let mut writer = BufWriter::new(&mut *file);
            serde_json::to_writer(&mut writer, &nodes)?;
            writer.flush()?;
            drop(writer);
            Ok(file.metadata()?.len())
        })
        .map_err(|e| ProcessorError::new("write the challenged nodes", e))?;
        Ok(C1Output { file: task.output, len })
    }
}
