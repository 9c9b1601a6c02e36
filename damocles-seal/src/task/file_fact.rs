//! What is recorded of a file instead of its contents.

use damocles_core::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Name, length and time of a file: enough to see that it is not the one that was recorded.
///
/// Contents are hashed where they are copied, never for the journal's sake: layers have hundreds of GiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFact {
    /// The path, relative to the store.
    pub path: PathBuf,
    /// The length in bytes.
    pub len: u64,
    /// The time of the last change.
    pub modified: Timestamp,
}
