//! What the end-to-end tests share: the fake prover, a counting proxy, and a harness that runs the real programs.

pub mod audit;
pub mod chain_support;
pub mod fake_prover;
pub mod lab;
pub mod program;
pub mod proxy;
pub mod recorded;
