//! Error codes on the wire.

use crate::service::{ServiceError, ServiceErrorKind};
use damocles_core::{
    Error, Kind, Recovery,
    allocator::{AllocError, AllocErrorKind},
};
use jsonrpc_core::{Error as RpcError, ErrorCode};
use serde::{Deserialize, Serialize};

/// The incumbent's code: the sector's state is not found.
pub(super) const UNKNOWN_SECTOR: i64 = 11001;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
const FENCED: i64 = 11100;
const REFUSED: i64 = 11101;
const UNAVAILABLE: i64 = 11102;
const MALFORMED: i64 = 11104;
const HELD_ELSEWHERE: i64 = 11110;
const UNKNOWN_LEASE: i64 = 11111;

/// What our errors carry beyond code and message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorData {
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recovery: Option<Recovery>,
    /// What an operator can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

pub(super) fn of_service(error: &ServiceError) -> RpcError {
    let code = match error.kind() {
        ServiceErrorKind::Unavailable => UNAVAILABLE,
        ServiceErrorKind::Malformed => MALFORMED,
        ServiceErrorKind::UnknownSector => UNKNOWN_SECTOR,
        ServiceErrorKind::Fenced => FENCED,
        ServiceErrorKind::Refused => REFUSED,
    };
    rpc_error(code, error)
}

pub(super) fn of_alloc(error: &AllocError) -> RpcError {
    let code = match error.kind() {
        AllocErrorKind::Fenced => FENCED,
        AllocErrorKind::HeldElsewhere => HELD_ELSEWHERE,
        AllocErrorKind::Unknown => UNKNOWN_LEASE,
        AllocErrorKind::Unavailable => UNAVAILABLE,
        _ => REFUSED,
    };
    rpc_error(code, error)
}

fn rpc_error<K: Kind>(code: i64, error: &Error<K>) -> RpcError {
    let data = ErrorData { recovery: Some(error.recovery()), hint: error.hint().map(str::to_owned) };
    RpcError { code: ErrorCode::ServerError(code), message: error.chain(), data: serde_json::to_value(data).ok() }
}

pub(super) fn service_kind(code: i64) -> ServiceErrorKind {
    match code {
        UNKNOWN_SECTOR => ServiceErrorKind::UnknownSector,
        FENCED | HELD_ELSEWHERE | UNKNOWN_LEASE => ServiceErrorKind::Fenced,
        MALFORMED => ServiceErrorKind::Malformed,
        REFUSED | METHOD_NOT_FOUND | -32602 | -32600 => ServiceErrorKind::Refused,
        // The incumbent has one code for everything else, and most of it passes.
        _ => ServiceErrorKind::Unavailable,
    }
}

pub(super) fn alloc_kind(code: i64) -> AllocErrorKind {
    match code {
        FENCED => AllocErrorKind::Fenced,
        HELD_ELSEWHERE => AllocErrorKind::HeldElsewhere,
        UNKNOWN_LEASE | UNKNOWN_SECTOR => AllocErrorKind::Unknown,
        REFUSED | METHOD_NOT_FOUND | -32602 | -32600 => AllocErrorKind::Refused,
        _ => AllocErrorKind::Unavailable,
    }
}
