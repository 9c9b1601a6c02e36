//! Which of several nodes can be relied on, by what each of them says. Pure: the asking is done elsewhere.
//!
//! Heads come first: the best one is the highest that a second node reaches, so that one node's word makes no others lag
//! and nothing final. Whose head is far behind it lags, and has no say. Where no second node bears a head out, as with two
//! nodes that are far apart, a node has to show the chain below its head to be believed.
//!
//! Of those that are left, two are on one chain if, some epochs below the lower of their heads, they name the same
//! tipset. The chain of the majority is the chain; without a majority, the heavier one.

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
                "it serves the network `{}`, and the other endpoints `{}`",
                self.network, other.network
            ));
        }
        match (&self.genesis, &other.genesis) {
            (Some(ours), Some(theirs)) if ours != theirs => Some(format!(
                "it serves a network `{}` with the genesis {ours}, and the other endpoints one with {theirs}",
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
    /// The tipsets on its chain at some epochs, or below them after null rounds; see [`anchors`]. What it did not tell
    /// is missing.
    pub(super) anchors: BTreeMap<i64, TipsetRef>,
}

impl View {
    /// Whether it has a tipset where its head says that there is one: a head without a chain below it is only a number.
    fn has_chain(&self, agreement: &Agreement) -> bool {
        let at = agreement.anchor(self.head.epoch.0);
        let depth = agreement.fork_depth.max(1);
        self.anchors.get(&at).is_some_and(|t| t.epoch.0 <= at && t.epoch.0 > at.saturating_sub(depth))
    }

    /// Whether both are on one chain; none if one of them does not tell.
    fn agrees(&self, other: &Self, agreement: &Agreement) -> Option<bool> {
        let at = agreement.anchor(self.head.epoch.0.min(other.head.epoch.0));
        Some(self.anchors.get(&at)?.key == other.anchors.get(&at)?.key)
    }
}

impl Agreement {
    /// The epoch at which chains are compared that have a head at this one.
    fn anchor(&self, head: i64) -> i64 {
        head.saturating_sub(self.fork_depth).max(0)
    }
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

    fn forked(reason: String) -> Self {
        Self { state: HealthState::Forked, reason: Some(reason) }
    }

    fn lagging(head: &TipsetRef, best: i64) -> Self {
        let behind = best.saturating_sub(head.epoch.0);
        let reason = format!("its head {} is {behind} epochs behind the best", head.epoch);
        Self { state: HealthState::Lagging, reason: Some(reason) }
    }
}

/// The nodes at the best head that a second one bears out, each within the lag of the next, highest first.
struct Field {
    near: Vec<usize>,
    /// Whether a second node bears the best head out, or there is only one node.
    borne_out: bool,
}

fn field(heads: &[Option<i64>], agreement: &Agreement) -> Field {
    let mut order: Vec<(i64, usize)> = heads.iter().enumerate().filter_map(|(i, head)| Some(((*head)?, i))).collect();
    // Stable: of equals, the first of the list.
    order.sort_by_key(|(head, _)| std::cmp::Reverse(*head));
    let is_near = |pair: &[(i64, usize)]| match pair {
        [(higher, _), (lower, _)] => higher.saturating_sub(*lower) <= agreement.max_lag,
        _ => false,
    };
    let places = |some: &[(i64, usize)]| some.iter().map(|(_, i)| *i).collect();
    if order.len() < 2 {
        return Field { near: places(&order), borne_out: true };
    }
    let Some(from) = order.windows(2).position(is_near) else {
        return Field { near: places(&order), borne_out: false };
    };
    let rest = order.get(from..).unwrap_or_default();
    let more = rest.windows(2).take_while(|pair| is_near(pair)).count();
    Field { near: places(rest.get(..=more).unwrap_or(rest)), borne_out: true }
}

/// The epochs at which each node has to be asked for its tipset: for every pair that is near each other, the depth below
/// the lower head. Only where no two are near, all are compared, and each is asked for what lies below its own head.
pub(super) fn anchors(heads: &[Option<TipsetRef>], agreement: &Agreement) -> Vec<BTreeSet<i64>> {
    let epochs: Vec<Option<i64>> = heads.iter().map(|head| head.as_ref().map(|h| h.epoch.0)).collect();
    let Field { near, borne_out } = field(&epochs, agreement);
    let of = |i: usize| {
        let mine = epochs.get(i).copied().flatten().filter(|_| near.contains(&i))?;
        let others = near.iter().filter(|j| **j != i || !borne_out).filter_map(|j| epochs.get(*j).copied().flatten());
        Some(others.map(|other| agreement.anchor(mine.min(other))).collect())
    };
    (0..heads.len()).map(|i| of(i).unwrap_or_default()).collect()
}

/// What is clear without weights, and the chains between which is chosen.
#[derive(Debug)]
pub(super) struct Contest {
    verdicts: Vec<Option<Verdict>>,
    /// Nodes of one chain each, larger groups first and then in the order of the list; in each, the highest head first.
    groups: Vec<Vec<usize>>,
}

impl Contest {
    pub(super) fn new(views: &[Option<View>], agreement: &Agreement) -> Self {
        let heads: Vec<Option<i64>> = views.iter().map(|view| view.as_ref().map(|v| v.head.epoch.0)).collect();
        let Field { near, borne_out } = field(&heads, agreement);
        let view = |i: usize| views.get(i).and_then(Option::as_ref);
        let mut verdicts: Vec<Option<Verdict>> = vec![None; views.len()];
        let mut say = |i: usize, verdict: Verdict| {
            if let Some(place) = verdicts.get_mut(i) {
                *place = Some(verdict);
            }
        };
        let chosen = if borne_out {
            let best = near.first().and_then(|i| heads.get(*i).copied().flatten()).unwrap_or_default();
            for (i, v) in views.iter().enumerate().filter_map(|(i, v)| Some((i, v.as_ref()?))) {
                let head = v.head.epoch.0;
                if head > best {
                    let ahead = head.saturating_sub(best);
                    let reason = format!("its head {head} is {ahead} epochs ahead of what any two endpoints agree on");
                    say(i, Verdict::forked(reason));
                } else if !near.contains(&i) {
                    say(i, Verdict::lagging(&v.head, best));
                }
            }
            // Who tells nothing below its head cannot be compared, and has no say beside those who do.
            let tells = |i: &usize| view(*i).is_some_and(|v| !v.anchors.is_empty());
            let (telling, silent): (Vec<usize>, Vec<usize>) = near.iter().copied().partition(tells);
            if telling.is_empty() {
                silent
            } else {
                for i in silent {
                    let depth = agreement.fork_depth;
                    say(i, Verdict::forked(format!("it does not tell its chain {depth} epochs below its head")));
                }
                telling
            }
        } else {
            let mut chosen: Vec<usize> = Vec::new();
            for i in near {
                let Some(v) = view(i) else { continue };
                match chosen.first().and_then(|best| view(*best)) {
                    None if v.has_chain(agreement) => chosen.push(i),
                    None => {
                        let reason = format!("it does not show the chain below its head {}", v.head.epoch);
                        say(i, Verdict::forked(reason));
                    }
                    Some(best) if best.agrees(v, agreement) == Some(false) => chosen.push(i),
                    Some(best) => say(i, Verdict::lagging(&v.head, best.head.epoch.0)),
                }
            }
            chosen
        };
        Self { verdicts, groups: groups(&chosen, views, agreement) }
    }

    /// Whether the largest group is not more than half of those that are to be chosen from.
    pub(super) fn is_open(&self) -> bool {
        let all: usize = self.groups.iter().map(Vec::len).sum();
        self.groups.first().is_some_and(|first| first.len().saturating_mul(2) <= all)
    }

    /// What is thought of each node. `weights` are those of the heads, where they were asked for.
    pub(super) fn decide(
        mut self,
        views: &[Option<View>],
        weights: &[Option<Lotus<BigInt>>],
        agreement: &Agreement,
    ) -> Vec<Option<Verdict>> {
        let weight = |group: &Vec<usize>| group.iter().filter_map(|i| weights.get(*i)?.as_ref()).map(|w| &w.0).max();
        let (chosen, how) = if !self.is_open() {
            (0, "most of the endpoints are on another chain")
        } else {
            // The first of equals: the operator's list says whom he trusts more.
            let heaviest = self.groups.iter().enumerate().rev().max_by_key(|(_, group)| weight(group));
            let heaviest = heaviest.map_or(0, |(i, _)| i);
            let known = self.groups.get(heaviest).is_some_and(|group| weight(group).is_some());
            let how = if known {
                "the endpoints disagree without a majority, and another chain is heavier"
            } else {
                "the endpoints disagree without a majority, and another one comes first in the list"
            };
            (heaviest, how)
        };
        for (n, group) in self.groups.iter().enumerate() {
            let members = || group.iter().filter_map(|i| Some((*i, views.get(*i)?.as_ref()?)));
            let best = members().map(|(_, view)| view.head.epoch.0).max().unwrap_or_default();
            for (i, view) in members() {
                let verdict = if n != chosen {
                    let depth = agreement.fork_depth;
                    Verdict::forked(format!("its chain differs from the others' more than {depth} epochs deep: {how}"))
                } else if best.saturating_sub(view.head.epoch.0) > agreement.max_lag {
                    Verdict::lagging(&view.head, best)
                } else {
                    Verdict::ok()
                };
                if let Some(place) = self.verdicts.get_mut(i) {
                    *place = Some(verdict);
                }
            }
        }
        self.verdicts
    }
}

/// Nodes, highest head first, in groups of one chain each. To agree is not transitive, so that each is compared with the
/// highest of a group alone.
fn groups(nodes: &[usize], views: &[Option<View>], agreement: &Agreement) -> Vec<Vec<usize>> {
    let view = |i: usize| views.get(i).and_then(Option::as_ref);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in nodes {
        let Some(mine) = view(*i) else { continue };
        let is_with = |group: &&mut Vec<usize>| {
            let highest = group.first().and_then(|j| view(*j));
            highest.is_some_and(|highest| highest.agrees(mine, agreement) == Some(true))
        };
        match groups.iter_mut().find(is_with) {
            Some(group) => group.push(*i),
            None => groups.push(vec![*i]),
        }
    }
    groups.sort_by_key(|group| (std::cmp::Reverse(group.len()), group.iter().copied().min()));
    groups
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
            // A node has nothing above its head, and only so much of a chain as there is.
            let told = |e: i64| (e, TipsetRef { epoch: Epoch(e), key: key(e, fork) });
            Some(View { head: head((epoch, fork)), anchors: epochs.into_iter().map(told).collect() })
        };
        nodes.iter().zip(asked).map(view).collect()
    }

    fn judge(views: &[Option<View>], weights: &[Option<Lotus<BigInt>>], agreement: &Agreement) -> Vec<Option<Verdict>> {
        Contest::new(views, agreement).decide(views, weights, agreement)
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
                vec![main(1000), fork('a', 1000, 900), main(1000), fork('a', 996, 900)],
                vec![5, 7, 5, 6],
                vec![FORKED, OK, FORKED, OK],
            ),
            // Who lags has no say in it.
            (
                vec![main(1000), fork('a', 1000, 900), main(1000), fork('a', 990, 900)],
                vec![5, 7, 5, 6],
                vec![OK, FORKED, OK, LAGGING],
            ),
            // One that lags glues no forks together.
            (vec![main(1000), main(100), fork('c', 1000, 500)], vec![7, 1, 5], vec![OK, LAGGING, FORKED]),
            (vec![main(1000), main(100), fork('c', 1000, 500)], vec![5, 1, 7], vec![FORKED, LAGGING, OK]),
            (vec![main(100), main(1000), fork('c', 1001, 500), main(999)], vec![], vec![LAGGING, OK, FORKED, OK]),
            // The majority's best counts, not that of a fork which is a little ahead.
            (vec![fork('a', 1005, 900), main(1000), main(998)], vec![9, 1, 1], vec![FORKED, OK, OK]),
            // A head that no second node reaches makes nobody lag.
            (vec![main(1_000_000_000), main(1000), main(999)], vec![], vec![FORKED, OK, OK]),
            (vec![main(1000), main(100), main(101), main(1_000_000_000)], vec![], vec![FORKED, OK, OK, FORKED]),
            // One syncs from the genesis on, another stands still.
            (vec![main(1000), main(100), main(700)], vec![], vec![OK, LAGGING, LAGGING]),
            // Far apart and on forks.
            (vec![main(1000), fork('a', 5000, 900)], vec![7, 5], vec![OK, FORKED]),
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
    fn only_who_is_near_is_asked_for_its_chain() {
        let asked = |nodes: &[i64]| {
            let head = |epoch: &i64| Some(TipsetRef { epoch: Epoch(*epoch), key: key(*epoch, None) });
            let heads: Vec<_> = nodes.iter().map(head).collect();
            anchors(&heads, &RULES).into_iter().map(Vec::from_iter).collect::<Vec<Vec<i64>>>()
        };
        assert_eq!(asked(&[1000, 100, 998]), [vec![978], vec![], vec![978]], "no old epoch for the sake of one");
        assert_eq!(asked(&[1000, 100]), [vec![80, 980], vec![80]]);
        assert_eq!(asked(&[1000]), [Vec::<i64>::new()]);
    }

    #[test]
    fn what_a_node_does_not_tell_is_missing_for_that_pair_alone() {
        let states = |views: &[Option<View>]| {
            judge(views, &[], &RULES).into_iter().map(|v| v.map(|v| v.state)).collect::<Vec<_>>()
        };
        let without = |nodes: &[i64], node: usize, epoch: i64| {
            let nodes: Vec<_> = nodes.iter().map(|epoch| Some((*epoch, None))).collect();
            let mut views = views(&nodes);
            views[node].as_mut().unwrap().anchors.remove(&epoch).unwrap();
            views
        };
        // Compared with the highest, all that matters is there.
        assert_eq!(states(&without(&[1000, 998, 996], 1, 976)), [OK, OK, OK]);
        // It tells nothing at all: it is not relied on, wherever it stands, and the others are.
        assert_eq!(states(&without(&[1000, 998], 0, 978)), [FORKED, OK]);
        assert_eq!(states(&without(&[1000, 998], 1, 978)), [OK, FORKED]);
        // One that has no history still shows that the other one lags.
        assert_eq!(states(&without(&[1000, 100], 0, 80)), [OK, LAGGING]);
        // A head without a chain below it is only a number.
        assert_eq!(states(&without(&[1_000_000_000, 100], 0, 999_999_980)), [FORKED, OK]);
        let mut elsewhere = views(&[Some((1_000_000_000, None)), Some((100, None))]);
        let real = TipsetRef { epoch: Epoch(100), key: key(100, None) };
        elsewhere[0].as_mut().unwrap().anchors.insert(999_999_980, real);
        assert_eq!(states(&elsewhere), [FORKED, OK]);
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
