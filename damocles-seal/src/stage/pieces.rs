//! Which pieces a sector must hold.

use super::{Stage, StageDeps, StageOutcome, fault, id};
use crate::{
    journal::SectorRecord,
    task::{PieceContent, PieceInput},
};
use async_trait::async_trait;
use damocles_core::{
    Context,
    pipeline::{SealError, StageId, Wake},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Asks for the pieces of the sector and fetches their bytes, or waits until there are some.
#[derive(Debug)]
pub struct PiecesStage(pub Arc<StageDeps>);

/// The pieces in order, each with its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PiecesOutput {
    /// The pieces; none means committed capacity.
    pub inputs: Vec<PieceInput>,
}

#[async_trait]
impl Stage for PiecesStage {
    fn id(&self) -> StageId {
        id::PIECES
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        let policy = deps.deals.get();
        let asked = deps.service.pieces(record.lease(), policy.terms());
        let pieces = deps.ask(cx, "ask for pieces", asked).await?;
        if pieces.is_empty() && policy.waits {
            return Ok(StageOutcome::Wait(Wake::After(policy.ask_again)));
        }
        let bytes = pieces.iter().map(|piece| piece.payload_size).fold(0, u64::saturating_add);
        let _room = deps.room_for_pieces(record, bytes, cx).await?;
        let mut inputs = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            let content = if piece.payload_size == 0 {
                PieceContent::Zeros
            } else {
                let into = deps.store.pieces(record.sector());
                let Some(file) = deps.pieces.fetch(piece, &into, cx).await? else {
                    return Err(fault::failed("fetch piece", "no source has it")
                        .with("sector", record.sector())
                        .with("piece", piece.piece.comm_p)
                        .hint_with("put the file into one of worker.local_pieces_dirs, named by its CID"));
                };
                PieceContent::File(file)
            };
            inputs.push(PieceInput { piece: piece.piece, content });
        }
        StageOutcome::done(&PiecesOutput { inputs })
    }
}
