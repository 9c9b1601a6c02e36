//! What a view calls for.

use crate::{Deadlines, Options};
use damocles_core::{
    Epoch, PartitionIndex, SectorSet,
    chain::{DeadlineInfo, DeadlineState, PartitionState},
    post::{Duty, DutyKind, ProvingView},
};

/// The duties that a view calls for, most urgent first. Pure.
///
/// - Partitions are to be proven from the challenge on (20 epochs before their deadline opens) to the last epoch in
///   which a message can still land. They are grouped by index, so that a partition that was proven meanwhile
///   does not change the other groups.
/// - Faulty sectors that are not recovering are to be checked and declared before the cut-off of their deadline.
/// - What nothing can be done about any more is not planned.
pub fn plan(view: &ProvingView, options: &Options) -> Vec<Duty> {
    let Some(deadlines) = Deadlines::of(&view.current) else {
        return Vec::new();
    };
    let mut duties = Vec::new();
    for (index, state) in &view.deadlines {
        let Some(deadline) = deadlines.next(*index, view.at.epoch) else {
            continue;
        };
        duties.extend(proofs(view, &deadline, state, options));
        duties.extend(recoveries(view, &deadline, state, options));
    }
    duties.sort_by_key(|duty| (duty.due, rank(&duty.what), duty.deadline.index, first(&duty.what)));
    duties.dedup();
    duties
}

/// What a proof for these partitions has to cover now, in order; proven and empty partitions are left out.
pub(crate) fn to_prove(state: &DeadlineState, is_open: bool) -> Vec<(PartitionIndex, SectorSet)> {
    // Before the deadline opens the list of proven partitions cannot be about this occurrence.
    let proven = |index: PartitionIndex| is_open && state.proven.contains(&index.0);
    listed(state, |p| p.to_prove()).into_iter().filter(|(index, _)| !proven(*index)).collect()
}

/// The faulty sectors that could be declared recovered, in order.
pub(crate) fn to_recover(state: &DeadlineState) -> Vec<(PartitionIndex, SectorSet)> {
    listed(state, |p| p.faulty.intersect(&p.live).minus(&p.recovering))
}

fn listed(state: &DeadlineState, pick: impl Fn(&PartitionState) -> SectorSet) -> Vec<(PartitionIndex, SectorSet)> {
    let numbered = (0..).map(PartitionIndex).zip(&state.partitions);
    numbered.map(|(index, partition)| (index, pick(partition))).filter(|(_, sectors)| !sectors.is_empty()).collect()
}

fn proofs(view: &ProvingView, deadline: &DeadlineInfo, state: &DeadlineState, options: &Options) -> Vec<Duty> {
    let (now, due) = (view.at.epoch, deadline.close - 1 - options.due_margin.max(0));
    if now < deadline.challenge + options.challenge_confidence.max(0) || now >= due {
        return Vec::new();
    }
    let per_proof = per_proof(state, options);
    let partitions = to_prove(state, deadline.open <= now);
    let groups = partitions.chunk_by(|(a, _), (b, _)| a.0 / per_proof == b.0 / per_proof);
    groups.map(|group| duty(view, deadline, due, DutyKind::Prove { partitions: group.to_vec() })).collect()
}

/// Counted by the largest partition with all that it ever held, so that groups stay what they are while a deadline is
/// proven.
fn per_proof(state: &DeadlineState, options: &Options) -> u64 {
    let largest = state.partitions.iter().map(|p| p.all.len()).max().unwrap_or_default().max(1);
    let fitting = u64::try_from(Options::MAX_SECTORS_PER_PROOF / largest);
    options.partitions_per_proof.clamp(1, Options::MAX_PARTITIONS_PER_PROOF).min(fitting.unwrap_or(u64::MAX)).max(1)
}

fn recoveries(view: &ProvingView, deadline: &DeadlineInfo, state: &DeadlineState, options: &Options) -> Vec<Duty> {
    let (now, due) = (view.at.epoch, deadline.fault_cutoff - 1 - options.due_margin.max(0));
    if now >= due {
        return Vec::new();
    }
    let partitions = to_recover(state);
    let groups = partitions.chunks(options.partitions_per_declaration.max(1));
    groups.map(|group| duty(view, deadline, due, DutyKind::Recover { partitions: group.to_vec() })).collect()
}

fn duty(view: &ProvingView, deadline: &DeadlineInfo, due: Epoch, what: DutyKind) -> Duty {
    Duty { miner: view.miner, deadline: deadline.clone(), what, due }
}

fn rank(what: &DutyKind) -> u8 {
    match what {
        DutyKind::Prove { .. } => 0,
        _ => 1,
    }
}

