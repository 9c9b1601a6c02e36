//! Building the tree over a sector's data.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{clear_dir, expect_len, sync_dir, sync_file},
    library::{TREE_D, failed},
};
use crate::{
    sys,
    task::{TreeD, TreeDOutput},
};
use damocles_core::CommD;
use filecoin_proofs::{constants::DefaultPieceHasher, types::StoreConfig};
use fs_err as fs;
use std::io;
use storage_proofs_core::{
    cache_key::CacheKey,
    merkle::{BinaryMerkleTree, create_base_merkle_tree},
};

/// Builds the tree in a directory of its own and moves it into place: the library would load whatever lies there.
#[derive(Clone, Copy, Debug, Default)]
pub struct TreeDProcessor;

impl Processor<TreeD> for TreeDProcessor {
    fn process(&self, task: TreeD, _: &dyn ProgressSink) -> Result<TreeDOutput, ProcessorError> {
        let io = |e: io::Error| ProcessorError::new("write the data tree", e);
        let len = task.proof_type.sector_size().bytes();
        expect_len("staged file", &task.staged, len)?;
        let building = task.dir.join(".tree-d.damocles-tmp");
        clear_dir(&building, |_| false).map_err(io)?;
        let staged = fs::File::open(&task.staged).map_err(|e| ProcessorError::new("read the staged file", e))?;
        let data = sys::Mapped::of(staged.file())
            .map_err(|e| ProcessorError::new(format!("map the staged file {}", task.staged.display()), e))?;
        let config = StoreConfig::new(&building, CacheKey::CommDTree.to_string(), 0);
        let leaves = usize::try_from(len / 32).map_err(|e| ProcessorError::new("address the sector", e))?;
        let tree = create_base_merkle_tree::<BinaryMerkleTree<DefaultPieceHasher>>(Some(config), leaves, data.bytes())
            .map_err(|e| failed(format!("build the data tree of {}", task.staged.display()), e))?;
        let comm_d = CommD(tree.root().into());
        drop((tree, data));
        let file = task.dir.join(TREE_D);
        sync_file(&building.join(TREE_D)).map_err(io)?;
        fs::rename(building.join(TREE_D), &file).map_err(io)?;
        fs::remove_dir(&building).map_err(io)?;
        sync_dir(&task.dir).map_err(io)?;
        Ok(TreeDOutput { comm_d, file })
    }
}
