//! What can be set, on the command line, and is told with every result.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BenchArgs {
    /// What to do instead of measuring.
    #[command(subcommand)]
    pub errand: Option<Errand>,
    /// What to measure, and how.
    #[command(flatten)]
    pub settings: Settings,
    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What else `bench` can do.
#[derive(Debug, Subcommand)]
pub enum Errand {
    /// Write the configuration of a server that these scenarios can be run against
    Config {
        /// Where to
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// For the storm: phones prove themselves with passwords, and nobody is trusted
        #[arg(long)]
        digest: bool,
        /// The realm of the account
        #[arg(long, value_name = "REALM", default_value = "acme.test")]
        domain: String,
        /// How many phones have an account with --digest
        #[arg(long, value_name = "N", default_value_t = 20_000)]
        phones: u32,
        /// Where the server listens for SIP, over UDP
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5060")]
        listen: SocketAddr,
        /// Where it listens for HTTP
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
        http: SocketAddr,
        /// strict, relaxed or memory
        #[arg(long, value_name = "HOW", default_value = "memory", value_parser = ["strict", "relaxed", "memory"])]
        durability: String,
        /// Where the journal lives
        #[arg(long, value_name = "FOLDER", default_value = "lamplighter-bench-data")]
        data: PathBuf,
    },
    /// Compare results: a table of medians and ratios, and pictures
    Compare {
        /// Results that --json has written; ratios are to the first
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Write pictures (SVG) into this folder
        #[arg(long, value_name = "FOLDER")]
        plot: Option<PathBuf>,
    },
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// New subscriptions: SUBSCRIBE, 200, NOTIFY, 200
    Subscribe,
    /// Each of them refreshed once
    Refresh,
    /// Changes at a steady rate, and how late the phones are told
    Steady,
    /// One change, told to so many phones
    FanOut,
    /// The end of each subscription
    Unsubscribe,
    /// Many phones start at once, and prove themselves if the server wants that
    Storm,
    /// The server that --server-command has started is killed and started again
    Cold,
}

/// What to measure, and how.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Settings {
    /// The server, reached over UDP
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5060")]
    pub target: SocketAddr,
    /// The realm behind every @
    #[arg(long, value_name = "REALM", default_value = "acme.test")]
    pub domain: String,
    /// A process of the server, for CPU and memory; its children count too. May be repeated
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// Start the server with this command, and end it afterwards
    #[arg(long, value_name = "COMMAND", conflicts_with = "server_pid")]
    pub server_command: Option<String>,
    /// What to measure; all but `cold` unless there is a --server-command
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub scenario: Vec<Scenario>,
    /// How many subscriptions
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub subscriptions: u32,
    /// How many extensions they are to; a tenth as many if not said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub extensions: Option<u32>,
    /// Requests under way at the same time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,
    /// SUBSCRIBEs in a second at most; 0: as many as the window lets through
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub rate: u32,
    /// How long `steady` takes
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// NOTIFYs in a second that `steady` causes
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub notifies_per_second: u32,
    /// How many phones `fan-out` tells
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,20,200,2000,20000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub widths: Vec<u32>,
    /// How many phones start in `storm`
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub storm_phones: u32,
    /// Within so many seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub storm_seconds: u32,
    /// How often all of it is measured; the median is reported
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Lifetime of subscriptions and publications in seconds
    #[arg(long, value_name = "S", default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(60..))]
    pub expires: u32,
    /// Users that the phones log in as, p0 and up
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub phones: u32,
    /// Source ports of the phones
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub sockets: u16,
    /// Source addresses that these take turns on, 127.0.1.1 and up, where the server is on loopback
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub addresses: u16,
    /// A request is lost after so many seconds; RFC 3261 says 32
    #[arg(long, value_name = "S", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub give_up: u32,
    /// Seconds to wait before CPU time and memory are read after each scenario, for servers that tidy up later
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub settle: u32,
    /// Names these results in tables and pictures
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub label: String,
}

impl Settings {
    /// How many extensions the subscriptions are to.
    pub(super) fn extensions(&self) -> u32 {
        self.extensions.unwrap_or(self.subscriptions / 10).clamp(1, self.subscriptions)
    }

    /// How many watchers each extension has; the last one may have fewer.
    pub(super) fn watchers(&self) -> u32 {
        self.subscriptions.div_ceil(self.extensions())
    }

    /// What is measured, in this order.
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
