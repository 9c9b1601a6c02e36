//! Proof parameters, made before anything proves or verifies.

use crate::{exit::Failure, progress::Progress};
use anyhow::Context as _;
use damocles_core::{CancellationToken, SectorSize};
use damocles_seal::params::{CircuitId, CircuitKind, ParamProgress, ParameterCache, ParamsError};
use parking_lot::Mutex;
use std::time::Duration;

/// Sees to the parameters that sealing and proving sectors of this size takes: those in the standard cache are used,
/// missing ones are made.
///
/// # Errors
///
/// They cannot be made, e.g. because they come from the trusted set-up.
pub async fn ensure(size: SectorSize, progress: &Progress, cancel: CancellationToken) -> Result<(), Failure> {
    let progress = progress.clone();
    let work = move || {
        let cache = ParameterCache::of_library();
        let shown = Mutex::new(None);
        let tell = |event: ParamProgress| show(&progress, &shown, &cache, event);
        cache.ensure(&CircuitId::for_sealing(size.bytes()), &cancel, &tell).map(drop).map_err(failure)
    };
    tokio::task::spawn_blocking(work).await.context("prepare proof parameters")?
}

/// Sees to what a devnet verifies with and nobody seals with: the key of replica updates, and that of aggregated proofs.
/// Where these cannot be made the devnet does without, and says so: it refuses such proofs, and all else works.
///
/// # Errors
///
/// The process is told to stop.
pub async fn ensure_for_devnet(
    size: SectorSize,
    progress: &Progress,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    let waiting = progress.clone();
    let tell = move |event| {
        if let ParamProgress::Waiting = event {
            waiting.note("another process makes proof parameters; waiting for it");
        }
    };
    let work = move || {
        let cache = ParameterCache::of_library();
        let updates = CircuitId::new(CircuitKind::SectorUpdate, size.bytes());
        cache.ensure_verifying_keys(&[updates], &cancel, &tell)?;
        cache.ensure_srs(&cancel, &tell)
    };
    match tokio::task::spawn_blocking(work).await.context("prepare the devnet's verifying keys")? {
        Ok(_) => Ok(()),
        Err(error @ ParamsError::Cancelled) => Err(failure(error)),
        Err(error) => {
            let hint = error.hint().unwrap_or("see to the directory of proof parameters");
            progress.note(format_args!("this devnet refuses replica updates or aggregated proofs: {error}; {hint}"));
            Ok(())
        }
    }
}

fn show(
    progress: &Progress,
    shown: &Mutex<Option<crate::progress::TaskProgress>>,
    cache: &ParameterCache,
    event: ParamProgress,
) {
    match event {
        ParamProgress::Planned { missing, estimated_seconds } => {
            let about = Duration::from_secs(estimated_seconds.max(1));
            progress.note(format_args!(
                "the first run makes {} sets of proof parameters in `{}`: about {} on this kind of machine",
                missing.len(),
                cache.dir().display(),
                humantime::format_duration(about)
            ));
        }
        ParamProgress::Waiting => progress.note("another process makes proof parameters; waiting for it"),
        ParamProgress::Started { circuit } => {
            *shown.lock() = Some(progress.task(format!("parameters {circuit}"), Some(1000)));
        }
        ParamProgress::Advanced { fraction, .. } => {
            if let Some(task) = &*shown.lock() {
                task.set(per_mille(fraction));
            }
        }
        ParamProgress::Finished(_) => {
            if let Some(task) = shown.lock().take() {
                task.done("made");
            }
        }
        _ => {}
    }
}

/// A fraction as a count of thousandths.
fn per_mille(fraction: f64) -> u64 {
    (0..=1000u32).rev().find(|n| f64::from(*n) <= fraction * 1000.0).map_or(0, u64::from)
}

fn failure(error: ParamsError) -> Failure {
    let hint = error.hint();
    let failure = Failure::from(anyhow::Error::new(error).context("prepare proof parameters"));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
