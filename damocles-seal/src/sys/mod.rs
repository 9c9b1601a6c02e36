//! The kernel: the only place with `unsafe`.
//!
//! A child is placed between fork and exec, under a guard that ends with it all that it starts; [`crate::placement`] reads
//! back from `/proc` what came of it.
//! An isolation mechanism is one file here; pool and processors know none of them.

#![expect(unsafe_code, reason = "processes are placed, signalled and waited for by system calls")]

mod ending;
mod group;
mod guard;
#[cfg(feature = "proofs")]
mod map;
mod placement;
mod process;
mod stdio;

pub(crate) use ending::{EndPaths, Freezer};
pub(crate) use group::Group;
#[cfg(feature = "proofs")]
pub(crate) use map::Mapped;
pub(crate) use placement::{Placement, kept_capabilities};
pub(crate) use process::{Exited, OnDrop, Process, spawn};
pub(crate) use stdio::take_protocol;
