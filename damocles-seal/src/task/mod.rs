//! The units of sealing work, as data. One file a task; what does the work is in [`crate::processor`].

mod add_pieces;
mod c1;
mod c2;
mod file_fact;
mod pc1;
mod pc2;
mod probe;
mod transfer;
mod tree_d;

pub use add_pieces::{AddPieces, AddedPieces, PieceContent, PieceInput};
pub use c1::{C1, C1Output};
pub use c2::{C2, C2Output};
pub use file_fact::FileFact;
pub use pc1::{Pc1, Pc1Output};
pub use pc2::{Pc2, Pc2Output};
pub use probe::{FoundStore, Probe, Probed, Unusable};
pub use transfer::{CopiedFile, CopyFile, Transfer, Transferred};
pub use tree_d::{TreeD, TreeDOutput};
