//! Which privileges the daemon needs.

use super::{Isolation, IsolationSpec, PlacementError, PlacementErrorKind};
use crate::{pool::SlotSpec, sys::kept_capabilities};
use caps::{CapSet, Capability};
use damocles_core::Error;
use std::collections::HashSet;

/// A capability that some setting needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityNeed {
    /// The capability, as the kernel names it.
    pub capability: String,
    /// What cannot be done without it.
    pub needed_for: &'static str,
    /// What can be done instead of granting it.
    instead: Option<String>,
}

impl CapabilityNeed {
    /// How it is granted, or done without.
    pub fn hint(&self) -> String {
        let grant = format!(
            "as root `setcap {}+ep $(command -v damocles-worker)`, or in the unit of systemd `AmbientCapabilities={}`",
            self.capability.to_lowercase(),
            self.capability
        );
        match &self.instead {
            Some(instead) => format!("{instead}; or {grant}"),
            None => grant,
        }
    }
}

/// The capabilities that this process has.
///
/// # Errors
///
/// The kernel does not say.
pub fn own_capabilities() -> Result<Vec<String>, PlacementError> {
    let mut all: Vec<_> = effective()?.into_iter().collect();
    all.sort_by_key(Capability::index);
    Ok(all.iter().map(ToString::to_string).collect())
}

fn effective() -> Result<HashSet<Capability>, PlacementError> {
    caps::read(None, CapSet::Effective)
        .map_err(|e| Error::new(PlacementErrorKind::Kernel, "read capabilities").because(e.to_string()))
}

/// What this process lacks to run these slots as they are configured. It makes nothing.
///
/// # Errors
///
/// The kernel does not say which capabilities this process has, or which control groups it is in.
pub fn missing_capabilities(
    isolation: &IsolationSpec,
    slots: &[SlotSpec],
) -> Result<Vec<CapabilityNeed>, PlacementError> {
    let may_make_groups = Isolation::new(isolation.clone()).may_make_groups(slots)?;
    Ok(missing(&effective()?, may_make_groups, isolation.keep_capabilities))
}

/// With groups that were set up for its user, and with affinity and memory policy alone, a process needs none. Without
/// these groups it needs what root has to make directories that belong to root, and to move processes into them.
fn missing(have: &HashSet<Capability>, may_make_groups: bool, keep_capabilities: bool) -> Vec<CapabilityNeed> {
    let mut needs = Vec::new();
    if !may_make_groups {
        needs.push(CapabilityNeed {
            capability: Capability::CAP_DAC_OVERRIDE.to_string(),
            needed_for: "making the control groups that slots with a memory limit or a CPU weight need",
            instead: Some(super::error::grant()),
        });
    }
    let kept = kept_capabilities(true);
    let is_kept = |capability: &Capability| kept & (1 << capability.index()) != 0;
    if !keep_capabilities && have.iter().any(|capability| !is_kept(capability)) {
        needs.push(CapabilityNeed {
            capability: Capability::CAP_SETPCAP.to_string(),
            needed_for: "taking from children the capabilities that they do not need",
            instead: None,
        });
    }
    needs.retain(|need| !have.iter().any(|capability| capability.to_string() == need.capability));
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named_with_what_grants_it() {
        let named = |have: &[Capability], groups, keep| {
            let needs = missing(&have.iter().copied().collect(), groups, keep);
            needs.into_iter().map(|need| need.capability).collect::<Vec<_>>()
        };
        use Capability as C;
        assert_eq!(named(&[], true, false), [""; 0], "an ordinary user with groups of its own needs nothing");
        assert_eq!(named(&[], false, false), ["CAP_DAC_OVERRIDE"]);
        assert_eq!(named(&[C::CAP_DAC_OVERRIDE], false, false), [""; 0], "children may keep that one");
        assert_eq!(named(&[C::CAP_DAC_OVERRIDE, C::CAP_SYS_ADMIN], false, false), ["CAP_SETPCAP"]);
        assert_eq!(named(&[C::CAP_SYS_ADMIN], true, true), [""; 0], "they keep all");
        assert_eq!(named(&[C::CAP_SYS_ADMIN, C::CAP_SETPCAP], true, false), [""; 0]);
        let [need] = &missing(&HashSet::new(), false, false)[..] else { panic!("one") };
        for part in ["cgroup setup --user", "setcap cap_dac_override+ep", "AmbientCapabilities=CAP_DAC_OVERRIDE"] {
            assert!(need.hint().contains(part), "{}", need.hint());
        }
    }
}
