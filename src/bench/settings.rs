//! Settings of the command line, which are also written into every result.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BenchArgs {
    /// Command to run instead of a measurement.
    #[command(subcommand)]
    pub errand: Option<Errand>,
    /// Scenarios and their parameters.
    #[command(flatten)]
    pub settings: Settings,
    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Other commands of `bench`.
#[derive(Debug, Subcommand)]
pub enum Errand {
    /// Write the configuration of a server for these scenarios
    Config {
        /// File to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// For the storm: phones authenticate with passwords, and no source is trusted
        #[arg(long)]
        digest: bool,
        /// Realm of the account
        #[arg(long, value_name = "REALM", default_value = "acme.test")]
        domain: String,
        /// Number of phones with an account, for --digest
        #[arg(long, value_name = "N", default_value_t = 20_000)]
        phones: u32,
        /// Address on which the server listens for SIP over UDP
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5060")]
        listen: SocketAddr,
        /// Address on which it listens for HTTP
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
        http: SocketAddr,
        /// strict, relaxed or memory
        #[arg(long, value_name = "HOW", default_value = "memory", value_parser = ["strict", "relaxed", "memory"])]
        durability: String,
        /// Folder of the journal
        #[arg(long, value_name = "FOLDER", default_value = "lamplighter-bench-data")]
        data: PathBuf,
    },
    /// Compare results: a table of medians and ratios, and charts
    Compare {
        /// Files written by --json; ratios are to the first
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Write charts (SVG) into this folder
        #[arg(long, value_name = "FOLDER")]
        plot: Option<PathBuf>,
    },
}

/// Scenario to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// New subscriptions: SUBSCRIBE, 200, NOTIFY, 200
    Subscribe,
    /// One refresh of each subscription
    Refresh,
    /// Changes at a steady rate, and the delay until phones receive them
    Steady,
    /// One change for many phones
    FanOut,
    /// End of each subscription
    Unsubscribe,
    /// Many phones that start at once, and authenticate if the server requires it
    Storm,
    /// Kill and restart of the server that --server-command has started
    Cold,
}

/// Scenarios and their parameters.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Settings {
    /// Address of the server, over UDP
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5060")]
    pub target: SocketAddr,
    /// Realm in all addresses (the part after @)
    #[arg(long, value_name = "REALM", default_value = "acme.test")]
    pub domain: String,
    /// Process of the server, for CPU and memory; its children count too. May be repeated
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// Start the server with this command, and stop it afterwards
    #[arg(long, value_name = "COMMAND", conflicts_with = "server_pid")]
    pub server_command: Option<String>,
    /// Scenarios to measure; all but `cold` unless there is a --server-command
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub scenario: Vec<Scenario>,
    /// Number of subscriptions
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub subscriptions: u32,
    /// Number of watched extensions; by default a tenth of the subscriptions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub extensions: Option<u32>,
    /// Requests in flight at the same time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,
    /// Most SUBSCRIBEs per second; 0: limited by the window only
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub rate: u32,
    /// Duration of `steady` in seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// NOTIFYs per second that `steady` causes
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub notifies_per_second: u32,
    /// Numbers of phones that a change reaches in `fan-out`
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,20,200,2000,20000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub widths: Vec<u32>,
    /// Number of phones that start in `storm`
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub storm_phones: u32,
    /// Time within which they start, in seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub storm_seconds: u32,
    /// Number of repetitions; the median is reported
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Lifetime of subscriptions and publications in seconds
    #[arg(long, value_name = "S", default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(60..))]
    pub expires: u32,
    /// Number of users as which the phones authenticate, p0 and up
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub phones: u32,
    /// Number of source ports of the phones
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub sockets: u16,
    /// Number of source addresses, 127.0.1.1 and up, if the server is on loopback
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub addresses: u16,
    /// Time-out of a request in seconds; RFC 3261 says 32
    #[arg(long, value_name = "S", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub give_up: u32,
    /// Seconds to wait before CPU time and memory are read after each scenario, for servers that clean up later
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub settle: u32,
    /// Name of these results in tables and charts
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub label: String,
}

impl Settings {
    /// Number of watched extensions.
    pub(super) fn extensions(&self) -> u32 {
        self.extensions.unwrap_or(self.subscriptions / 10).clamp(1, self.subscriptions)
    }

    /// Number of watchers of each extension; the last one may have fewer.
    pub(super) fn watchers(&self) -> u32 {
        self.subscriptions.div_ceil(self.extensions())
    }

    /// Scenarios to measure, in order.
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let mut wanted = self.scenario.clone();
        if wanted.is_empty() {
            wanted = Scenario::value_variants().to_vec();
            wanted.retain(|scenario| *scenario != Scenario::Cold || self.server_command.is_some());
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }
}
