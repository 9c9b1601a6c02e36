//! Named fakes of every seam, for tests of what is built on them. Nothing here is used by the programs.

mod allocator;
mod chain;
mod clock;
pub mod fake_proof;
mod pipeline;
mod pool;
mod post;

pub use allocator::InMemoryAllocator;
pub use chain::{InMemoryChain, LandedCall};
pub use clock::FakeClock;
pub use fake_proof::FakeVerifier;
pub use pipeline::ScriptedPipeline;
pub use pool::FakePool;
pub use post::FakePoStScheduler;
