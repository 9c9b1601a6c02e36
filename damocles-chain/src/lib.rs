#![doc = include_str!("../README.md")]

#[cfg(feature = "devnet")]
pub mod devnet;
pub mod lotus_json;
