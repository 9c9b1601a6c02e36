//! Random pools.

use damocles_core::{ByteSize, GpuId, pool::TaskKind};
use damocles_seal::pool::{Backlog, Breaker, CommandSpec, PoolSpec, SlotSpec};
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use std::time::Duration;

pub(crate) const KINDS: [&str; 6] = ["add_pieces", "pc1", "pc2", "c1", "c2", "window_post"];
const LOCKS: [&str; 3] = ["a", "b", "c"];
pub(crate) const GPUS: [&str; 2] = ["G0", "G1"];

/// A pool with every rule in it now and then.
pub(crate) fn mix(random: &mut StdRng) -> PoolSpec {
    let slots = (0..random.gen_range(1..7)).map(|number| slot(number, random)).collect();
    let mut spec = PoolSpec::new(slots);
    // Even, so that half of it is whole seconds too.
    spec.rest = Duration::from_secs(2 * random.gen_range(1..4));
    spec.breaker = Breaker { failures: random.gen_range(1..4), rest: Duration::from_secs(60) };
    spec.at_once = random.gen_bool(0.2).then(|| random.gen_range(1..5));
    spec.limits.ext_locks = LOCKS.iter().map(|lock| ((*lock).to_owned(), random.gen_range(1..3))).collect();
    for kind in KINDS {
        let kind = TaskKind::new(kind);
        if random.gen_bool(0.2) {
            spec.limits.concurrent.insert(kind.clone(), random.gen_range(1..4));
        }
        if random.gen_bool(0.2) {
            spec.limits.staggered.insert(kind, Duration::from_secs(random.gen_range(3..40)));
        }
    }
    for (kind, next) in [("pc1", "pc2"), ("pc2", "c2")] {
        let next = TaskKind::new(next);
        if random.gen_bool(0.6) && spec.slots.iter().any(|slot| slot.kinds.contains(&next)) {
            spec.backlog.insert(TaskKind::new(kind), Backlog { next, most: random.gen_range(0..3) });
        }
    }
    spec.check().expect("a random pool is one that could be configured");
    spec
}

fn slot(number: usize, random: &mut StdRng) -> SlotSpec {
    let of = random.gen_range(1..4);
    let kinds = KINDS.choose_multiple(random, of).map(|kind| TaskKind::new(kind)).collect();
    let mut slot = SlotSpec::new(format!("slot-{number}"), kinds, CommandSpec::new("true", [""; 0]));
    slot.concurrent = random.gen_range(1..4);
    slot.auto_restart = random.gen_bool(0.8);
    if random.gen_bool(0.4) {
        let of = random.gen_range(1..4);
        slot.locks = LOCKS.choose_multiple(random, of).map(ToString::to_string).collect();
    }
    if random.gen_bool(0.4) {
        let of = random.gen_range(1..3);
        slot.placement.gpus = GPUS.choose_multiple(random, of).map(|gpu| GpuId((*gpu).to_owned())).collect();
    }
    if random.gen_bool(0.4) {
        slot.placement.memory = Some(ByteSize(random.gen_range(1..3)));
    }
    slot
}
