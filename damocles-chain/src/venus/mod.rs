//! The chain behind a Venus cluster: reads from the node, messages through the messager, keys behind the gateway.
//!
//! In a cluster nobody who sends messages holds keys. sophon-messager fills in nonce and gas, has a wallet sign by way
//! of sophon-gateway, and sends; sophon-auth says who may ask for what.
//!
//! - [`VenusClient`] is a [`ChainClient`](damocles_core::chain::ChainClient) without a signer: the messager is one. A
//!   call lies in a table of ours before anything leaves, and goes to the messager under a name that follows from its
//!   key ([`message_uid`]), so that a key is one message however often either side ends in between. Whether a message
//!   is on chain is asked of the node, never of the messager: both have a head of their own, and after a conflict of
//!   nonces a messager shows the receipt of somebody else's message. What the messager calls failed, or in conflict, is
//!   in trouble and not dropped, for what it signed may still land; it is dropped once that cannot be, because its
//!   nonce is used up for good.
//! - [`messager::MessagerClient`] has the messager's calls one by one, for operators and for other programs.
//! - [`gateway::GatewayLink`] is the other direction: winning proofs for the block makers of the cluster, and
//!   signatures with keys that lie here.
//!
//! # Setting it up
//!
//! 1. Make an account in sophon-auth for this manager (`sophon-auth user add`), bind the miners and the senders to it
//!    (`user miner add`, `user signer register`) and make a token with permission `sign`; the calls that replace
//!    messages, mark them bad and recover them want `admin`.
//! 2. Connect a wallet with the senders' keys to the gateway: venus-wallet, or a wallet of ours by
//!    [`gateway::GatewayLink::wallet`] (`damocles-manager wallet run --gateway`). A key with a policy is offered only if
//!    that allows the purpose `verifyaddress`, by which the gateway checks that the key is there, besides the messages
//!    that it is to sign.
//! 3. Name node, messager and gateway in a [`VenusConfig`], each as a URL or multiaddress: port 3453, 39812 and 45132
//!    where nobody changed them. The senders are those of step 1; proofs of spacetime deserve one of their own.
//! 4. Look at the fees: [`FeesByClass`] bounds what a message's gas may cost, and the limits what is sent along.
//!    A factor of zero leaves the estimate to what the messager is set to.
//!
//! ```no_run
//! use damocles_chain::{Senders, venus::{VenusClient, VenusConfig}};
//! use damocles_core::{CancellationToken, chain::ChainClient};
//! use std::sync::Arc;
//!
//! # async fn example(database: sqlx::AnyPool, token: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let senders = Senders::all("f01001".parse()?);
//! let config = VenusConfig::new("/ip4/10.0.0.2/tcp/3453/http".parse()?, "http://10.0.0.2:39812".parse()?, senders)
//!     .with_gateway("ws://10.0.0.2:45132".parse()?)
//!     .with_token(token);
//! let chain = VenusClient::connect(config, database).await?;
//! let cancel = CancellationToken::new();
//! tokio::spawn({
//!     let (chain, cancel) = (Arc::clone(&chain), cancel.clone());
//!     async move { chain.run(cancel).await }
//! });
//! println!("{}", chain.head().await?.epoch);
//! # Ok(())
//! # }
//! ```

mod client;
mod config;
pub mod gateway;
pub mod messager;
mod prepare;
mod run;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod view;

pub use client::{Cancelled, Price, VenusClient, VenusEntry};
pub use config::{FeesByClass, MessageFees, VenusConfig};
pub use prepare::message_uid;
pub use store::VenusState;
