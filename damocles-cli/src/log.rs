//! Log lines on standard error.

use crate::{exit::Failure, output};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// What is logged when neither an argument nor the environment says it.
pub const DEFAULT_FILTER: &str = "info,sqlx=warn,hyper=warn,reqwest=warn,storage_proofs=warn,filecoin_proofs=warn";

/// Installs the logger. The filter is the argument, else `DAMOCLES_LOG`, else `RUST_LOG`, else [`DEFAULT_FILTER`].
///
/// # Errors
///
/// The filter cannot be understood. A logger that is installed already stays.
#[expect(clippy::disallowed_methods, reason = "the program reads its environment")]
pub fn init(filter: Option<&str>) -> Result<(), Failure> {
    let named = |name: &'static str| std::env::var_os(name).map(|v| (name, v.to_string_lossy().into_owned()));
    let (origin, text) = filter
        .map(|f| ("--log", f.to_owned()))
        .or_else(|| named("DAMOCLES_LOG"))
        .or_else(|| named("RUST_LOG"))
        .unwrap_or_else(|| ("the default", DEFAULT_FILTER.to_owned()));
    let filter = parse(origin, &text)?;
    let color = !output::no_color() && std::io::stderr().is_terminal();
    // An embedding program may have installed its own logger: then that one is used.
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(color).with_env_filter(filter).try_init();
    Ok(())
}

fn parse(origin: &str, text: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(text).map_err(|e| {
        Failure::new(crate::exit::Exit::Usage, e)
            .context(format_args!("log filter of {origin}"))
            .hint("write levels and targets, e.g. `info,damocles_seal=debug`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_bad_filter_is_a_usage_error() {
        assert!(parse("--log", DEFAULT_FILTER).is_ok());
        assert_eq!(parse("--log", "info,=,x=notalevel").unwrap_err().exit, Exit::Usage);
    }
}
