//! Several sealing threads on one disk that never has room for all they would like to do.

use super::*;
use damocles_core::{ActorId, SectorNumber};
use proptest::prelude::*;

/// What the stages of these sectors write.
const STAGES: [u64; 4] = [32, 64, 384, 37];
const WHOLE: u64 = 32 + 64 + 384 + 37;

/// A sector that is sealed.
struct Sealed {
    sector: SectorId,
    done: usize,
    usage: Arc<Mutex<Usage>>,
    running: Option<Reservation>,
    _booking: Booking,
}

/// The disk and its threads.
struct Crowd {
    ledger: DiskLedger,
    free: u64,
    threads: Vec<Option<Sealed>>,
    begun: u64,
}

fn left(done: usize) -> u64 {
    STAGES.iter().skip(done).sum()
}

impl Crowd {
    fn stay(&mut self, done: usize) -> (SectorId, Arc<Mutex<Usage>>, Stay) {
        self.begun += 1;
        let sector = SectorId::new(ActorId(1000), SectorNumber(self.begun));
        let usage = Arc::new(Mutex::new(Usage { needs: left(done), holds: WHOLE - left(done) }));
        let asked = Arc::clone(&usage);
        let usage_now = move || *asked.lock();
        let stay = Stay { sector: Some(sector), path: PathBuf::from("/mnt/x"), usage: Arc::new(usage_now) };
        (sector, usage, stay)
    }

    fn space(&self) -> Space {
        Space { device: 1, free: self.free, total: 0 }
    }

    /// A thread that finds a half sealed sector when it starts.
    fn resume(&mut self, thread: usize, done: usize) {
        let (sector, usage, stay) = self.stay(done);
        let booking = self.ledger.resume(1, stay);
        self.threads[thread] = Some(Sealed { sector, done, usage, running: None, _booking: booking });
    }

    /// Takes a step of a thread, and says whether it could. New sectors are begun only if `begins`.
    fn step(&mut self, thread: usize, begins: bool) -> bool {
        let space = self.space();
        let Some(sealed) = self.threads[thread].as_mut() else {
            let needed: u64 = self.threads.iter().flatten().map(|s| s.usage.lock().needs).sum();
            let (sector, usage, stay) = self.stay(0);
            let fits = begins && needed + WHOLE <= space.free;
            let Some(booking) = begins.then(|| self.ledger.begin(1, stay, || Ok(space)).ok()).flatten() else {
                assert!(!fits, "there is room");
                return false;
            };
            assert!(fits, "never over-admitted");
            self.threads[thread] = Some(Sealed { sector, done: 0, usage, running: None, _booking: booking });
            return true;
        };
        let Some(bytes) = STAGES.get(sealed.done).copied() else {
            self.free += sealed.usage.lock().holds;
            self.threads[thread] = None;
            return true;
        };
        if sealed.running.take().is_some() {
            assert!(bytes <= self.free, "what was promised is there");
            self.free -= bytes;
            sealed.done += 1;
            *sealed.usage.lock() = Usage { needs: left(sealed.done), holds: WHOLE - left(sealed.done) };
            return true;
        }
        let present: Present = Arc::new(|| 0);
        let claim =
            Claim { sector: sealed.sector, path: PathBuf::from("/mnt/x"), total: bytes, present, in_stay: true };
        sealed.running = self.ledger.reserve(1, claim, || Ok(space)).ok();
        sealed.running.is_some()
    }

    /// Lets everybody go on who can, until nobody can.
    fn finish(&mut self) {
        loop {
            let moved: Vec<bool> = (0..self.threads.len()).map(|thread| self.step(thread, false)).collect();
            if !moved.contains(&true) {
                break;
            }
        }
    }
}

proptest! {
    #[test]
    fn nobody_is_let_begin_who_could_not_finish(
        resumed in proptest::collection::vec(0..5_usize, 1..6),
        more in 0..1200_u64,
        steps in proptest::collection::vec((0..8_usize, 0..40_u64), 0..120),
    ) {
        let ledger = DiskLedger::new(Marks::new(0, 0).unwrap());
        let mut crowd = Crowd { ledger, free: 0, threads: (0..8).map(|_| None).collect(), begun: 0 };
        // As left by a version that let everybody begin: but each of them can be finished first.
        crowd.free = resumed.iter().map(|done| left(*done)).max().unwrap() + more;
        for (thread, done) in resumed.iter().enumerate() {
            crowd.resume(thread, *done);
        }
        let mut outside = 0;
        for (thread, taken) in steps {
            crowd.step(thread, true);
            // Somebody else fills the disk, and empties it again.
            let taken = taken.min(crowd.free.saturating_sub(crowd.ledger.promised(1)));
            crowd.free -= taken;
            outside += taken;
            if thread == 0 {
                crowd.free += std::mem::take(&mut outside);
            }
        }
        crowd.finish();
        prop_assert!(crowd.threads.iter().all(Option::is_none), "somebody waits for ever");
        prop_assert!(!crowd.ledger.is_promising());
    }

    #[test]
    fn a_disk_that_others_fill_is_waited_for_and_goes_on(
        steps in proptest::collection::vec((0..4_usize, 0..300_u64), 1..80),
    ) {
        let ledger = DiskLedger::new(Marks::new(0, 0).unwrap());
        let mut crowd = Crowd { ledger, free: 3 * WHOLE, threads: (0..4).map(|_| None).collect(), begun: 0 };
        let mut outside = 0;
        for (thread, taken) in steps {
            crowd.step(thread, true);
            // They take also what was promised, but not what a running stage was given.
            let given: u64 = crowd.threads.iter().flatten().filter(|s| s.running.is_some()).map(|s| STAGES[s.done]).sum();
            let taken = taken.min(crowd.free.saturating_sub(given));
            crowd.free -= taken;
            outside += taken;
        }
        crowd.finish();
        crowd.free += outside;
        crowd.finish();
        prop_assert!(crowd.threads.iter().all(Option::is_none), "somebody waits for ever");
    }
}

#[test]
fn who_waits_is_told_who_has_the_space() {
    let ledger = DiskLedger::default();
    let mut crowd = Crowd { ledger: ledger.clone(), free: 300, threads: vec![None, None], begun: 6 };
    crowd.resume(0, 2);
    let (_, _, stay) = crowd.stay(0);
    let text = ledger.begin(1, stay, || Ok(Space { device: 1, free: 800, total: 1000 })).unwrap_err().to_string();
    for part in ["begin a sector", "/mnt/x", "needed: 517B", "free: 800B", "promised: 421B", "s-t01000-7 421B"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A sector is shown by what it needs until its end where its next stage alone would fit.
    let claim = Claim {
        sector: SectorId::new(ActorId(1000), SectorNumber(7)),
        path: PathBuf::from("/mnt/x"),
        total: 384,
        present: Arc::new(|| 0),
        in_stay: true,
    };
    let text = ledger.reserve(1, claim, || Ok(Space { device: 1, free: 400, total: 1000 })).unwrap_err().to_string();
    assert!(text.contains("needed: 384B") && text.contains("needed until its end: 421B"), "{text}");
}
