//! Which privileges the daemon needs.

use super::{PlacementError, PlacementErrorKind};
use caps::{CapSet, Capability};
use damocles_core::Error;

/// A capability that some setting needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityNeed {
    /// The capability, as the kernel names it.
    pub capability: String,
    /// What cannot be done without it.
    pub needed_for: &'static str,
}

/// What this process lacks for an isolation whose groups it cannot make by ordinary permissions.
///
/// With groups that were set up for its user, and with affinity and memory policy alone, it needs none. Without, it needs
/// what root has: to make directories that belong to root, and to move processes of other users.
///
/// # Errors
///
/// The kernel does not say which capabilities this process has.
pub fn missing_capabilities(
    may_make_groups: bool,
    keep_capabilities: bool,
) -> Result<Vec<CapabilityNeed>, PlacementError> {
    let unknown =
        |e: caps::errors::CapsError| Error::new(PlacementErrorKind::Kernel, "read capabilities").because(e.to_string());
    let have = caps::read(None, CapSet::Effective).map_err(unknown)?;
    let mut needs = Vec::new();
    if !may_make_groups {
        needs.push((Capability::CAP_DAC_OVERRIDE, "making control groups that were not set up for this user"));
    }
    let is_privileged = have.len() > 1;
    if is_privileged && !keep_capabilities {
        needs.push((Capability::CAP_SETPCAP, "taking from children the capabilities that they do not need"));
    }
    let missing = needs.into_iter().filter(|(capability, _)| !have.contains(capability));
    Ok(missing.map(|(c, needed_for)| CapabilityNeed { capability: c.to_string(), needed_for }).collect())
}
