//! `quickstart`: everything on one machine, from nothing to proven sectors.

mod daemon;
mod gather;
mod lab;
mod report;
mod run;
mod watch;

pub use gather::Gather;
pub use report::{Landed, PostReport, Report, Seconds, SectorKind, SectorReport};
pub use run::run;
pub use watch::Watch;
