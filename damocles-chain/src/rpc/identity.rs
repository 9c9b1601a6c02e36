//! Which network several nodes serve. Pure: the asking is done elsewhere.

use super::agreement::Identity;

/// Who bears out what is known of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Borne {
    /// Nobody whom the others have to follow.
    #[default]
    Loosely,
    /// The first endpoint: more than half of all may say otherwise.
    ByTheFirst,
    /// More than half of all: nobody changes it any more. What is signed for a network must not leave for another one.
    ByMost,
}

/// What is known of the network.
#[derive(Debug, Default)]
pub(super) struct Known {
    identity: Option<Identity>,
    borne: Borne,
}

/// Those of one network: how many, and the place of the first.
struct Group {
    identity: Identity,
    first: usize,
    count: usize,
}

impl Known {
    /// Decides by what each endpoint tells now, the silent ones among them: most of them are right, and of as many the
    /// first of the list. What a single endpoint told makes no others wrong for ever.
    pub(super) fn decide(&mut self, told: &[Option<&Identity>]) -> Option<&Identity> {
        let groups = groups(told, self.identity.as_ref());
        let is_known =
            |group: &&Group| self.identity.as_ref().is_some_and(|known| known.conflict(&group.identity).is_none());
        // Of equals, the one whose first endpoint comes first.
        let best = groups.iter().min_by_key(|group| (std::cmp::Reverse(group.count), group.first));
        let has_most = |group: &Group| group.count.saturating_mul(2) > told.len();
        let may = |group: &&Group| match self.borne {
            Borne::Loosely => true,
            Borne::ByTheFirst => has_most(group),
            Borne::ByMost => false,
        };
        let chosen = best.filter(may);
        if let Some(group) = chosen {
            self.borne = match group.first {
                _ if has_most(group) => Borne::ByMost,
                0 => Borne::ByTheFirst,
                _ => Borne::Loosely,
            };
            self.identity = Some(group.identity.clone());
        } else if let Some(group) = groups.iter().find(is_known) {
            let genesis = group.identity.genesis.clone();
            // Not every node has its genesis at hand.
            if let Some(known) = self.identity.as_mut().filter(|known| known.genesis.is_none()) {
                known.genesis = genesis;
            }
        }
        self.identity.as_ref()
    }
}

/// The endpoints by network. One that does not tell its genesis is taken to have the known one, or that of the first of
/// its name.
fn groups(told: &[Option<&Identity>], known: Option<&Identity>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let answered = || told.iter().enumerate().filter_map(|(place, told)| Some((place, as_known((*told)?, known))));
    let (with, without): (Vec<_>, Vec<_>) = answered().partition(|(_, told)| told.genesis.is_some());
    for (place, told) in with.into_iter().chain(without) {
        match groups.iter_mut().find(|group| told.conflict(&group.identity).is_none()) {
            Some(group) => {
                group.count = group.count.saturating_add(1);
                group.first = group.first.min(place);
            }
            None => groups.push(Group { identity: told.clone(), first: place, count: 1 }),
        }
    }
    groups
}

fn as_known<'i>(told: &'i Identity, known: Option<&'i Identity>) -> &'i Identity {
    let is_silent = told.genesis.is_none();
    known.filter(|known| is_silent && told.conflict(known).is_none()).unwrap_or(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{CommP, chain::TipsetKey};

    fn of(network: &str, genesis: u8) -> Option<Identity> {
        let genesis = (genesis > 0).then(|| TipsetKey(vec![CommP([genesis; 32]).cid()]));
        Some(Identity { network: network.to_owned(), genesis })
    }

    fn decide(known: &mut Known, told: &[Option<Identity>]) -> Option<Identity> {
        let told: Vec<Option<&Identity>> = told.iter().map(Option::as_ref).collect();
        known.decide(&told).cloned()
    }

    #[test]
    fn one_wrong_endpoint_makes_no_others_wrong() {
        let (right, wrong) = (of("calibrationnet", 1), of("mainnet", 2));
        let mut known = Known::default();
        assert_eq!(decide(&mut known, &[wrong.clone(), right.clone(), right.clone()]), right, "the majority");
        assert_eq!(decide(&mut known, &[wrong.clone(), wrong.clone(), wrong.clone()]), right, "once and for all");
        // Of two, the first is believed until both say otherwise.
        let mut known = Known::default();
        assert_eq!(decide(&mut known, &[None, right.clone()]), right, "what can be had");
        assert_eq!(decide(&mut known, &[wrong.clone(), right.clone()]), wrong, "the first of the list");
        assert_eq!(decide(&mut known, &[None, right.clone()]), wrong, "one alone does not outdo it");
        assert_eq!(decide(&mut known, &[right.clone(), right.clone()]), right);
        assert_eq!(decide(&mut known, &[wrong, right.clone()]), right);
        assert_eq!(decide(&mut known, &[None, None]), right);
    }

    #[test]
    fn a_genesis_that_is_told_late_tells_networks_of_one_name_apart() {
        let (silent, one, other) = (of("2k", 0), of("2k", 1), of("2k", 2));
        let mut known = Known::default();
        assert_eq!(decide(&mut known, &[silent.clone(), None]), silent);
        assert_eq!(decide(&mut known, &[silent.clone(), one.clone()]), one);
        assert_eq!(decide(&mut known, &[silent.clone(), other.clone()]), one, "it was learned");
        assert_eq!(decide(&mut Known::default(), &[silent, one.clone(), other]), one);
    }
}
