//! For which networks messages can be written.

/// Actors whose parameters this build writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActorsVersion {
    /// The network version that they came with.
    pub network: u32,
    /// Their own version.
    pub actors: u32,
    /// What the upgrade was called.
    pub name: &'static str,
}

impl ActorsVersion {
    /// All that this build writes messages for.
    ///
    /// Network version 29 (actors v19, FIP-0118) is not among them. It reads every message of v18 but answers some
    /// otherwise: allocations of pieces and claims of extensions are ignored, all new sectors get full quality
    /// (`FULL_QA_POWER`), and method 37, `UpgradeSectorQuality`, is new. A manager that went on sending would pledge
    /// and extend by rules that are no longer those of the chain.
    pub const KNOWN: [Self; 1] = [Self { network: 28, actors: 18, name: "FireHorse" }];

    /// The actors of a network version.
    ///
    /// # Errors
    ///
    /// This build does not know how that version's actors read messages, so none may be sent.
    pub fn of(network: u32) -> Result<Self, UnknownNetworkVersion> {
        Self::KNOWN.into_iter().find(|known| known.network == network).ok_or(UnknownNetworkVersion { network })
    }
}

/// A network version whose actors this build cannot talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network is at version {network}, and this build writes messages for {} only", known())]
pub struct UnknownNetworkVersion {
    /// The network version.
    pub network: u32,
}

fn known() -> String {
    let each = ActorsVersion::KNOWN.map(|known| format!("{} (actors v{})", known.network, known.actors));
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_versions_are_refused_by_number() {
        assert_eq!(ActorsVersion::of(28).unwrap().actors, 18);
        for network in [0, 27, 29, u32::MAX] {
            let error = ActorsVersion::of(network).unwrap_err().to_string();
            assert!(error.contains(&network.to_string()) && error.contains("28 (actors v18)"), "{error}");
        }
    }
}
