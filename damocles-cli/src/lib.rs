//! `damocles-manager` and `damocles-worker`: arguments, configuration, composition and rendering. What they do is in
//! the libraries `damocles-seal`, `damocles-post` and `damocles-chain`; start reading at [`manager`] or [`worker`].

pub mod config;
pub mod exit;
mod frame;
pub mod log;
pub mod manager;
pub mod output;
pub mod progress;
pub mod server;
pub mod signals;
pub mod supervised;
pub mod worker;
