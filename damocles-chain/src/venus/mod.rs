//! The chain behind a Venus cluster: reads from the node, messages through the messager, keys behind the gateway.


pub mod messager;
#[cfg(feature = "testing")]
pub mod testing;
