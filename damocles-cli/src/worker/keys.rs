//! Which verifying keys this worker has compared with its manager's.

use crate::config::worker::SealingSettings;
use damocles_core::SectorSize;

/// The sizes whose keys were compared when the worker began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// There is nothing to compare on a network of fake proofs.
    Nothing,
    /// These were, of those that the manager tells keys for.
    Sizes {
        /// What the manager tells keys for.
        told: Vec<SectorSize>,
        /// What is compared, or whose parameters are there at least.
        known: Vec<SectorSize>,
    },
}

impl Compared {
    /// The sizes that other settings would bring in and that nobody has looked at: their proofs could be worthless.
    pub(super) fn lacks(&self, before: &SealingSettings, after: &SealingSettings) -> Vec<SectorSize> {
        let Self::Sizes { told, known } = self else { return Vec::new() };
        let allowed = |settings: &SealingSettings| match settings.allowed_sizes.is_empty() {
            true => told.clone(),
            false => settings.allowed_sizes.clone(),
        };
        let before = allowed(before);
        allowed(after).into_iter().filter(|size| !before.contains(size) && !known.contains(size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, WorkerConfig};

    fn settings(sizes: &[SectorSize]) -> SealingSettings {
        let text = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\n[[sealing_thread]]\nlocation = \"/mnt/a\"\n";
        let config = WorkerConfig::parse(&Source::of("worker.toml", text)).unwrap();
        SealingSettings { allowed_sizes: sizes.to_vec(), ..config.threads().remove(0) }
    }

    #[test]
    fn a_size_that_nobody_compared_is_not_let_in() {
        use SectorSize as S;
        let (two, three) = (vec![S::KiB2, S::GiB32], vec![S::KiB2, S::GiB32, S::GiB64]);
        let compared = |told: &[S], known: &[S]| Compared::Sizes { told: told.to_vec(), known: known.to_vec() };
        for (keys, before, after, lacks) in [
            (compared(&two, &two), &[S::KiB2][..], &[][..], &[][..]),
            (compared(&two, &two), &[], &[S::GiB32], &[]),
            (compared(&three, &two), &[S::KiB2], &[], &[S::GiB64]),
            (compared(&two, &two), &[S::KiB2], &[S::GiB64, S::GiB32], &[S::GiB64]),
            (compared(&two, &two), &[], &[S::GiB64], &[S::GiB64]),
            // What was so at the start is so now.
            (compared(&[], &[S::GiB32]), &[S::GiB32, S::GiB64], &[S::GiB64], &[]),
            (compared(&[], &[S::KiB2]), &[S::KiB2], &[S::GiB32], &[S::GiB32]),
            (Compared::Nothing, &[S::KiB2], &[S::GiB64], &[]),
        ] {
            assert_eq!(keys.lacks(&settings(before), &settings(after)), lacks, "{keys:?} {before:?} {after:?}");
        }
    }
}
