//! Logging: writes to standard error through `tracing`, filtered by level and module.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Starts logging. `level` is a level, or a filter such as `info,lamplighter::api=debug`; the environment variable
/// RUST_LOG takes precedence. A line is either plain text or a JSON object with time (UTC), level, target, message and
/// fields.
///
/// A second call has no effect. A malformed RUST_LOG is ignored and `level` is used.
pub fn init(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::builder().parse(level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    // By default the subscriber reports a failed write to standard error on standard error, and that panics; a full
    // disk must not stop the server. `try_init` fails only if a subscriber is set already, as in tests that share a
    // process.
    let subscriber = subscriber.log_internal_errors(false);
    let _ = match format {
        LogFormat::Text => subscriber.try_init(),
        // Flattened: the fields stand beside level and message, where log search tools expect them.
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

/// Checks that [`init`] would accept `level` as a filter.
///
/// `EnvFilter` takes a single word that is not a level for the name of a module, and would then silence all other
/// modules. So such words are refused here.
pub fn check(level: &str) -> Result<(), ParseError> {
    for lone in level.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ':'])) {
        // This directive is malformed exactly if `lone` is not a level.
        EnvFilter::builder().parse(format!("lamplighter={lone}"))?;
    }
    EnvFilter::builder().parse(level).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_told_from_nonsense() {
        assert!(check("info").is_ok());
        assert!(check("warn,lamplighter::api=debug").is_ok());
        assert!(check("lamplighter=loudly").is_err());
        assert!(check("loud").is_err());
    }
}
