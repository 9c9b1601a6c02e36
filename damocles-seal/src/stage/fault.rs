//! Errors of other seams as errors of a stage.

use crate::{
    service::{ServiceError, ServiceErrorKind},
    store::{StoreError, StoreErrorKind},
};
use damocles_core::{
    Error, Kind, Recovery,
    pipeline::{SealError, SealErrorKind},
    pool::{PoolError, PoolErrorKind},
};
use std::{io, path::Path};

fn wrap<K: Kind>(kind: SealErrorKind, op: &'static str, error: Error<K>) -> SealError {
    let hint = error.hint().map(ToOwned::to_owned);
    let wrapped = Error::new(kind, op).because(error);
    match hint {
        Some(hint) => wrapped.hint_with(hint),
        None => wrapped,
    }
}

pub(crate) fn of_pool(error: PoolError) -> SealError {
    let recovery = error.recovery();
    let kind = match error.kind() {
        PoolErrorKind::DiskFull => SealErrorKind::DiskFull,
        PoolErrorKind::Cancelled | PoolErrorKind::Draining => SealErrorKind::Cancelled,
        _ => SealErrorKind::Stage,
    };
    let full = kind == SealErrorKind::DiskFull;
    let wrapped = wrap(kind, "run task", error).recover_by(recovery);
    // The pool does not know that the sector goes on by itself.
    match SealErrorKind::DiskFull.hint() {
        Some(hint) if full => wrapped.hint_with(hint),
        _ => wrapped,
    }
}

pub(crate) fn of_service(op: &'static str, error: ServiceError) -> SealError {
    let recovery = error.recovery();
    let kind = match error.kind() {
        ServiceErrorKind::Unavailable | ServiceErrorKind::Malformed => SealErrorKind::Service,
        ServiceErrorKind::Fenced => SealErrorKind::Fenced,
        ServiceErrorKind::UnknownSector | ServiceErrorKind::Refused => SealErrorKind::Refused,
    };
    wrap(kind, op, error).recover_by(recovery)
}

pub(crate) fn of_store(op: &'static str, error: StoreError) -> SealError {
    let recovery = error.recovery();
    let kind = match error.kind() {
        StoreErrorKind::DiskFull => SealErrorKind::DiskFull,
        StoreErrorKind::Damaged => SealErrorKind::Damaged,
        _ => SealErrorKind::Stage,
    };
    wrap(kind, op, error).recover_by(recovery)
}

pub(crate) fn of_io(op: &'static str, path: &Path, error: io::Error) -> SealError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SealErrorKind::DiskFull,
        _ => SealErrorKind::Stage,
    };
    Error::new(kind, op).with("path", path.display()).because(error)
}

/// The manager said no; asking again gives the same answer.
pub(crate) fn refused(op: &'static str, reason: &str) -> SealError {
    Error::new(SealErrorKind::Refused, op).with("reason", reason)
}

/// The chain will never take the sector.
pub(crate) fn expired(op: &'static str, reason: &str) -> SealError {
    Error::new(SealErrorKind::Expired, op).with("reason", reason)
}

/// Something failed that another try may mend.
pub(crate) fn failed(op: &'static str, reason: &str) -> SealError {
    Error::new(SealErrorKind::Stage, op).with("reason", reason).recover_by(Recovery::RETRY)
}
