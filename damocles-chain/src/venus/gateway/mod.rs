//! sophon-gateway.
mod config;
pub use config::GatewayConfig;
