//! The rule about GPUs. Two slots may name one card: the supervisor leases it to one task at a time.

use super::{SlotClaim, Violation, ViolationKind};
use crate::machine::Machine;
use damocles_core::GpuId;
use std::collections::BTreeMap;

pub(super) fn exist(machine: &Machine, slot: &SlotClaim) -> Vec<Violation> {
    let unknown = slot.gpus.iter().filter(|gpu| machine.gpu(gpu).is_none());
    unknown
        .map(|gpu| {
            let known: Vec<&str> = machine.gpus.iter().map(|g| g.uuid.0.as_str()).collect();
            let remedy = if known.is_empty() {
                "this machine has none: remove it, and check that the driver's libnvidia-ml.so.1 is installed"
                    .to_owned()
            } else {
                format!("name one of {}", known.join(", "))
            };
            Violation {
                kind: ViolationKind::UnknownGpu,
                of: vec![slot.name.clone()],
                message: format!("there is no GPU `{gpu}`"),
                remedy,
            }
        })
        .collect()
}

/// Each card once, whatever it is called: by number, by its identifier or by the beginning of that.
pub(super) fn not_twice(machine: &Machine, slot: &SlotClaim) -> Vec<Violation> {
    let mut first: BTreeMap<&GpuId, &str> = BTreeMap::new();
    let mut violations = Vec::new();
    for name in &slot.gpus {
        let Some(gpu) = machine.gpu(name) else { continue };
        if let Some(before) = first.insert(&gpu.uuid, name) {
            violations.push(Violation {
                kind: ViolationKind::RepeatedGpu,
                of: vec![slot.name.clone()],
                message: format!("`{before}` and `{name}` are the same GPU, {}", gpu.uuid),
                remedy: "name each GPU once".to_owned(),
            });
        }
    }
    violations
}
