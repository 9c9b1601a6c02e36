//! `damocles-worker store ...`: directories become stores.

use super::args::StoreCommand;
use crate::{
    exit::Failure,
    output::{Printer, Render, table},
};
use damocles_seal::store::{PersistStore, SealingStore};
use serde::Serialize;
use std::path::PathBuf;

/// The version of the document that is printed with `--json`.
const VERSION: u32 = 1;

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    version: u32,
    stores: Vec<MadeStore>,
}

#[derive(Debug, Serialize)]
struct MadeStore {
    location: PathBuf,
    kind: &'static str,
    /// A sealing store's is what leases belong to; a persist store is known by its own wherever it is mounted.
    id: String,
}

impl Render for Made {
    fn text(&self, color: bool) -> String {
        let rows = self
            .stores
            .iter()
            .map(|store| vec![store.location.display().to_string(), store.kind.to_owned(), store.id.clone()]);
        table(&["LOCATION", "KIND", "ID"], rows, color)
    }
}

/// Makes every directory into a store, and stops at the first that cannot become one.
pub(super) fn init(command: StoreCommand, printer: Printer) -> Result<(), Failure> {
    let mut made = Made { version: VERSION, stores: Vec::new() };
    let ended = match command {
        StoreCommand::SealingInit(asked) => asked.directories.locations.into_iter().try_for_each(|location| {
            let id = SealingStore::init_for(&location, asked.worker.as_deref())?.as_str().to_owned();
            made.stores.push(MadeStore { location, kind: "sealing", id });
            Ok(())
        }),
        StoreCommand::FileInit(locations) => locations.locations.into_iter().try_for_each(|location| {
            let id = PersistStore::init(&location, None)?;
            made.stores.push(MadeStore { location, kind: "persist", id });
            Ok(())
        }),
    };
    // What was made before a failure exists: it is said, whatever follows.
    if !made.stores.is_empty() {
        printer.data(&made)?;
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exit::Exit,
        worker::args::{Locations, SealingInit},
    };

    #[test]
    fn a_store_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let printer = Printer::new(true, true);
        let sealing = || SealingInit {
            directories: Locations { locations: vec![dir.path().join("s")] },
            worker: Some("w1".to_owned()),
        };
        init(StoreCommand::SealingInit(sealing()), printer).unwrap();
        let again = init(StoreCommand::SealingInit(sealing()), printer).unwrap_err();
        assert_ne!(again.exit, Exit::Ok);
        assert!(SealingStore::open(&dir.path().join("s")).is_ok());
        assert!(SealingStore::look_as(&dir.path().join("s"), "w2").is_err());

        let persist = Locations { locations: vec![dir.path().join("p"), dir.path().join("q")] };
        init(StoreCommand::FileInit(persist), printer).unwrap();
        assert!(PersistStore::open(&dir.path().join("q"), Some("q"), false).is_ok());
    }
}
