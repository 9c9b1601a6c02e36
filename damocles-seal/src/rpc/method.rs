//! A method of the wire.

use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// A method of the wire. Parameters are a tuple: on the wire they are positional.
pub trait Method: Send + Sync + 'static {
    /// Its full name.
    const NAME: &'static str;

    /// How much longer than others it may take.
    const EXTRA_TIME: Duration;

    /// Its parameters.
    type Params: Serialize + DeserializeOwned + Send + Sync;

    /// Its result.
    type Output: Serialize + DeserializeOwned + Send;
}

macro_rules! method {
    ($(#[$meta:meta])* $name:ident, $wire:literal, $params:ty => $output:ty) => {
        method!($(#[$meta])* $name, $wire, $params => $output, std::time::Duration::ZERO);
    };
    ($(#[$meta:meta])* $name:ident, $wire:literal, $params:ty => $output:ty, $extra:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl $crate::rpc::Method for $name {
            const NAME: &'static str = $wire;
            const EXTRA_TIME: std::time::Duration = $extra;
            type Params = $params;
            type Output = $output;
        }
    };
}
pub(super) use method;
