//! Who calls.

use damocles_core::Fence;
use jsonrpc_core::Metadata;
use std::fmt;

/// The header that carries the fence of the lease that a call is made under.
pub const FENCE_HEADER: &str = "x-damocles-fence";

/// The header that names a call for ever.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// What came with a call besides its parameters. Positional parameters cannot be extended, so ours are headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The fence; an incumbent's worker sends none.
    pub fence: Option<Fence>,
    /// The caller's own name for the call.
    pub idempotency_key: Option<String>,
}

impl Metadata for Caller {}

impl Caller {
    /// Reads the headers of a request; `header` gets lower-case names.
    ///
    /// # Errors
    ///
    /// A header is there and cannot be read: a caller that meant to send a fence must not be taken for an incumbent.
    pub fn from_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Result<Self, CallerError> {
        let fence = header(FENCE_HEADER)
            .map(|text| text.trim().parse().map(Fence).map_err(|_| CallerError { header: FENCE_HEADER }))
            .transpose()?;
        let idempotency_key = header(IDEMPOTENCY_HEADER)
            .map(|text| {
                let good = !text.is_empty() && text.len() <= 200;
                good.then(|| text.to_owned()).ok_or(CallerError { header: IDEMPOTENCY_HEADER })
            })
            .transpose()?;
        Ok(Self { fence, idempotency_key })
    }
}

/// A header that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerError {
    header: &'static str,
}

impl fmt::Display for CallerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the header `{}` cannot be read", self.header)
    }
}

impl std::error::Error for CallerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_optional_but_never_guessed() {
        assert_eq!(Caller::from_headers(|_| None), Ok(Caller::default()));
        let fenced = Caller::from_headers(|name| (name == FENCE_HEADER).then_some(" 7 ")).unwrap();
        assert_eq!(fenced.fence, Some(Fence(7)));
        for bad in ["", "x", "-1", "1.0", "99999999999999999999999"] {
            assert!(Caller::from_headers(|name| (name == FENCE_HEADER).then_some(bad)).is_err(), "{bad}");
        }
        assert!(Caller::from_headers(|name| (name == IDEMPOTENCY_HEADER).then_some("")).is_err());
    }
}
