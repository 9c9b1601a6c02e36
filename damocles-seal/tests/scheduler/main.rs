//! Random mixes of tasks through the scheduler of a pool, judged by rules written down a second time.
#![expect(clippy::indexing_slicing, reason = "a wrong index is a failed test")]

mod checker;
mod drive;
mod mix;

use checker::{Rule, check};
use damocles_seal::pool::PoolSpec;
use drive::{Event, Trace, drive};
use mix::mix;
use rand::{SeedableRng as _, rngs::StdRng};
use std::collections::BTreeMap;

/// Everything that happened with this seed, when the scheduler is told `told` of the pool that there is.
fn trace_of(seed: u64, told: impl FnOnce(&mut PoolSpec)) -> (PoolSpec, Trace) {
    let mut random = StdRng::seed_from_u64(seed);
    let spec = mix(&mut random);
    let mut told_spec = spec.clone();
    told(&mut told_spec);
    let trace = drive(&told_spec, &mut random);
    (spec, trace)
}

#[test]
fn a_thousand_random_mixes_break_no_rule_and_come_to_an_end() {
    let mut seen = BTreeMap::<&str, usize>::new();
    let mut kept = 0;
    for seed in 0..1000 {
        let (spec, trace) = trace_of(seed, |_| ());
        assert_eq!(trace.left, 0, "seed {seed}: jobs wait for ever");
        match check(&spec, &trace) {
            Ok(here) => kept += here,
            Err(found) => panic!("seed {seed}: {found:?}\n{spec:#?}"),
        }
        for (_, event) in &trace.events {
            *seen.entry(event.name()).or_default() += 1;
        }
    }
    // What never happens is not tested.
    for name in
        ["push", "leave", "grant", "began", "release", "ended", "failed", "forget", "resume", "claimed", "recall"]
    {
        assert!(seen.get(name).is_some_and(|n| *n > 500), "{name}: {seen:?}");
    }
    assert!(seen["claimed in vain"] > 100 && kept > 1000, "{kept} waits for what is kept: {seen:?}");
}

/// What the checker finds when the scheduler is told less than the truth.
fn found_with(told: impl Fn(&mut PoolSpec)) -> BTreeMap<Rule, usize> {
    let mut found = BTreeMap::new();
    for seed in 0..200 {
        let (spec, trace) = trace_of(seed, &told);
        if let Err(broken) = check(&spec, &trace) {
            *found.entry(broken.rule).or_default() += 1;
        }
    }
    found
}

#[test]
fn the_checker_catches_a_scheduler_that_does_not_know_a_rule() {
    let locks = found_with(|spec| spec.slots.iter_mut().for_each(|slot| slot.locks.clear()));
    assert!(locks.contains_key(&Rule::Lock), "{locks:?}");
    let gpus = found_with(|spec| spec.slots.iter_mut().for_each(|slot| slot.placement.gpus.clear()));
    assert!(gpus.contains_key(&Rule::Gpu), "{gpus:?}");
    let memory = found_with(|spec| spec.slots.iter_mut().for_each(|slot| slot.placement.memory = None));
    assert!(memory.contains_key(&Rule::Fit), "{memory:?}");
    let limits = found_with(|spec| spec.limits.concurrent.clear());
    assert!(limits.contains_key(&Rule::Limit), "{limits:?}");
    let at_once = found_with(|spec| spec.at_once = None);
    assert!(at_once.contains_key(&Rule::Limit), "{at_once:?}");
    let stagger = found_with(|spec| spec.limits.staggered.clear());
    assert!(stagger.contains_key(&Rule::Stagger), "{stagger:?}");
    let backlog = found_with(|spec| spec.backlog.clear());
    assert!(backlog.contains_key(&Rule::Downstream), "{backlog:?}");
    let rest = found_with(|spec| spec.rest /= 2);
    assert!(rest.contains_key(&Rule::Health), "{rest:?}");
    let breaker = found_with(|spec| spec.breaker.failures = 1000);
    assert!(breaker.contains_key(&Rule::Health), "{breaker:?}");
    let restart = found_with(|spec| spec.slots.iter_mut().for_each(|slot| slot.auto_restart = true));
    assert!(restart.contains_key(&Rule::Health), "{restart:?}");
}

#[test]
fn the_checker_catches_a_scheduler_that_holds_back() {
    let limit = found_with(|spec| spec.at_once = Some(1));
    assert!(limit.contains_key(&Rule::Idle), "{limit:?}");
    let slow = found_with(|spec| spec.rest *= 3);
    assert!(slow.contains_key(&Rule::Idle), "{slow:?}");
    let apart = found_with(|spec| spec.limits.staggered.values_mut().for_each(|gap| *gap *= 2));
    assert!(apart.contains_key(&Rule::Idle), "{apart:?}");
}

/// Changes one grant of a good trace and judges what was before it and the change.
fn tamper(change: impl Fn(&[(u64, Event)], usize) -> Option<Event>) -> BTreeMap<Rule, usize> {
    let mut found = BTreeMap::new();
    for seed in 0..200 {
        let (spec, mut trace) = trace_of(seed, |_| ());
        let changed = (0..trace.events.len()).rev().find_map(|at| Some((at, change(&trace.events, at)?)));
        let Some((at, event)) = changed else { continue };
        trace.events[at].1 = event;
        trace.events.truncate(at + 1);
        if let Err(broken) = check(&spec, &trace) {
            *found.entry(broken.rule).or_default() += 1;
        }
    }
    found
}

/// Who waits before this point, by ticket, with the kind.
fn line(events: &[(u64, Event)]) -> BTreeMap<u64, &str> {
    let mut line = BTreeMap::new();
    for (_, event) in events {
        match event {
            Event::Push { ticket, kind, memory: None, sector: None } => drop(line.insert(*ticket, kind.as_str())),
            Event::Leave { ticket } | Event::Grant { ticket, .. } => drop(line.remove(ticket)),
            _ => {}
        }
    }
    line
}

#[test]
fn the_checker_catches_claims_that_are_not_given_up_and_what_is_taken_from_those_ahead() {
    // Nobody is told to leave who should be.
    let untold = tamper(|events, at| {
        let Event::Recall { .. } = events[at].1 else { return None };
        Some(Event::Settled)
    });
    assert!(untold.get(&Rule::Claim).is_some_and(|n| *n > 20), "{untold:?}");
    // A start that comes before the claim.
    let early = tamper(|events, at| match events[at].1 {
        Event::Claiming { place } => Some(Event::Claimed { place, begins: true }),
        _ => None,
    });
    assert!(early.get(&Rule::Stagger).is_some_and(|n| *n > 50), "{early:?}");
}

#[test]
fn the_checker_catches_grants_out_of_order_and_grants_that_were_forgotten() {
    let later = tamper(|events, at| {
        let Event::Grant { ticket, place } = events[at].1 else { return None };
        let line = line(&events[..at]);
        let kind = *line.get(&ticket)?;
        let (later, _) = line.range(ticket + 1..).find(|(_, other)| **other == kind)?;
        Some(Event::Grant { ticket: *later, place })
    });
    assert!(later.get(&Rule::Order).is_some_and(|n| *n > 50) && later.len() == 1, "{later:?}");
    let forgotten = tamper(|events, at| matches!(events[at].1, Event::Grant { .. }).then_some(Event::Settled));
    assert!(forgotten.get(&Rule::Idle).is_some_and(|n| *n > 150) && forgotten.len() == 1, "{forgotten:?}");
}
