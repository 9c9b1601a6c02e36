//! Whether all that was begun on a disk can still be finished.
//!
//! A sector only takes space until its end, and then gives all of it back. With too little for everybody, sectors can
//! still be finished one after the other, unless each has taken a part of what the others need. So space is handed out
//! as a careful bank lends money: only as long as an order is left in which everybody can finish.

/// A sector that lies on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Party {
    /// The bytes that it is still to be given until its end.
    pub(super) needs: u64,
    /// The bytes that it has, or was given; its end frees them.
    pub(super) holds: u64,
}

/// Which of them can be finished, one after the other, with so many free bytes.
fn finishing(mut free: u64, parties: &[Party]) -> Vec<bool> {
    let mut done = vec![false; parties.len()];
    while let Some((party, done)) = parties.iter().zip(&mut done).find(|(party, done)| !**done && party.needs <= free) {
        *done = true;
        free = free.saturating_add(party.holds);
    }
    done
}

/// Whether one of them may be given so many bytes of what it needs: it can be finished after that, and so can everybody
/// who can now.
pub(super) fn may_take(free: u64, parties: &[Party], who: usize, bytes: u64) -> bool {
    let Some(left) = free.checked_sub(bytes) else { return false };
    let mut after = parties.to_vec();
    if let Some(party) = after.get_mut(who) {
        party.needs = party.needs.saturating_sub(bytes);
        party.holds = party.holds.saturating_add(bytes);
    }
    let (now, then) = (finishing(free, parties), finishing(left, &after));
    let nobody_loses = now.iter().zip(&then).all(|(now, then)| *then || !*now);
    nobody_loses && then.get(who).copied().unwrap_or_default()
}

/// Whether so many bytes may go to something that is freed by the end of none of them.
pub(super) fn may_leave(free: u64, parties: &[Party], who: usize, bytes: u64) -> bool {
    let Some(left) = free.checked_sub(bytes) else { return false };
    let (now, then) = (finishing(free, parties), finishing(left, parties));
    now.iter().zip(&then).all(|(now, then)| *then || !*now) && then.get(who).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn party(needs: u64, holds: u64) -> Party {
        Party { needs, holds }
    }

    #[test]
    fn the_last_part_goes_to_whoever_can_finish_with_it() {
        // Both hold 100 of 500, and 420 are free: one after the other can.
        let two = [party(400, 100), party(400, 100)];
        assert!(may_take(420, &two, 0, 380));
        let begun = [party(20, 480), party(400, 100)];
        assert!(!may_take(40, &begun, 1, 30), "then neither could finish");
        assert!(may_take(40, &begun, 0, 20));
        assert!(!may_take(10, &begun, 0, 20), "it is not there");
        // Nobody can finish: whoever takes more makes it worse.
        assert!(!may_take(300, &two, 0, 100));
        // What stays for good is taken from all.
        assert!(may_leave(420, &two, 0, 20) && !may_leave(420, &two, 0, 21));
    }
}
