//! A sector on its way through the processors.

use damocles_core::{
    ActorId, PieceInfo, PoStProofType, SealProofType, SectorId, SectorNumber, SectorSize,
    pool::Task,
    post::{Replica, ReplicaPaths},
    verify::{ProvenSector, Randomness},
};
use damocles_seal::{
    processor::{self, ProcessorError, ProgressSink},
    task::{
        AddPieces, AddedPieces, C1, C1Output, Pc1, Pc1Output, Pc2, Pc2Output, PieceContent, PieceInput, TreeD,
        TreeDOutput,
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) const SIZE: SectorSize = SectorSize::KiB2;
pub(crate) const PROOF: SealProofType = SealProofType::of(SIZE);
pub(crate) const WINDOW: PoStProofType = PoStProofType::window(SIZE);
pub(crate) const MINER: ActorId = ActorId(1000);
pub(crate) const TREE_D: &str = "sc-02-data-tree-d.dat";

struct Deaf;

impl ProgressSink for Deaf {
    fn progress(&self, _: u64, _: Option<u64>) {}
}

/// Runs a task as a pool would: through the registry, as JSON.
pub(crate) fn run<T: Task>(task: &T) -> Result<T::Output, ProcessorError> {
    let payload = serde_json::to_vec(task).unwrap();
    let output = processor::all().run(&T::KIND, &payload, &Deaf).expect("every kind is served")?;
    Ok(serde_json::from_slice(&output).unwrap())
}

/// The error and its causes.
pub(crate) fn text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", text(cause)),
        None => error.to_string(),
    }
}

#[derive(Debug)]
pub(crate) struct Sector {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) id: SectorId,
}

impl Sector {
    pub(crate) fn new(number: u64) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), id: SectorId::new(MINER, SectorNumber(number)) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn cache(&self, name: &str) -> PathBuf {
        self.path("cache").join(name)
    }

    pub(crate) fn add_pieces(&self, pieces: Vec<PieceInput>) -> Result<AddedPieces, ProcessorError> {
        run(&AddPieces { proof_type: PROOF, pieces, staged: self.path("staged") })
    }

    pub(crate) fn tree_d(&self) -> Result<TreeDOutput, ProcessorError> {
        run(&TreeD { proof_type: PROOF, staged: self.path("staged"), dir: self.path("prepared") })
    }

    pub(crate) fn pc1(&self, pieces: &[PieceInfo], tree_d: Option<PathBuf>) -> Result<Pc1Output, ProcessorError> {
        run(&Pc1 {
            sector: self.id,
            proof_type: PROOF,
            ticket: Randomness([7; 32]),
            pieces: pieces.to_vec(),
            staged: self.path("staged"),
            sealed: self.path("sealed"),
            cache: self.path("cache"),
            tree_d,
        })
    }

    pub(crate) fn pc2(&self, pc1: &Pc1Output) -> Result<Pc2Output, ProcessorError> {
        run(&Pc2 {
            sector: self.id,
            proof_type: PROOF,
            pc1: pc1.clone(),
            staged: self.path("staged"),
            sealed: self.path("sealed"),
            cache: self.path("cache"),
        })
    }

    pub(crate) fn c1(&self, pieces: &[PieceInfo], pc2: &Pc2Output) -> Result<C1Output, ProcessorError> {
        run(&C1 {
            sector: self.id,
            proof_type: PROOF,
            ticket: Randomness([7; 32]),
            seed: Randomness([8; 32]),
            comm_r: pc2.comm_r,
            comm_d: pc2.comm_d,
            pieces: pieces.to_vec(),
            sealed: self.path("sealed"),
            cache: self.path("cache"),
            output: self.path("c1.json"),
        })
    }

    /// A sealed sector without pieces.
    pub(crate) fn sealed(number: u64) -> (Self, Replica) {
        let sector = Self::new(number);
        let added = sector.add_pieces(Vec::new()).unwrap();
        let pc1 = sector.pc1(&added.pieces, None).unwrap();
        let comm_r = sector.pc2(&pc1).unwrap().comm_r;
        let paths = ReplicaPaths { sealed: sector.path("sealed"), cache: sector.path("cache") };
        let replica = Replica { sector: ProvenSector { number: sector.id.number, comm_r }, paths };
        (sector, replica)
    }

    /// A piece of this many padded bytes with some content in a file.
    pub(crate) fn piece(&self, name: &str, padded: u64, content: &[u8]) -> PieceInput {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        PieceInput { piece: commit(padded, content), content: PieceContent::File(path) }
    }
}

/// What a piece with this content is, computed by the library's other function for it.
pub(crate) fn commit(padded: u64, content: &[u8]) -> PieceInfo {
    use filecoin_proofs_api::{RegisteredSealProof, UnpaddedBytesAmount, seal::generate_piece_commitment};
    use std::io::Read;
    let size = damocles_core::PaddedPieceSize::try_from(padded).unwrap();
    let unpadded = size.unpadded().bytes();
    let source = content.chain(std::io::repeat(0)).take(unpadded);
    let info =
        generate_piece_commitment(RegisteredSealProof::StackedDrg2KiBV1_1, source, UnpaddedBytesAmount(unpadded));
    PieceInfo { comm_p: damocles_core::CommP(info.unwrap().commitment), size }
}

/// The files below a directory with their contents.
pub(crate) fn contents(dir: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    fs::read_dir(dir).unwrap().map(entry).collect()
}
