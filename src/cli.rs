//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A SIP presence server that keeps busy lamps right.
///
/// Phones SUBSCRIBE to an extension, call state comes in by PUBLISH and by HTTP, and NOTIFYs go out until every lamp
/// shows the truth. Started without a command it runs with built-in defaults and a demo account on this machine only.
#[derive(Debug, Parser)]
#[command(name = "lamplighter", version, arg_required_else_help = false)]
#[command(
    after_help = "Exit status: 0 if all went well, 1 if something failed while running, 2 if the command line or \
                        the configuration is wrong."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (the default); without --config with a demo account
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE", env = "LAMPLIGHTER_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Check a configuration file and say what is wrong with it, if anything
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", env = "LAMPLIGHTER_CONFIG")]
        config: PathBuf,
    },
    /// Watch an extension as a phone would, and print its lamp at every change
    Watch(WatchArgs),
    /// Measure a presence server, ours or any other, and check every word that it says
    Bench(Box<crate::bench::BenchArgs>),
    /// Ask a running server whether it is well; for health checks of containers
    Health {
        /// What to ask
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/healthz")]
        url: String,
    },
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Whom to watch, such as 1001@acme.test
    #[arg(value_name = "USER@REALM")]
    pub target: String,
    /// The server, as TRANSPORT:HOST:PORT
    #[arg(long, value_name = "SERVER", default_value = "udp:127.0.0.1:5060")]
    pub server: crate::watch::ServerAddress,
    /// The event package
    #[arg(long, value_name = "PACKAGE", default_value = "dialog", value_parser = ["dialog", "presence", "message-summary"])]
    pub event: String,
    /// Lifetime of the subscription in seconds; it is refreshed in time
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub expires: u32,
    /// Print the documents as well
    #[arg(long)]
    pub body: bool,
    /// Fetch the present state once and end
    #[arg(long)]
    pub once: bool,
}
