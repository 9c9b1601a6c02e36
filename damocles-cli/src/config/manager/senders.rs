//! `[senders]`: who pays for messages.

use super::{ConfigError, Source, quoted};
use damocles_chain::{Lanes, Senders, read_addresses};
use damocles_core::{Address, chain::ChainError};
use serde::Deserialize;
use std::fmt;

/// `[senders]`: each an address whose key the wallet holds, or a list of them that share the messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SendersSection {
    /// For every message that no other key names; the wallet's only BLS key if it is absent.
    pub default: Option<Addresses>,
    /// For WindowPoSts and recoveries.
    pub post: Option<Addresses>,
    /// For pre-commits and proofs.
    pub commit: Option<Addresses>,
    /// For making miners; the new miner's owner if it is absent.
    pub create_miner: Option<Addresses>,
}

/// What stands in a file for one role: an address, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Addresses(#[serde(deserialize_with = "read_addresses")] Vec<Address>);

impl From<Address> for Addresses {
    fn from(address: Address) -> Self {
        Self(vec![address])
    }
}

impl SendersSection {
    fn roles(&self) -> [(&'static str, Option<&Addresses>); 4] {
        let Self { default, post, commit, create_miner } = self;
        [("default", default), ("post", post), ("commit", commit), ("create_miner", create_miner)]
            .map(|(role, named)| (role, named.as_ref()))
    }

    pub(super) fn check(&self, source: &Source) -> Result<(), ConfigError> {
        for (role, named) in self.roles() {
            let Some(Addresses(named)) = named else { continue };
            if named.is_empty() {
                let error = source.error_at(&format!("senders.{role}"), "names nobody");
                return Err(error.hint_with("name an address or several, or remove it: then the default sends"));
            }
            if let Some(place) = Lanes::repeated(named) {
                let error = source.error_at(&format!("senders.{role}[{place}]"), "is there twice");
                return Err(error.hint_with(
                    "name each address once: messages are shared among addresses, and not among places in the list",
                ));
            }
        }
        Ok(())
    }

    /// Who sends what; `only` is the default sender where the section names none.
    ///
    /// # Errors
    ///
    /// A role is empty or has an address twice, which no file that was read has, or there is no default sender.
    pub fn senders(&self, only: Option<Address>) -> Result<Senders, ChainError> {
        let lanes = |named: &Option<Addresses>| named.clone().map(|Addresses(all)| Lanes::new(all)).transpose();
        Ok(Senders {
            default: lanes(&self.default)?.map_or_else(|| Lanes::new(only.into_iter().collect()), Ok)?,
            post: lanes(&self.post)?,
            commit: lanes(&self.commit)?,
            create_miner: lanes(&self.create_miner)?,
        })
    }

    pub(super) fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        writeln!(out, "\n# Who pays for messages: addresses whose keys the wallet holds, or lists of them.")?;
        writeln!(out, "# Without `default` it is the only BLS key.\n[senders]")?;
        for (role, named) in self.roles() {
            match named {
                Some(Addresses(named)) => match named.as_slice() {
                    [one] => writeln!(out, "{role} = {}", quoted(one.as_str()))?,
                    all => {
                        let all = all.iter().map(|address| toml::Value::String(address.to_string()));
                        writeln!(out, "{role} = {}", toml::Value::Array(all.collect()))?;
                    }
                },
                None => writeln!(out, "# {role} = \"f3...\"")?,
            }
        }
        Ok(())
    }
}
