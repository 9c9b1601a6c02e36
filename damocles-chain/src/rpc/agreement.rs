//! Which of several nodes can be relied on, by what each of them says. Pure: the asking is done elsewhere.
//!
//! Two nodes are on one chain if, some epochs below the lower of their heads, they name the same tipset. The chain of
//! the majority is the chain; without a majority, the heavier one. On that chain, whose head is far behind the best
//! lags.

use super::{HealthState, options::Agreement};
use crate::lotus_json::Lotus;
use damocles_core::chain::{TipsetKey, TipsetRef};
use fvm_shared::bigint::BigInt;
use std::collections::{BTreeMap, BTreeSet};

/// What a node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) network: String,
    /// Its first tipset; none where the node cannot tell.
    pub(super) genesis: Option<TipsetKey>,
}

impl Identity {
    /// Mainnet's genesis has a name of its own, which some nodes answer.
    fn name(&self) -> &str {
        if self.network == "testnetnet" { "mainnet" } else { &self.network }
    }

    /// Why a node that serves `self` cannot stand beside one that serves `other`.
    pub(super) fn conflict(&self, other: &Self) -> Option<String> {
        if self.name() != other.name() {
            return Some(format!(
                "it serves the network `{}`, and the first endpoint `{}`",
                self.network, other.network
            ));
        }
        match (&self.genesis, &other.genesis) {
            (Some(ours), Some(theirs)) if ours != theirs => Some(format!(
                "it serves a network `{}` with the genesis {ours}, and the first endpoint one with {theirs}",
                self.network
            )),
            _ => None,
        }
    }
}

/// What one node says of its chain.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) head: TipsetRef,
    /// The tipsets on its chain at some epochs; see [`anchors`].
    pub(super) anchors: BTreeMap<i64, TipsetKey>,
}

/// What is thought of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: HealthState,
    pub(super) reason: Option<String>,
}

impl Verdict {
    fn ok() -> Self {
        Self { state: HealthState::Ok, reason: None }
    }
}

/// The epochs at which each node has to be asked for its tipset: for every pair, the depth below the lower head.
pub(super) fn anchors(heads: &[Option<TipsetRef>], agreement: &Agreement) -> Vec<BTreeSet<i64>> {
    let epochs: Vec<Option<i64>> = heads.iter().map(|head| head.as_ref().map(|h| h.epoch.0)).collect();
    let anchor = |epoch: i64| epoch.saturating_sub(agreement.fork_depth).max(0);
    let of = |mine: &Option<i64>| {
        let mine = (*mine)?;
        Some(epochs.iter().flatten().map(|other| anchor(mine.min(*other))).collect())
    };
    epochs.iter().map(|mine| of(mine).unwrap_or_default()).collect()
}

