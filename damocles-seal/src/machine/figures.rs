//! What the stages of a sector cost: the one table that planning, checking and simulating use.

use damocles_core::{ByteSize, SectorSize};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// A part of a sector's way that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Writing unsealed data.
    AddPieces,
    /// The tree of the data.
    TreeD,
    /// Encoding.
    Pc1,
    /// The trees of the replica.
    Pc2,
    /// Copying into a persist store.
    Transfer,
    /// Waiting for the chain's randomness.
    WaitSeed,
    /// Reading the challenged parts.
    C1,
    /// The seal proof.
    C2,
}

impl Step {
    /// All of them in the order of a sector's way: the replica is stored before its seed is asked for.
    pub const ALL: [Self; 8] =
        [Self::AddPieces, Self::TreeD, Self::Pc1, Self::Pc2, Self::Transfer, Self::WaitSeed, Self::C1, Self::C2];

    /// The name in files and on command lines; that of its kind of task if it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddPieces => "add_pieces",
            Self::TreeD => "tree_d",
            Self::Pc1 => "pc1",
            Self::Pc2 => "pc2",
            Self::Transfer => "transfer",
            Self::WaitSeed => "wait_seed",
            Self::C1 => "c1",
            Self::C2 => "c2",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Step {
    type Err = UnknownStep;

    fn from_str(text: &str) -> Result<Self, UnknownStep> {
        let found = Self::ALL.into_iter().find(|step| step.name() == text);
        found.ok_or_else(|| UnknownStep(text.chars().take(40).collect()))
    }
}

/// A text that names no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no stage (add_pieces, tree_d, pc1, pc2, transfer, wait_seed, c1, c2)")]
pub struct UnknownStep(String);

/// What one step of one sector costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// How long it takes on hardware as the table's source describes it.
    pub time: Duration,
    /// The memory that it needs at its height.
    pub memory: ByteSize,
}

/// The costs of a sector. Starting points, for hardware of the EPYC 7642 and RTX 3080 class: put your own measurements over them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The size of the sectors.
    pub sector_size: SectorSize,
    /// Memory that all PC1 on a machine share: 14 parents of 4 bytes for each node of 32 bytes.
    pub parent_cache: ByteSize,
    /// Disk space of a sector on its way: layers, tree C, tree D, unsealed and sealed file.
    pub scratch: ByteSize,
    /// Disk space of a finished sector.
    pub kept: ByteSize,
    /// PC1 where a producer group of at least four cores works on each sector.
    pub pc1_with_producers: Duration,
    costs: [Cost; 8],
}

const GIB: u64 = 1 << 30;

/// One row of the table.
struct Row {
    step: Step,
    /// Seconds for 32 GiB.
    seconds: u64,
    /// MiB of memory for 32 GiB, and for 64 GiB.
    memory: (u64, u64),
    /// How the time of another sector size follows.
    scales: bool,
}

/// The costs of a sector of 32 GiB on an EPYC 7642 and an RTX 3080, as operators reported them from 2021 to 2025; of ranges the
/// later part. Times of other sizes follow the size, except those of a proof, whose number of partitions is the same for 32 and
/// 64 GiB, and of the chain, whose interactive delay is 150 epochs of 30 s.
///
/// Estimated, because nobody reported them: the 10 s of C1 ("seconds"), its memory, and the transfer (32 GiB at 250 MiB/s).
const TABLE: [Row; 8] = [
    Row { step: Step::AddPieces, seconds: 180, memory: (205, 205), scales: true },
    Row { step: Step::TreeD, seconds: 60, memory: (47 << 10, 60 << 10), scales: true },
    Row { step: Step::Pc1, seconds: 177 * 60, memory: (64 << 10, 128 << 10), scales: true },
    Row { step: Step::Pc2, seconds: 12 * 60, memory: (64 << 10, 128 << 10), scales: true },
    Row { step: Step::Transfer, seconds: 131, memory: (64, 64), scales: true },
    Row { step: Step::WaitSeed, seconds: 75 * 60, memory: (0, 0), scales: false },
    Row { step: Step::C1, seconds: 10, memory: (1 << 10, 1 << 10), scales: true },
    Row { step: Step::C2, seconds: 15 * 60, memory: (192 << 10, 192 << 10), scales: false },
];

/// PC1 of 32 GiB with three producers (Threadripper 3970X).
const PC1_WITH_PRODUCERS: u64 = 120 * 60;

/// Disk space per sector in flight that operators plan with.
const SCRATCH: (u64, u64) = (520 * GIB, 1024 * GIB);

/// What a process needs whatever the sector: matters to sectors of test networks only.
const PROCESS: u64 = 128 << 20;

