//! Public conformance suites: the contract of each seam, run against any implementation of it.
//!
//! A suite panics with the broken clause. It is given the implementation in a known state, described at each suite.

pub mod allocator;
pub mod chain;
pub mod pipeline;
pub mod pool;
pub mod post;
