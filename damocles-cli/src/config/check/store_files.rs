//! What the sealing stores of the machine say themselves.

use crate::config::{ConfigError, Findings, StoreFile, WorkerConfig};
use damocles_seal::store::SealingStore;
use std::path::Path;

/// Reads what each store says into the thread that it belongs to.
pub(super) fn read(config: &mut WorkerConfig, found: &mut Findings<'_>) {
    for i in 0..config.sealing_thread.len() {
        let Some(location) = config.sealing_thread.get(i).map(|thread| thread.location.clone()) else { continue };
        // That there is no store is told elsewhere.
        if SealingStore::look(&location).is_err() {
            continue;
        }
        match (store_file(&location), config.sealing_thread.get_mut(i)) {
            (Ok(file), Some(thread)) => thread.store = file,
            (Err(errors), _) => found.extend(errors),
            (Ok(_), None) => {}
        }
    }
}

/// What the store of one of the threads says; nothing if it has no file. Blocks while the disk does not answer.
///
/// # Errors
///
/// All that keeps the file from being used, in the order of the text.
pub(crate) fn store_file(location: &Path) -> Result<StoreFile, Vec<ConfigError>> {
    let Some(source) = StoreFile::source(location).map_err(|error| vec![error])? else {
        return Ok(StoreFile::default());
    };
    let (read, found) = StoreFile::parse_all(&source);
    let (errors, _) = found.into_parts();
    if errors.is_empty() { Ok(read.unwrap_or_default()) } else { Err(errors) }
}
