//! Why a job waits, in an operator's words.

use damocles_core::{GpuId, JobId, SectorId, pool::TaskKind};
use std::{fmt, time::Duration};

/// Why a job waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Slots that fit are there, and all have work.
    Busy {
        /// The kind of the job.
        kind: TaskKind,
        /// How many slots fit.
        slots: usize,
        /// Who has had one for longest.
        longest: Option<Who>,
    },
    /// What a slot did is over, and its process is still being ended.
    Ending {
        /// The slot.
        slot: String,
        /// For how long.
        lasting: Duration,
    },
    /// Enough of its kind run.
    Limit {
        /// The kind of the job.
        kind: TaskKind,
        /// How many may.
        limit: usize,
    },
    /// Enough jobs run.
    AtOnce {
        /// How many may.
        limit: usize,
    },
    /// Another of its kind has just begun.
    Staggered {
        /// The kind of the job.
        kind: TaskKind,
        /// Until the next may.
        rest: Duration,
    },
    /// Another of its kind has its slot and has not begun.
    Beginning {
        /// Whose start it is.
        who: Who,
    },
    /// A lock of the slot is taken.
    Lock {
        /// The lock.
        lock: String,
        /// Who has had it for longest.
        who: Option<Who>,
    },
    /// A GPU of the slot is held by another slot.
    Gpu {
        /// How many the slot needs.
        needs: usize,
        /// The one that is missing.
        gpu: GpuId,
        /// Who has it.
        who: Option<Who>,
    },
    /// Somebody ahead in line gets something of the slot next: a GPU that the slot has in use, or what is kept for one
    /// that was overtaken often enough.
    Promised {
        /// The GPU, the lock or the slot.
        what: String,
        /// Who gets it next.
        to: Who,
    },
    /// The slot's process failed.
    Resting {
        /// The slot.
        slot: String,
        /// Until it is tried again.
        rest: Duration,
        /// How it failed.
        error: String,
    },
    /// The slot's process failed again and again.
    Open {
        /// The slot.
        slot: String,
        /// How often.
        failures: u32,
        /// Until it is tried again.
        rest: Duration,
        /// How it failed last.
        error: String,
    },
    /// The slot's process failed, and an operator has to say that it may go on.
    Stopped {
        /// The slot.
        slot: String,
        /// How it failed.
        error: String,
    },
    /// The end of a section of the plan cannot follow.
    Downstream {
        /// The stage that would begin.
        kind: TaskKind,
        /// The stage that cannot follow.
        next: TaskKind,
        /// How many sectors there may be between them.
        most: usize,
        /// Those that are there.
        sectors: Vec<SectorId>,
    },
    /// One that came before was overtaken often enough.
    Turn {
        /// Whose turn it is.
        who: Who,
    },
    /// It has a slot, whose claims on this host other programs hold.
    Claiming {
        /// The slot.
        slot: String,
        /// For how long.
        lasting: Duration,
        /// How many GPUs the slot needs.
        gpus: usize,
        /// What of it is held, and by whom, in an operator's words; none if that cannot be seen.
        held: Option<String>,
    },
    /// Nothing any more: it is about to be given a slot.
    Nothing,
}

/// A job, what it has, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The job.
    pub job: JobId,
    /// Its kind.
    pub kind: TaskKind,
    /// Its sector.
    pub sector: Option<SectorId>,
    /// Its slot, if it has one.
    pub slot: Option<String>,
    /// For how long it has it, or has waited.
    pub lasting: Duration,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match self.sector {
            Some(sector) => write!(f, " of {sector}")?,
            None => write!(f, " ({})", self.job)?,
        }
        if let Some(slot) = &self.slot {
            write!(f, " in slot {slot}")?;
        }
        write!(f, " for {}", Spoken(self.lasting))
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { kind, slots, longest } => {
                write!(f, "all slots for {kind} are busy ({slots})")?;
                longest.as_ref().map_or(Ok(()), |who| write!(f, ", one by {who}"))
            }
            Self::Ending { slot, lasting } => {
                write!(f, "the old process of slot {slot} has been ending for {}", Spoken(*lasting))
            }
            Self::Limit { kind, limit } => write!(f, "as many {kind} run as are allowed at a time ({limit})"),
            Self::AtOnce { limit } => write!(f, "as many jobs run as are allowed at a time ({limit})"),
            Self::Staggered { kind, rest } => {
                write!(f, "starts of {kind} are kept apart, the next is in {}", Spoken(*rest))
            }
            Self::Beginning { who } => {
                write!(f, "starts of {} are kept apart, and one has not begun yet: {who}", who.kind)
            }
            Self::Lock { lock, who } => {
                write!(f, "the lock `{lock}` is held")?;
                who.as_ref().map_or(Ok(()), |who| write!(f, " by {who}"))
            }
            Self::Gpu { needs, gpu, who } => {
                write!(f, "{}{gpu} is held", Needs(*needs))?;
                who.as_ref().map_or(Ok(()), |who| write!(f, " by {who}"))
            }
            Self::Promised { what, to } => write!(f, "{what} goes next to one ahead in line: {to}"),
            Self::Resting { slot, rest, error } => {
                write!(f, "the processor of slot {slot} failed and rests for {}: {error}", Spoken(*rest))
            }
            Self::Open { slot, failures, rest, error } => write!(
                f,
                "breaker of slot {slot} open after {failures} failures, next trial in {}, last: {error}",
                Spoken(*rest)
            ),
            Self::Stopped { slot, error } => {
                write!(f, "slot {slot} failed and is not restarted by itself, resume it: {error}")
            }
            Self::Downstream { kind, next, most, sectors } => {
                write!(
                    f,
                    "{next} cannot follow: as many sectors as may ({most}) are between {kind} and the end of {next}"
                )?;
                let mut separator = ": ";
                for sector in sectors {
                    write!(f, "{separator}{sector}")?;
                    separator = ", ";
                }
                Ok(())
            }
            Self::Turn { who } => write!(f, "one that came first was overtaken often enough: {who}"),
            Self::Claiming { gpus, held: Some(held), .. } => write!(f, "{}{held}", Needs(*gpus)),
            Self::Claiming { slot, lasting, .. } => {
                write!(f, "slot {slot} has claimed for {} what another program holds", Spoken(*lasting))
            }
            Self::Nothing => f.write_str("others are first"),
        }
    }
}

/// How many GPUs a slot needs, as the beginning of a reason; nothing if it needs none.
struct Needs(usize);

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str("needs 1 GPU; "),
            gpus => write!(f, "needs {gpus} GPUs; "),
        }
    }
}

/// A time as an operator says it: `3m12s`.
struct Spoken(Duration);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, _) => write!(f, "{:.1?}", self.0),
            (0, minutes, seconds) => write!(f, "{minutes}m{seconds:02}s"),
            (hours, minutes, _) => write!(f, "{hours}h{minutes:02}m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spoken() {
        for (seconds, text) in [(192, "3m12s"), (59, "59.0s"), (3600, "1h00m"), (60, "1m00s"), (90_061, "25h01m")] {
            assert_eq!(Spoken(Duration::from_secs(seconds)).to_string(), text);
        }
    }
}
