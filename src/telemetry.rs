//! Where the log goes: to standard error, through `tracing`, filtered by level and module.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogFormat;

/// Starts logging at `level`, a level or a filter such as `info,lamplighter::api=debug`; RUST_LOG goes before it. A line is text
/// for people, or a JSON object with its time in UTC, level, target, message and fields.
///
/// A second call, and a wrong RUST_LOG, are harmless: the first subscriber stays, the wrong filter yields to `level`.
pub fn init(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::builder().parse(level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    // Complaining on standard error that standard error cannot be written panics; a full disk is no reason to.
    // The one error is that a subscriber is set already, as in tests that share a process.
    let subscriber = subscriber.log_internal_errors(false);
    let _ = match format {
        LogFormat::Text => subscriber.try_init(),
        // The fields of an event stand beside its level and message, where whoever searches expects them.
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

/// Whether `level` is a filter that [`init`] would take.
///
/// The library takes a lone word that is no level for the name of a module, and would silence all the others for it.
pub fn check(level: &str) -> Result<(), ParseError> {
    for lone in level.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ':'])) {
        // A directive with this level is wrong whenever the level is.
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
