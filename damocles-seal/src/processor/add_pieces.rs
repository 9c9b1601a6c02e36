//! Writing the data of a sector.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{parent, sync_dir},
    library::{self, failed, zero_piece},
};
use crate::task::{AddPieces, AddedPieces, PieceContent, PieceInput};
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
        let io = |e| ProcessorError::new("write the staged file", e);
        let sector = task.proof_type.sector_size().bytes();
        fs::create_dir_all(parent(&task.staged)).map_err(io)?;
        let options = || fs::OpenOptions::new();
        let mut file = options().read(true).write(true).create(true).truncate(true).open(&task.staged).map_err(io)?;
        // Zeros, all of it, for as long as nothing is written.
        file.set_len(sector).map_err(io)?;
        let mut added = Vec::new();
        let mut offset = 0;
        for input in &task.pieces {
            let size = input.piece.size.bytes();
            let start = offset + (size - offset % size) % size;
            fill(&mut added, offset, start)?;
            offset = start.checked_add(size).filter(|end| *end <= sector).ok_or_else(|| {
                let piece = input.piece.comm_p;
                ProcessorError::because(format!("piece {piece} of {size} bytes does not fit at {start} of {sector}"))
            })?;
            let written = write(task.proof_type, input, &mut file, start)?;
            if written != input.piece.comm_p {
                let expected = input.piece.comm_p;
                return Err(ProcessorError::because(format!(
                    "the content of piece {expected} is another piece, {written}"
                )));
            }
            added.push(input.piece);
            progress.progress(offset, Some(sector));
        }
        fill(&mut added, offset, sector)?;
        file.sync_all().map_err(io)?;
        sync_dir(parent(&task.staged)).map_err(io)?;
        let comm_d = seal::compute_comm_d(library::seal_proof(task.proof_type), &library::pieces(&added)?)
            .map_err(|e| failed("compute the data commitment", e))?;
        Ok(AddedPieces { pieces: added, comm_d: CommD(comm_d) })
    }
}

/// Adds zero pieces from `from` to `to`: each as large as its place allows.
fn fill(added: &mut Vec<PieceInfo>, mut from: u64, to: u64) -> Result<(), ProcessorError> {
    while from < to {
        let room = 1 << (to - from).ilog2();
        let aligned = if from == 0 { room } else { 1 << from.trailing_zeros() };
        let size = room.min(aligned);
        let size = PaddedPieceSize::try_from(size).map_err(|e| ProcessorError::new("fill the sector", e))?;
        added.push(zero_piece(size)?);
        from += size.bytes();
    }
    Ok(())
}

fn write(
    proof_type: SealProofType,
    input: &PieceInput,
    file: &mut fs::File,
    start: u64,
) -> Result<CommP, ProcessorError> {
    let path = match &input.content {
        PieceContent::Zeros => return zero_piece(input.piece.size).map(|zeros| zeros.comm_p),
        PieceContent::File(path) => path,
    };
    let what = || format!("write piece {}", input.piece.comm_p);
    let size = input.piece.size.unpadded().bytes();
    let source = open(path, size)?;
    file.seek(SeekFrom::Start(start)).map_err(|e| ProcessorError::new(what(), e))?;
    let padded = source.chain(io::repeat(0)).take(size);
    let proof = library::seal_proof(proof_type);
    let (info, _) = seal::write_and_preprocess(proof, padded, file, UnpaddedBytesAmount(size))
        .map_err(|e| failed(format!("{} from {}", what(), path.display()), e))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_with_the_fewest_aligned_pieces() {
        for (from, to, sizes) in [
            (0, 2048, vec![2048]),
            (128, 2048, vec![128, 256, 512, 1024]),
            (128, 512, vec![128, 256]),
            (1024, 1024, vec![]),
            (512, 2048, vec![512, 1024]),
        ] {
            let mut added = Vec::new();
            fill(&mut added, from, to).unwrap();
            assert_eq!(added.iter().map(|p| p.size.bytes()).collect::<Vec<_>>(), sizes, "{from}..{to}");
        }
    }
}
