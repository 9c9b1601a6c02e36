//! Why the loop ends.

use damocles_core::{
    Error,
    allocator::{AllocError, AllocErrorKind},
    pipeline::{SealError, SealErrorKind},
};

/// Why the loop ends.
#[derive(Debug)]
pub(super) enum Exit {
    /// It was asked to.
    Asked,
    /// An operator wants something that the next look at the journal decides: the thread goes on.
    Anew,
    /// Our own state is inconsistent.
    Halted(SealError),
}

pub(super) fn of_alloc(op: &'static str, error: AllocError) -> SealError {
    let recovery = error.recovery();
    let kind = match error.kind() {
        AllocErrorKind::Fenced => SealErrorKind::Fenced,
        AllocErrorKind::Unavailable => SealErrorKind::Service,
        _ => SealErrorKind::Refused,
    };
    let hint = error.hint().map(ToOwned::to_owned);
    let wrapped = Error::new(kind, op).because(error).recover_by(recovery);
    match hint {
        Some(hint) => wrapped.hint_with(hint),
        None => wrapped,
    }
}
