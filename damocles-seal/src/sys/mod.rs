//! The kernel: the only place with `unsafe`.
//!
//! A child is placed between fork and exec by the process that forks it, and what came of it is read back from `/proc`.
//! An isolation mechanism is one file here; pool and processors know none of them.

#![expect(unsafe_code, reason = "processes are placed, signalled and waited for by system calls")]

mod group;
mod guard;
#[cfg(feature = "proofs")]
mod map;
mod placement;
mod process;
mod stdio;

pub(crate) use group::Group;
#[cfg(feature = "proofs")]
pub(crate) use map::Mapped;
pub(crate) use placement::Placement;
pub(crate) use process::{Exited, Process, spawn};
pub(crate) use stdio::take_protocol;
