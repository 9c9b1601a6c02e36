//! The processors that the programs serve.

use super::{
    AddPiecesProcessor, C1Processor, C2Processor, Pc1Processor, Pc2Processor, ProbeProcessor, ProveWindowPoStProcessor,
    ReadChallengesProcessor, Registry, TransferProcessor, TreeDProcessor,
};
use crate::task::{AddPieces, C1, C2, Pc1, Pc2, Probe, Transfer, TreeD};
use damocles_core::post::{ProveWindowPoSt, ReadChallenges};

/// What seals a sector.
pub fn sealing_registry() -> Registry {
    sealing(Registry::new())
}

/// Everything.
pub fn all() -> Registry {
    post(sealing(Registry::new()))
}

fn sealing(registry: Registry) -> Registry {
    registry
        .with::<AddPieces>(AddPiecesProcessor)
        .with::<TreeD>(TreeDProcessor)
        .with::<Pc1>(Pc1Processor::default())
        .with::<Pc2>(Pc2Processor)
        .with::<C1>(C1Processor)
        .with::<C2>(C2Processor)
        .with::<Transfer>(TransferProcessor::default())
        .with::<Probe>(ProbeProcessor)
}

fn post(registry: Registry) -> Registry {
    registry.with::<ReadChallenges>(ReadChallengesProcessor).with::<ProveWindowPoSt>(ProveWindowPoStProcessor)
}