fn first(what: &DutyKind) -> Option<PartitionIndex> {
    partitions_of(what).first().map(|(index, _)| *index)
}

/// The partitions that a duty is about.
pub(crate) fn partitions_of(what: &DutyKind) -> &[(PartitionIndex, SectorSet)] {
    match what {
        DutyKind::Prove { partitions } | DutyKind::Recover { partitions } => partitions,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::tests::info;
    use damocles_core::{
        ActorId, DeadlineIndex, SectorNumber,
        chain::{TipsetKey, TipsetRef},
    };
    use proptest::prelude::*;

    const MINER: ActorId = ActorId(1000);

    fn sectors(numbers: &[u64]) -> SectorSet {
        numbers.iter().copied().map(SectorNumber).collect()
    }

    fn partition(live: &[u64], faulty: &[u64], recovering: &[u64]) -> PartitionState {
        PartitionState {
            all: sectors(live),
            live: sectors(live),
            faulty: sectors(faulty),
            recovering: sectors(recovering),
            active: sectors(live).minus(&sectors(faulty)),
        }
    }

    fn view(now: i64, deadlines: Vec<(u64, DeadlineState)>) -> ProvingView {
        let current = Deadlines::of(&info(0, 0, 0)).unwrap().current(Epoch(now));
        ProvingView {
            at: TipsetRef { epoch: Epoch(now), key: TipsetKey::default() },
            miner: MINER,
            current,
            deadlines: deadlines.into_iter().map(|(i, s)| (DeadlineIndex(i), s)).collect(),
        }
    }

    fn holding(partitions: Vec<PartitionState>, proven: &[u64]) -> DeadlineState {
        DeadlineState { proven: proven.to_vec(), partitions }
    }

    #[test]
    fn a_deadline_can_be_proven_from_its_challenge_on() {
        let state = || holding(vec![partition(&[1, 2], &[2], &[])], &[]);
        let options = Options { challenge_confidence: 3, ..Options::default() };
        // Deadline 10 opens at 600 and is challenged at 580.
        let planned = |now| plan(&view(now, vec![(10, state())]), &options);
        assert!(planned(582).is_empty());
        for now in [583, 600, 658] {
            let [duty] = &planned(now)[..] else { panic!("one duty at {now}") };
            assert_eq!(duty.what, DutyKind::Prove { partitions: vec![(PartitionIndex(0), sectors(&[1]))] });
            assert_eq!((duty.due, duty.deadline.open), (Epoch(659), Epoch(600)));
        }
        // A message that is sent at 659 lands at 660 at the earliest.
        let late = planned(659);
        assert!(late.iter().all(|d| !matches!(d.what, DutyKind::Prove { .. })), "{late:?}");
    }

    #[test]
    fn groups_do_not_shift_when_a_partition_is_proven_or_empty() {
        let many = |proven: &[u64]| {
            let partitions = (0..7).map(|i| if i == 4 { partition(&[], &[], &[]) } else { partition(&[i], &[], &[]) });
            holding(partitions.collect(), proven)
        };
        let groups = |proven: &[u64]| -> Vec<Vec<u64>> {
            let duties = plan(&view(610, vec![(10, many(proven))]), &Options::default());
            duties.iter().map(|d| partitions_of(&d.what).iter().map(|(i, _)| i.0).collect()).collect()
        };
        assert_eq!(groups(&[]), [vec![0, 1, 2], vec![3, 5], vec![6]]);
        assert_eq!(groups(&[0, 1, 2]), [vec![3, 5], vec![6]]);
        assert_eq!(groups(&[1, 6]), [vec![0, 2], vec![3, 5]]);
    }

    #[test]
    fn no_group_holds_more_sectors_than_a_prover_is_given() {
        for (sizes, asked, groups) in [
            (vec![2349, 2349, 2349, 2349, 100], 3, vec![vec![0, 1], vec![2, 3], vec![4]]),
            (vec![2300, 2300, 2300], 3, vec![vec![0, 1], vec![2]]),
            (vec![2350, 2350], 3, vec![vec![0], vec![1]]),
            (vec![10_000, 1], 3, vec![vec![0], vec![1]]),
            (vec![1566, 1566, 1566, 10], 3, vec![vec![0, 1, 2], vec![3]]),
            (vec![2, 2, 2, 2], 3, vec![vec![0, 1, 2], vec![3]]),
            (vec![2349, 2349, 2349], 1, vec![vec![0], vec![1], vec![2]]),
            (vec![2, 2, 2], 0, vec![vec![0], vec![1], vec![2]]),
            (vec![2, 2, 2, 2], 9, vec![vec![0, 1, 2], vec![3]]),
        ] {
            let of = |(i, size): (u64, &u64)| {
                let numbers: Vec<u64> = (0..*size).map(|n| n + 10_000 * i).collect();
                partition(&numbers, &[], &[])
            };
            let state = holding((0..).zip(&sizes).map(of).collect(), &[]);
            let options = Options { partitions_per_proof: asked, ..Options::default() };
            let duties = plan(&view(610, vec![(10, state)]), &options);
            let seen: Vec<Vec<u64>> =
                duties.iter().map(|d| partitions_of(&d.what).iter().map(|(i, _)| i.0).collect()).collect();
            assert_eq!(seen, groups, "{sizes:?} by {asked}");
        }
    }

    #[test]
    fn recoveries_are_due_before_the_cutoff_and_behind_what_is_due_earlier() {
        let faulty = || holding(vec![partition(&[1, 2, 3], &[2, 3], &[3])], &[]);
        // At 600: deadline 10 is open, 11 opens at 660 (cut-off 590), 12 at 720 (650), 13 at 780 (710).
        let view = view(600, vec![(13, faulty()), (11, faulty()), (12, faulty()), (10, faulty())]);
        let duties = plan(&view, &Options::default());
        let seen: Vec<_> = duties.iter().map(|d| (d.deadline.index.0, rank(&d.what), d.due.0)).collect();
        assert_eq!(seen, [(12, 1, 649), (10, 0, 659), (13, 1, 709)]);
        assert_eq!(duties[0].what, DutyKind::Recover { partitions: vec![(PartitionIndex(0), sectors(&[2]))] });
        assert_eq!(duties[1].what, DutyKind::Prove { partitions: vec![(PartitionIndex(0), sectors(&[1, 3]))] });
    }

    #[test]
    fn what_was_proven_in_another_window_does_not_count() {
        let state = holding(vec![partition(&[1], &[], &[])], &[0]);
        assert_eq!(plan(&view(590, vec![(10, state.clone())]), &Options::default()).len(), 1);
        assert!(plan(&view(605, vec![(10, state)]), &Options::default()).is_empty());
    }

    proptest! {
        #[test]
        fn plans_cover_each_sector_once_and_in_time(
            now in 0_i64..6000,
            live in prop::collection::vec(prop::collection::btree_set(0_u64..40, 0..4), 0..9),
            marks in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 9),
            ahead in 0_u64..5,
        ) {
            let index = Deadlines::of(&info(0, 0, 0)).unwrap().current(Epoch(now)).index.0;
            let index = (index + ahead) % 48;
            let mut partitions = Vec::new();
            let mut proven = Vec::new();
            for (i, (numbers, (faulty, recovering, done))) in live.iter().zip(&marks).enumerate() {
                // Sector numbers are unique: each partition has its own hundred.
                let all: Vec<u64> = numbers.iter().map(|n| n + 100 * i as u64).collect();
                let faults = if *faulty { all.clone() } else { Vec::new() };
                let back = if *faulty && *recovering { all.iter().copied().take(1).collect() } else { Vec::new() };
                partitions.push(partition(&all, &faults, &back));
                if *done {
                    proven.push(i as u64);
                }
            }
            let state = holding(partitions.clone(), &proven);
            let view = view(now, vec![(index, state)]);
            let duties = plan(&view, &Options::default());
            prop_assert_eq!(&duties, &plan(&view, &Options::default()));
            prop_assert!(duties.is_sorted_by_key(|d| d.due));

            let mut covered = SectorSet::new();
            for duty in &duties {
                prop_assert!(duty.due.0 > now, "there is an epoch left for a message");
                let parts = partitions_of(&duty.what);
                prop_assert!(!parts.is_empty());
                for (i, set) in parts {
                    prop_assert!(!set.is_empty());
                    prop_assert!(covered.intersect(set).is_empty(), "no sector twice");
                    covered = covered.union(set);
                    let p = &partitions[usize::try_from(i.0).unwrap()];
                    match duty.what {
                        DutyKind::Prove { .. } => {
                            prop_assert!(parts.len() <= 3);
                            prop_assert_eq!(set, &p.to_prove());
                            prop_assert!(!(view.current.index.0 == index && proven.contains(&i.0)));
                            prop_assert!(duty.deadline.challenge.0 + 2 <= now && duty.due < duty.deadline.close);
                        }
                        _ => {
                            prop_assert_eq!(set, &p.faulty.minus(&p.recovering));
                            prop_assert!(duty.due < duty.deadline.fault_cutoff);
                        }
                    }
                }
            }
        }
    }
}
