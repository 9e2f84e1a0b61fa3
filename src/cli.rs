//! Command line of `lamplighter`. The doc comments of the arguments are the texts of `--help` and of the manual pages.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::ctl::Address;

/// A SIP presence server that keeps busy lamps right.
///
/// Phones SUBSCRIBE to an extension, call state arrives by PUBLISH and by HTTP, and the server sends NOTIFYs until
/// every lamp shows the current state. Without a command it runs with built-in defaults and a demo account, reachable
/// from this machine only.
#[derive(Debug, Parser)]
#[command(name = "lamplighter", version, arg_required_else_help = false)]
#[command(
    after_help = "Exit status: 0 if all went well, 1 if something failed while running, 2 if the command line or \
                        the configuration is wrong, 3 if the journal cannot be used as it is."
)]
pub struct Cli {
    /// Command to run
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands of `lamplighter`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (the default); without --config it uses a built-in demo account
    Serve {
        /// Configuration file
        #[arg(long, value_name = "FILE", env = "LAMPLIGHTER_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Run a server with a demo office whose phones call each other, and print the URL of its dashboard
    Demo(DemoArgs),
    /// Check a configuration file and report its errors and warnings
    Check {
        /// Configuration file
        #[arg(long, value_name = "FILE", env = "LAMPLIGHTER_CONFIG")]
        config: PathBuf,
    },
    /// Subscribe to an extension like a phone, and print its lamp at every change
    Watch(WatchArgs),
    /// Explain why a lamp shows its state, who watches it, and which state each watcher has acknowledged
    Explain(ExplainArgs),
    /// List the accounts that the token may see
    Accounts(AccountsArgs),
    /// List the lamps of an account and their states
    Lamps(LampsArgs),
    /// List the subscriptions of an account
    Subscriptions(SubscriptionsArgs),
    /// Find lamps and subscriptions by part of an extension, name, watcher, phone or address, or by Call-ID
    Search(SearchArgs),
    /// Discard the calls and the manually set state of an extension, and send its watchers a fresh NOTIFY
    Reset(ResetArgs),
    /// Set the state of an extension by hand; it holds until it is set or reset again
    Set(SetArgs),
    /// Send a fresh NOTIFY in a subscription, whatever the result of the previous one
    Resend(SubscriptionArgs),
    /// End a subscription with a final NOTIFY; the phone may subscribe again at once
    End(SubscriptionArgs),
    /// List requests of phones, publishers and API clients that were refused recently, with the reasons
    Refusals(RefusalsArgs),
    /// Check or repair the journal of a server that is not running
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Make a server refuse new subscriptions, and report the work it still has; needs a superuser's token
    Drain(DrainArgs),
    /// Print a completion script for a shell
    Completion {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Measure the performance of this or another presence server, and verify everything that it sends
    Bench(Box<crate::bench::BenchArgs>),
    /// Check if a running server is healthy; for health checks of containers
    Health {
        /// URL to request
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/healthz")]
        url: String,
    },
}

/// Journal commands.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Report the content and the damage of every file, without changing anything; exit status 3 if a file is damaged
    Check {
        /// Directory of the journal, `data.dir`
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Keep every valid record, move damaged parts to files beside the journal, and report which records are lost
    Repair {
        /// Directory of the journal, `data.dir`
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Address of the dashboard and API [default: 127.0.0.1:8000, or another port if that is in use]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// Address of this machine at which phones of your network may subscribe too; no password is required there
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub sip: Option<SocketAddr>,
}

/// Connection to a running server.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// URL of the server's HTTP API
    #[arg(long, value_name = "URL", env = "LAMPLIGHTER_SERVER", default_value = "http://127.0.0.1:8000")]
    pub server: String,
    /// File with an API token; without it the environment variable LAMPLIGHTER_TOKEN is used
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print the data of the API as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Extension, such as 1001@acme.test
    #[arg(value_name = "EXTENSION@REALM")]
    pub address: Address,
    /// Only watchers whose address contains this text, and the messages exchanged with them
    #[arg(long, value_name = "TEXT")]
    pub watcher: Option<String>,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `accounts`.
#[derive(Debug, Args)]
pub struct AccountsArgs {
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `lamps`.
#[derive(Debug, Args)]
pub struct LampsArgs {
    /// Realm of the account; not needed if the token may see only one
    #[arg(value_name = "REALM")]
    pub realm: Option<String>,
    /// Only lamps whose extension or name contains this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `subscriptions`.
#[derive(Debug, Args)]
pub struct SubscriptionsArgs {
    /// Realm of the account; not needed if the token may see only one
    #[arg(value_name = "REALM")]
    pub realm: Option<String>,
    /// Only subscriptions whose watcher, phone or address contains this text, or with this Call-ID
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `refusals`.
#[derive(Debug, Args)]
pub struct RefusalsArgs {
    /// Realm of the account; without it all that the token may see, with a superuser's token also refusals without an
    /// account
    #[arg(value_name = "REALM")]
    pub realm: Option<String>,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Text to find; upper and lower case are the same
    #[arg(value_name = "TEXT")]
    pub text: String,
    /// Search only the account with this realm, not all that the token may see
    #[arg(long, value_name = "REALM")]
    pub realm: Option<String>,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `resend` and `end`.
#[derive(Debug, Args)]
pub struct SubscriptionArgs {
    /// Subscription id, as shown by `subscriptions`, `search` and `explain`
    #[arg(value_name = "SUBSCRIPTION")]
    pub id: String,
    /// Realm of its account; not needed if the token may see only one
    #[arg(value_name = "REALM")]
    pub realm: Option<String>,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// End the drain: accept new subscriptions again
    #[arg(long, conflicts_with_all = ["status", "wait"])]
    pub undo: bool,
    /// Change nothing, only report the status
    #[arg(long)]
    pub status: bool,
    /// Seconds to wait until phones have answered the NOTIFYs in flight; exit status 1 if some have not
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u32,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Extension, such as 1001@acme.test
    #[arg(value_name = "EXTENSION@REALM")]
    pub address: Address,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Extension, such as 1001@acme.test
    #[arg(value_name = "EXTENSION@REALM")]
    pub address: Address,
    /// State: early (ringing), confirmed (in a call) or terminated (idle)
    #[arg(value_parser = ["early", "confirmed", "terminated"])]
    pub state: String,
    /// Connection to the server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Extension to watch, such as 1001@acme.test
    #[arg(value_name = "USER@REALM")]
    pub target: String,
    /// SIP server, as TRANSPORT:HOST:PORT
    #[arg(long, value_name = "SERVER", default_value = "udp:127.0.0.1:5060")]
    pub server: crate::watch::ServerAddress,
    /// Event package
    #[arg(long, value_name = "PACKAGE", default_value = "dialog", value_parser = ["dialog", "presence", "message-summary"])]
    pub event: String,
    /// Expiry of the subscription in seconds; it is refreshed before
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub expires: u32,
    /// Print the bodies of the NOTIFYs as well
    #[arg(long)]
    pub body: bool,
    /// Fetch the current state once and exit
    #[arg(long)]
    pub once: bool,
}
