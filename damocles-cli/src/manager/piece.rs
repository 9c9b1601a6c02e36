//! `piece add`.

use super::remote;
use crate::{config::manager::Home, exit::Failure, output::Render};
use anyhow::Context as _;
use damocles_core::{PieceInfo, SectorSize};
use damocles_seal::{piece_of_file, rpc::damocles::AddPiece};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A piece that waits for a sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its place in the queue.
    pub id: u64,
    /// The piece.
    pub piece: PieceInfo,
    /// The bytes of it that are data.
    pub payload_size: u64,
    /// The file.
    pub file: PathBuf,
}

impl Render for Queued {
    fn text(&self, _: bool) -> String {
        format!("piece  {}\nsize   {}\nfile   {}", self.piece.comm_p, self.piece.size.bytes(), self.file.display())
    }
}

/// Puts a file's data into the queue of a running manager.
///
/// # Errors
///
/// The file cannot be read or the manager does not take it.
pub async fn add(file: &Path, home: &Home) -> Result<Queued, Failure> {
    queue(file, home).await
}

async fn queue(file: &Path, home: &Home) -> Result<Queued, Failure> {
    let file = fs_err::canonicalize(file)?;
    let path = file.clone();
    let worked = tokio::task::spawn_blocking(move || piece_of_file(&path)).await;
    let (piece, payload_size) = worked.context("compute the piece's commitment")??;
    let id = remote::ask::<AddPiece>(home, &(piece, payload_size, file.clone())).await?;
    Ok(Queued { id, piece, payload_size, file })
}

/// Makes a file of data that fills a sector of this size, and queues it once.
///
/// # Errors
///
/// The directory cannot be written or the manager does not take it.
pub async fn add_sample(dir: &Path, home: &Home, size: SectorSize) -> Result<(), Failure> {
    let (file, queued) = (dir.join("sample.txt"), dir.join("sample.queued"));
    if queued.exists() {
        return Ok(());
    }
    let length = usize::try_from(size.unpadded_bytes()).unwrap_or(usize::MAX);
    let text = "Damocles keeps what it is given. ".bytes().cycle().take(length).collect::<Vec<_>>();
    let unnamed = dir.join("sample.new");
    fs_err::write(&unnamed, text)?;
    fs_err::rename(&unnamed, &file)?;
    queue(&file, home).await?;
    // Marked after it was queued: after a crash in between, it is queued again rather than forgotten.
    Ok(fs_err::write(&queued, "")?)
}
