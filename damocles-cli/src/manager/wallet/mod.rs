//! `wallet`: keys in one encrypted file, and signing for other machines.

pub mod args;
mod balance;
mod command;
mod keys;
pub(super) mod offer;
pub(crate) mod password;
mod policy;
mod remote;
mod serve;
mod sign;
pub(super) mod watch;

pub(super) use command::run;
