//! `damocles-manager` and `damocles-worker`: arguments, configuration, composition and rendering. What they do is in
//! the libraries `damocles-seal`, `damocles-post` and `damocles-chain`; start reading at [`manager`] or [`worker`].

pub mod children;
pub mod clock;
pub mod config;
pub mod database;
pub mod exit;
mod frame;
pub mod log;
mod logging;
pub mod manager;
pub mod output;
pub mod parameters;
pub mod progress;
pub mod quickstart;
pub mod server;
pub mod signals;
pub mod supervised;
pub mod verifier;
pub mod worker;
