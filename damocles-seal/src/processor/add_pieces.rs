//! Writing the data of a sector.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{parent, sync_dir},
    fillers::{fillers, start_of},
    library::{self, failed, zero_piece},
};
use crate::task::{AddPieces, AddedPieces, PieceContent};
use damocles_core::{CommD, CommP, PaddedPieceSize, PieceInfo, SealProofType};
use filecoin_proofs_api::{UnpaddedBytesAmount, seal};
use fs_err as fs;
use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Writes pieces through the proofs library's Fr32 writer and checks their commitments.
///
/// A piece lies at a multiple of its size. Zeros fill the gaps and the rest of the sector, as the fewest pieces of
/// powers of two: what the chain computes the data commitment from. They are holes in the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddPiecesProcessor;

impl Processor<AddPieces> for AddPiecesProcessor {
    fn process(&self, task: AddPieces, progress: &dyn ProgressSink) -> Result<AddedPieces, ProcessorError> {
        let sector = task.proof_type.sector_size().bytes();
        let (mut added, mut offset) = (Vec::new(), 0);
        let mut expected = task.pieces.iter().map(|input| input.piece.comm_p);
        let inputs = task.pieces.iter().map(|input| (&input.content, input.piece.size));
        write_all(task.proof_type, inputs, &task.staged, |start, piece| {
            if let Some(expected) = expected.next().filter(|expected| *expected != piece.comm_p) {
                let found = piece.comm_p;
                let what = format!("the content of piece {expected} is another piece, {found}");
                return Err(ProcessorError::because(what));
            }
            fill(&mut added, offset, start)?;
            added.push(piece);
            offset = start + piece.size.bytes();
            progress.progress(offset, Some(sector));
            Ok(())
        })?;
        fill(&mut added, offset, sector)?;
        let comm_d = seal::compute_comm_d(library::seal_proof(task.proof_type), &library::pieces(&added)?)
            .map_err(|e| failed("compute the data commitment", e))?;
        Ok(AddedPieces { pieces: added, comm_d: CommD(comm_d) })
    }
}

impl AddPiecesProcessor {
    /// Writes pieces of which nobody says what they should be, and says what they are.
    pub(super) fn add(
        &self,
        proof_type: SealProofType,
        pieces: &[(PieceContent, PaddedPieceSize)],
        staged: &Path,
    ) -> Result<Vec<PieceInfo>, ProcessorError> {
        let mut added = Vec::with_capacity(pieces.len());
        write_all(proof_type, pieces.iter().map(|(content, size)| (content, *size)), staged, |_, piece| {
            added.push(piece);
            Ok(())
        })?;
        Ok(added)
    }
}

/// Writes pieces into a sector of zeros, and tells of each where it is and what it is.
fn write_all<'a>(
    proof_type: SealProofType,
    pieces: impl Iterator<Item = (&'a PieceContent, PaddedPieceSize)>,
    staged: &Path,
    mut written: impl FnMut(u64, PieceInfo) -> Result<(), ProcessorError>,
) -> Result<(), ProcessorError> {
    let io = |e| ProcessorError::new("write the staged file", e);
    let sector = proof_type.sector_size().bytes();
    fs::create_dir_all(parent(staged)).map_err(io)?;
    let options = || fs::OpenOptions::new();
    let mut file = options().read(true).write(true).create(true).truncate(true).open(staged).map_err(io)?;
    // Zeros, all of it, for as long as nothing is written.
    file.set_len(sector).map_err(io)?;
    let mut offset = 0_u64;
    for (content, size) in pieces {
        let start = start_of(size.bytes(), offset);
        offset = start.checked_add(size.bytes()).filter(|end| *end <= sector).ok_or_else(|| {
            let size = size.bytes();
            ProcessorError::because(format!("a piece of {size} bytes does not fit at {start} of {sector}"))
        })?;
        let comm_p = write(proof_type, content, size, &mut file, start)?;
        written(start, PieceInfo { comm_p, size })?;
    }
    file.sync_all().map_err(io)?;
    sync_dir(parent(staged)).map_err(io)
}

/// Adds zero pieces from `from` to `to`.
fn fill(added: &mut Vec<PieceInfo>, from: u64, to: u64) -> Result<(), ProcessorError> {
    for size in fillers(from, to) {
        added.push(zero_piece(size)?);
    }
    Ok(())
}

fn write(
    proof_type: SealProofType,
    content: &PieceContent,
    size: PaddedPieceSize,
    file: &mut fs::File,
    start: u64,
) -> Result<CommP, ProcessorError> {
    let path = match content {
        PieceContent::Zeros => return zero_piece(size).map(|zeros| zeros.comm_p),
        PieceContent::File(path) => path,
    };
    let what = || format!("write the piece in {}", path.display());
    let size = size.unpadded().bytes();
    let source = open(path, size)?;
    file.seek(SeekFrom::Start(start)).map_err(|e| ProcessorError::new(what(), e))?;
    let padded = source.chain(io::repeat(0)).take(size);
    let proof = library::seal_proof(proof_type);
    let (info, _) =
        seal::write_and_preprocess(proof, padded, file, UnpaddedBytesAmount(size)).map_err(|e| failed(what(), e))?;
    Ok(CommP(info.commitment))
}

fn open(path: &Path, size: u64) -> Result<fs::File, ProcessorError> {
    let file = fs::File::open(path).map_err(|e| ProcessorError::new("open a piece", e))?;
    let len = file.metadata().map_err(|e| ProcessorError::new("look at a piece", e))?.len();
    if len > size {
        let path = path.display();
        return Err(ProcessorError::because(format!("{path} has {len} bytes, more than the {size} of its piece")));
    }
    Ok(file)
}
