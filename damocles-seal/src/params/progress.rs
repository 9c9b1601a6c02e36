//! What is said while parameters are prepared.

use super::cache::ReadySet;
use super::circuit::CircuitId;

/// One report of [`ParameterCache::ensure`](super::ParameterCache::ensure). Nothing is reported when all is there.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ParamProgress {
    /// Said first and at once.
    Planned {
        /// The sets that are not there.
        missing: Vec<CircuitId>,
        /// A rough time for all of them on this machine's cores, from measurements on an idle one.
        estimated_seconds: u64,
    },
    /// Another process prepares parameters in the same directory; it is waited for.
    Waiting,
    /// The making of one set begins.
    Started {
        /// Which one.
        circuit: CircuitId,
    },
    /// The making of one set goes on; about ten to a hundred of these per set.
    Advanced {
        /// Which one.
        circuit: CircuitId,
        /// How much of it is done, from 0 to 1.
        fraction: f64,
    },
    /// One set is in its place.
    Finished(ReadySet),
}
