//! Who gets which slot: a plain function of who waits, what is free, and the time. No clock, no process, no runtime.
//!
//! - Proofs of space-time go first, then C2, then the rest; within a rank, who came first goes first.
//! - Whoever waits takes any slot that fits. Nobody waits for something that the first in line cannot use now, with
//!   three exceptions. A job that was overtaken by as many later ones of its kind as there are slots for it is not
//!   overtaken by another. A GPU whose slot has several children takes no further job when somebody ahead in line waits
//!   for it from another slot: the children of one slot could hold it for ever in turn. And a job that needs several
//!   things, e.g. two cards, lets only two from behind it take one of them, a proof of space-time nobody: from then on
//!   one slot is kept for it, with all its locks and GPUs, until it has that or another.
//! - A job that has its slot and waits for what another program holds has begun nothing. It gives its slot back and
//!   stands in line again, where it was, when one ahead of it could go then, or when it can have another slot whose
//!   hardware nobody else has.
//! - A slot is given with all its locks and GPUs or not at all. Nobody holds one while it waits for another.
//! - A job that would bring a sector into a section of the plan whose end cannot follow waits outside. One whose sector
//!   is in it already, or further on, never does: only its progress makes room.
//! - Starts that are kept apart count from the moment at which a job really begins, not from when it got its slot.

mod claim;
mod fit;
mod health;
mod keep;
mod line;
mod place;
mod scheduler;
mod sections;
mod stats;
#[cfg(test)]
mod tests;
mod wait;

pub use fit::{Misfit, fits};
pub use scheduler::{Grant, Scheduler, Ticket, Verdict, WaitingJob};
pub use stats::{KindStats, PoolStats};
pub use wait::{Wait, Who};