impl Figures {
    /// The table's costs of sectors of this size.
    pub fn of(sector_size: SectorSize) -> Self {
        let bytes = sector_size.bytes();
        let small = bytes < 32 * GIB;
        let scaled = |of_32: u64| {
            u64::try_from(u128::from(of_32) * u128::from(bytes) / u128::from(32 * GIB)).unwrap_or(u64::MAX)
        };
        let seconds = |row: &Row| {
            // The proof of a small sector has few partitions, of which none is small.
            if row.scales || (small && row.step == Step::C2) { scaled(row.seconds).max(1) } else { row.seconds }
        };
        let memory = |row: &Row| match (sector_size, row.memory) {
            (_, (0, _)) => 0,
            (SectorSize::GiB32, (mib, _)) | (SectorSize::GiB64, (_, mib)) => mib << 20,
            (_, (mib, _)) => scaled(mib << 20) + PROCESS,
        };
        let costs =
            TABLE.each_ref().map(|row| Cost { time: Duration::from_secs(seconds(row)), memory: ByteSize(memory(row)) });
        let scratch = match sector_size {
            SectorSize::GiB32 => SCRATCH.0,
            SectorSize::GiB64 => SCRATCH.1,
            _ => scaled(SCRATCH.0) + (1 << 20),
        };
        Self {
            sector_size,
            parent_cache: ByteSize(bytes / 32 * 14 * 4),
            scratch: ByteSize(scratch),
            // The sealed file and the cached top of its tree: operators' 2 %.
            kept: ByteSize(bytes + bytes / 50 + (1 << 20)),
            pc1_with_producers: Duration::from_secs(scaled(PC1_WITH_PRODUCERS).max(1)),
            costs,
        }
    }

    /// What a step costs.
    pub fn cost(&self, step: Step) -> Cost {
        // One row for each step, in the order of `Step::ALL`; a test holds it.
        self.costs.get(step as usize).copied().unwrap_or(Cost { time: Duration::ZERO, memory: ByteSize(0) })
    }

    /// Puts a measured time over the table's.
    pub fn set_time(&mut self, step: Step, time: Duration) {
        if let Some(cost) = self.costs.get_mut(step as usize) {
            cost.time = time;
        }
        if step == Step::Pc1 {
            self.pc1_with_producers = time;
        }
    }

    /// Puts a measured amount of memory over the table's.
    pub fn set_memory(&mut self, step: Step, memory: ByteSize) {
        if let Some(cost) = self.costs.get_mut(step as usize) {
            cost.memory = memory;
        }
    }

    /// The memory that no PC1 does without, on whatever hardware: the layer that it writes and the one before it.
    pub fn pc1_layers(&self) -> ByteSize {
        ByteSize(self.sector_size.bytes().saturating_mul(2))
    }

    /// The whole way of a sector, if it waits for nothing but the chain.
    pub fn way(&self) -> Duration {
        Step::ALL.into_iter().fold(Duration::ZERO, |sum, step| sum.saturating_add(self.cost(step).time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_step() {
        assert_eq!(TABLE.each_ref().map(|row| row.step), Step::ALL);
        assert_eq!(Step::ALL.map(|step| step as usize), [0, 1, 2, 3, 4, 5, 6, 7]);
        for step in Step::ALL {
            assert_eq!(step.name().parse(), Ok(step));
        }
    }

    #[test]
    fn the_figures_are_those_of_the_field() {
        let figures = Figures::of(SectorSize::GiB32);
        assert_eq!((figures.parent_cache.to_string(), figures.scratch.to_string()), ("56GiB".into(), "520GiB".into()));
        assert_eq!(figures.cost(Step::Pc1).time, Duration::from_secs(177 * 60));
        let double = Figures::of(SectorSize::GiB64);
        assert_eq!((double.parent_cache.to_string(), double.scratch.to_string()), ("112GiB".into(), "1TiB".into()));
        assert_eq!(double.cost(Step::Pc1).memory, ByteSize(128 << 30));
        assert_eq!(double.cost(Step::C2).time, figures.cost(Step::C2).time);
        for size in SectorSize::ALL {
            let figures = Figures::of(size);
            assert!(figures.pc1_layers() <= figures.cost(Step::Pc1).memory, "{size}");
        }
        let tiny = Figures::of(SectorSize::KiB2);
        assert!(tiny.cost(Step::Pc1).memory.0 < 1 << 30 && tiny.scratch.0 < 1 << 30);
    }

    #[test]
    fn measurements_go_over_the_table() {
        let mut figures = Figures::of(SectorSize::GiB32);
        figures.set_time(Step::Pc1, Duration::from_secs(60));
        figures.set_memory(Step::C2, ByteSize(1));
        assert_eq!((figures.cost(Step::Pc1).time.as_secs(), figures.pc1_with_producers.as_secs()), (60, 60));
        assert_eq!(figures.cost(Step::C2).memory, ByteSize(1));
    }
}
