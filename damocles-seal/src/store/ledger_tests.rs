use super::*;
use damocles_core::{ActorId, SectorNumber};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

fn sector(number: u64) -> SectorId {
    SectorId::new(ActorId(1000), SectorNumber(number))
}

fn claim(number: u64, total: u64, present: &Arc<AtomicU64>) -> Claim {
    let present = Arc::clone(present);
    Claim {
        sector: sector(number),
        path: PathBuf::from("/mnt/nvme"),
        total,
        present: Arc::new(move || present.load(Ordering::Relaxed)),
        in_stay: false,
    }
}

fn space(free: u64) -> Space {
    Space { device: 1, free, total: 1_000 }
}

fn stay(usage: Usage) -> Stay {
    Stay { sector: None, path: PathBuf::from("/mnt/nvme"), usage: Arc::new(move || usage) }
}

#[test]
fn what_is_promised_is_not_promised_again_and_what_is_written_counts_once() {
    let ledger = DiskLedger::default();
    let (one, two) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(40)));
    let first = ledger.reserve(1, claim(1, 70, &one), || Ok(space(100))).unwrap();
    let refused = ledger.reserve(1, claim(2, 80, &two), || Ok(space(100))).unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::DiskFull);
    let text = refused.to_string();
    for part in ["/mnt/nvme", "needed: 40B", "free: 100B", "promised: 70B", "s-t01000-1 70B", "s-t01000-2"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Another device is another matter.
    drop(ledger.reserve(2, claim(2, 80, &two), || Ok(space(100))).unwrap());
    // It has written 50 of its 70: 20 are promised, 50 are free.
    one.store(50, Ordering::Relaxed);
    assert_eq!((ledger.promised(1), ledger.unpromised(space(50))), (20, 30));
    assert!(ledger.reserve(1, claim(2, 71, &two), || Ok(space(50))).is_err());
    let second = ledger.reserve(1, claim(2, 70, &two), || Ok(space(50))).unwrap();
    drop((first, second));
    assert_eq!(ledger.promised(1), 0);
}

#[test]
fn between_the_marks_it_stays_as_it_was() {
    let ledger = DiskLedger::new(Marks::new(10, 20).unwrap());
    let begin = |free| ledger.begin(1, stay(Usage::default()), || Ok(space(free)));
    let begins = |free| begin(free).is_ok();
    let answers = [150, 100, 99, 100, 150, 199, 200, 150, 100, 99].map(begins);
    assert_eq!(answers, [true, true, false, false, false, false, true, true, true, false]);
    let text = begin(5).unwrap_err().to_string();
    assert!(text.contains("/mnt/nvme") && text.contains("200B"), "{text}");
    let nothing = Arc::new(AtomicU64::new(0));
    let held = ledger.reserve(1, claim(1, 150, &nothing), || Ok(space(300))).unwrap();
    assert!(!begins(300), "what is promised is not free");
    drop(held);
    assert!(begins(300));
    assert!(Marks::new(3, 2).is_none() && Marks::new(3, 101).is_none());
}

#[tokio::test]
async fn a_release_wakes_who_waits_also_if_it_comes_first() {
    let ledger = DiskLedger::default();
    let nothing = Arc::new(AtomicU64::new(0));
    let held = ledger.reserve(1, claim(1, 10, &nothing), || Ok(space(10))).unwrap();
    let (early, late) = (ledger.released(), ledger.released());
    let waiting = tokio::spawn(early);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(held);
    waiting.await.unwrap();
    late.await;
}

#[test]
fn a_real_file_system_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::of(dir.path()).unwrap();
    assert!(space.total >= space.free && space.device != 0, "{space:?}");
    assert!(Space::of(&dir.path().join("missing")).unwrap_err().to_string().contains("missing"));
}

#[derive(Clone, Debug)]
enum Act {
    Reserve(u64),
    Write(usize, u64),
    Drop(usize),
    /// Files of a reservation that ended are removed.
    Remove(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..400_u64).prop_map(Act::Reserve),
        (0..8_usize, 0..200_u64).prop_map(|(who, bytes)| Act::Write(who, bytes)),
        (0..8_usize).prop_map(Act::Drop),
        (0..200_u64).prop_map(Act::Remove),
    ]
}

proptest! {
    #[test]
    fn no_byte_is_promised_twice_and_none_is_lost(acts in proptest::collection::vec(act(), 1..80)) {
        let ledger = DiskLedger::default();
        let (mut free, mut left_behind) = (1_000_u64, 0_u64);
        let mut held: Vec<(Reservation, u64, Arc<AtomicU64>)> = Vec::new();
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Reserve(total) => {
                    let present = Arc::new(AtomicU64::new(0));
                    let fits = total <= free - held.iter().map(|(_, t, p)| t - p.load(Ordering::Relaxed)).sum::<u64>();
                    let asked = ledger.reserve(1, claim(number as u64, total, &present), || Ok(space(free)));
                    prop_assert_eq!(asked.is_ok(), fits);
                    held.extend(asked.ok().map(|r| (r, total, present)));
                }
                Act::Write(who, bytes) => {
                    if let Some((_, total, present)) = held.get(who) {
                        let there = present.load(Ordering::Relaxed);
                        let bytes = bytes.min(total - there);
                        // What was promised can be written, whatever the others did.
                        prop_assert!(bytes <= free);
                        free -= bytes;
                        present.store(there + bytes, Ordering::Relaxed);
                    }
                }
                Act::Drop(who) if who < held.len() => {
                    left_behind += held.remove(who).2.load(Ordering::Relaxed);
                }
                Act::Drop(_) => {}
                Act::Remove(bytes) => {
                    let bytes = bytes.min(left_behind);
                    left_behind -= bytes;
                    free += bytes;
                }
            }
            let owed: u64 = held.iter().map(|(_, t, p)| t - p.load(Ordering::Relaxed)).sum();
            prop_assert_eq!(ledger.promised(1), owed);
            prop_assert!(owed <= free);
        }
        held.clear();
        prop_assert_eq!(ledger.promised(1), 0);
    }
}