/// Nodes in groups of one chain each, larger groups first and then in the order of the list.
pub(super) fn groups(views: &[Option<View>], agreement: &Agreement) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, view) in views.iter().enumerate() {
        let Some(view) = view else { continue };
        let with = groups.iter_mut().find(|group| {
            group.iter().any(|j| views.get(*j).and_then(Option::as_ref).is_some_and(|v| agree(view, v, agreement)))
        });
        match with {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

fn agree(one: &View, other: &View, agreement: &Agreement) -> bool {
    let lower = one.head.epoch.0.min(other.head.epoch.0);
    let at = lower.saturating_sub(agreement.fork_depth).max(0);
    one.anchors.get(&at).is_some_and(|key| other.anchors.get(&at) == Some(key))
}

/// Whether the largest group is more than half of those who answered.
pub(super) fn has_majority(groups: &[Vec<usize>]) -> bool {
    let all: usize = groups.iter().map(Vec::len).sum();
    groups.first().is_some_and(|first| first.len().saturating_mul(2) > all)
}

/// What is thought of each node. `weights` are those of the heads, where they were asked for.
pub(super) fn judge(
    views: &[Option<View>],
    weights: &[Option<Lotus<BigInt>>],
    agreement: &Agreement,
) -> Vec<Option<Verdict>> {
    let groups = groups(views, agreement);
    let mut verdicts: Vec<Option<Verdict>> = vec![None; views.len()];
    let weight = |group: &Vec<usize>| group.iter().filter_map(|i| weights.get(*i)?.as_ref()).map(|w| &w.0).max();
    let (chosen, how) = if groups.len() <= 1 {
        (0, None)
    } else if has_majority(&groups) {
        (0, Some("most of the endpoints are on another chain"))
    } else {
        // The first of equals: the operator's list says whom he trusts more.
        let heaviest = groups.iter().enumerate().rev().max_by_key(|(_, group)| weight(group)).map_or(0, |(i, _)| i);
        let known = groups.get(heaviest).is_some_and(|group| weight(group).is_some());
        let how = if known {
            "the endpoints disagree without a majority, and another chain is heavier"
        } else {
            "the endpoints disagree without a majority, and another one comes first in the list"
        };
        (heaviest, Some(how))
    };
    for (n, group) in groups.iter().enumerate() {
        let heads = || group.iter().filter_map(|i| views.get(*i)?.as_ref()).map(|view| view.head.epoch.0);
        let best = heads().max().unwrap_or_default();
        for i in group {
            let Some(view) = views.get(*i).and_then(Option::as_ref) else { continue };
            let behind = best.saturating_sub(view.head.epoch.0);
            let verdict = if n != chosen {
                let depth = agreement.fork_depth;
                let why = how.unwrap_or_default();
                let reason = format!("its chain differs from the others' more than {depth} epochs deep: {why}");
                Verdict { state: HealthState::Forked, reason: Some(reason) }
            } else if behind > agreement.max_lag {
                let reason = format!("its head {} is {behind} epochs behind the best", view.head.epoch);
                Verdict { state: HealthState::Lagging, reason: Some(reason) }
            } else {
                Verdict::ok()
            };
            if let Some(place) = verdicts.get_mut(*i) {
                *place = Some(verdict);
            }
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{CommP, Epoch};

    const RULES: Agreement = Agreement { max_lag: 5, fork_depth: 20 };

    /// The tipset at an epoch of a chain that left the trunk at `from` under a letter.
    fn key(epoch: i64, fork: Option<(char, i64)>) -> TipsetKey {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&epoch.to_le_bytes());
        if let Some((name, from)) = fork
            && epoch > from
        {
            digest[8] = u8::try_from(name).unwrap();
        }
        TipsetKey(vec![CommP(digest).cid()])
    }

    type Fork = Option<(char, i64)>;

    fn views(nodes: &[Option<(i64, Fork)>]) -> Vec<Option<View>> {
        let head = |(epoch, fork): (i64, Fork)| TipsetRef { epoch: Epoch(epoch), key: key(epoch, fork) };
        let heads: Vec<Option<TipsetRef>> = nodes.iter().map(|node| node.map(head)).collect();
        let asked = anchors(&heads, &RULES);
        let view = |(node, epochs): (&Option<(i64, Fork)>, BTreeSet<i64>)| {
            let (epoch, fork) = (*node)?;
            let anchors = epochs.into_iter().map(|e| (e, key(e, fork))).collect();
            Some(View { head: head((epoch, fork)), anchors })
        };
        nodes.iter().zip(asked).map(view).collect()
    }

    fn states(nodes: &[Option<(i64, Fork)>], weights: &[i64]) -> Vec<Option<HealthState>> {
        let weights: Vec<_> = weights.iter().map(|w| Some(Lotus(BigInt::from(*w)))).collect();
        judge(&views(nodes), &weights, &RULES).into_iter().map(|v| v.map(|v| v.state)).collect()
    }

    const OK: Option<HealthState> = Some(HealthState::Ok);
    const LAGGING: Option<HealthState> = Some(HealthState::Lagging);
    const FORKED: Option<HealthState> = Some(HealthState::Forked);

    #[test]
    fn who_is_relied_on() {
        let main = |epoch| Some((epoch, None));
        let fork = |name, epoch, from| Some((epoch, Some((name, from))));
        type Case = (Vec<Option<(i64, Fork)>>, Vec<i64>, Vec<Option<HealthState>>);
        let cases: Vec<Case> = vec![
            (vec![main(1000), main(1000)], vec![], vec![OK, OK]),
            (vec![main(1000), main(995)], vec![], vec![OK, OK]),
            (vec![main(1000), main(994)], vec![], vec![OK, LAGGING]),
            (vec![main(100), main(5000)], vec![], vec![LAGGING, OK]),
            // Tips differ all the time.
            (vec![main(1000), fork('a', 1000, 985)], vec![], vec![OK, OK]),
            (vec![main(1000), fork('a', 1000, 979), main(1001)], vec![], vec![OK, FORKED, OK]),
            // The majority, even where the fork is ahead and heavier: a node cannot make all others lag.
            (vec![main(1000), fork('a', 9_000_000, 970), main(1000)], vec![1, 9, 1], vec![OK, FORKED, OK]),
            // Two against two, one against one: the heavier.
            (vec![main(1000), fork('a', 1000, 900)], vec![5, 7], vec![FORKED, OK]),
            (vec![main(1000), fork('a', 1000, 900)], vec![7, 5], vec![OK, FORKED]),
            (vec![main(1000), fork('a', 1000, 900)], vec![7, 7], vec![OK, FORKED]),
            (vec![main(1000), fork('a', 1000, 900)], vec![], vec![OK, FORKED]),
            (
                vec![main(1000), fork('a', 1000, 900), main(1000), fork('a', 990, 900)],
                vec![5, 7, 5, 6],
                vec![FORKED, OK, FORKED, LAGGING],
            ),
            // Who does not answer has no say.
            (vec![None, main(1000), None], vec![], vec![None, OK, None]),
            (vec![None, None], vec![], vec![None, None]),
            // At the very start of a chain.
            (vec![main(3), main(0)], vec![], vec![OK, OK]),
        ];
        for (i, (nodes, weights, expected)) in cases.into_iter().enumerate() {
            assert_eq!(states(&nodes, &weights), expected, "case {i}");
        }
    }

    #[test]
    fn reasons_say_how_it_was_decided() {
        let fork = Some(('a', 900));
        let nodes = [Some((1000, None)), Some((1000, fork))];
        let weights = [Some(Lotus(BigInt::from(5))), Some(Lotus(BigInt::from(7)))];
        let verdicts = judge(&views(&nodes), &weights, &RULES);
        let reason = verdicts[0].clone().unwrap().reason.unwrap();
        assert!(reason.contains("without a majority") && reason.contains("heavier"), "{reason}");
        let verdicts = judge(&views(&nodes), &[], &RULES);
        assert!(verdicts[1].clone().unwrap().reason.unwrap().contains("first in the list"));
    }

    #[test]
    fn networks_differ_by_name_or_genesis() {
        let identity = |name: &str, genesis: Option<i64>| Identity {
            network: name.to_owned(),
            genesis: genesis.map(|n| key(n, None)),
        };
        let first = identity("calibrationnet", Some(0));
        assert_eq!(identity("calibrationnet", Some(0)).conflict(&first), None);
        assert_eq!(identity("calibrationnet", None).conflict(&first), None);
        assert!(identity("mainnet", Some(0)).conflict(&first).unwrap().contains("`mainnet`"));
        assert!(identity("calibrationnet", Some(1)).conflict(&first).unwrap().contains("genesis"));
        assert_eq!(identity("testnetnet", None).conflict(&identity("mainnet", None)), None);
    }
}
