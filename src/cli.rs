//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::operator::Address;

/// A SIP presence server that keeps busy lamps right.
///
/// Phones SUBSCRIBE to an extension, call state comes in by PUBLISH and by HTTP, and NOTIFYs go out until every lamp
/// shows the truth. Started without a command it runs with built-in defaults and a demo account on this machine only.
#[derive(Debug, Parser)]
#[command(name = "lamplighter", version, arg_required_else_help = false)]
#[command(
    after_help = "Exit status: 0 if all went well, 1 if something failed while running, 2 if the command line or \
                        the configuration is wrong, 3 if the journal cannot be used as it is."
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
    /// Run a server with a small office whose phones call each other, and print the page to watch it on
    Demo(DemoArgs),
    /// Check a configuration file and say what is wrong with it, if anything
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", env = "LAMPLIGHTER_CONFIG")]
        config: PathBuf,
    },
    /// Watch an extension as a phone would, and print its lamp at every change
    Watch(WatchArgs),
    /// Say why a lamp is as it is, who watches it, and what each watcher knows
    Explain(ExplainArgs),
    /// List the accounts that a token opens
    Accounts(AccountsArgs),
    /// List what the lamps of an account show
    Lamps(LampsArgs),
    /// List the subscriptions of an account
    Subscriptions(SubscriptionsArgs),
    /// Find lamps and subscriptions by a part of their extension, name, watcher, phone or address, or by Call-ID
    Search(SearchArgs),
    /// Forget the calls of an extension and what was set by hand, and tell its watchers anew
    Reset(ResetArgs),
    /// Set the state of an extension by hand, until it is set or reset again
    Set(SetArgs),
    /// Send a fresh NOTIFY in a subscription, whatever has become of the last
    Resend(SubscriptionArgs),
    /// End a subscription with a last NOTIFY; its phone may subscribe anew at once
    End(SubscriptionArgs),
    /// List the phones, publishers and API clients that were refused lately, and why
    Refusals(RefusalsArgs),
    /// Look at or repair the journal of a server that does not run
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Have a server take no new subscriptions, and say what it still has; needs a superuser's token
    Drain(DrainArgs),
    /// Print a script that makes a shell complete these commands
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write a page of each command into this folder instead
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Measure a presence server, ours or any other, and check every word that it says
    Bench(Box<crate::bench::BenchArgs>),
    /// Ask a running server whether it is well; for health checks of containers
    Health {
        /// What to ask
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/healthz")]
        url: String,
    },
}

/// What to do with a journal.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Say what every file holds and what is bad in it, and change nothing; exit status 3 if something is
    Check {
        /// The directory of the journal, `data.dir`
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Keep every record that is good, put what is bad aside in files beside it, and say what is lost
    Repair {
        /// The directory of the journal, `data.dir`
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the page is served [default: 127.0.0.1:8000, or another port if that is taken]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// An address of this machine where phones of your network may watch the office too; whoever reaches it is let in
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub sip: Option<SocketAddr>,
}

/// How a running server is asked.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The server's HTTP API
    #[arg(long, value_name = "URL", env = "LAMPLIGHTER_SERVER", default_value = "http://127.0.0.1:8000")]
    pub server: String,
    /// A file that holds a token of the API; without it, LAMPLIGHTER_TOKEN of the environment is taken
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print what the API says as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The extension, such as 1001@acme.test
    #[arg(value_name = "EXTENSION@REALM")]
    pub address: Address,
    /// Only watchers whose address has this in it, and what was exchanged with them
    #[arg(long, value_name = "TEXT")]
    pub watcher: Option<String>,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `accounts`.
#[derive(Debug, Args)]
pub struct AccountsArgs {
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `lamps`.
#[derive(Debug, Args)]
pub struct LampsArgs {
    /// The realm of the account; not needed where the token opens one only
    #[arg(value_name = "REALM")]
    pub realm: Option<String>,
    /// Only lamps whose extension or name has this in it
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `subscriptions`.
#[derive(Debug, Args)]
pub struct SubscriptionsArgs {
    /// The realm of the account; not needed where the token opens one only
    #[arg(value_name = "REALM")]
    pub realm: Option<String>,
    /// Only those whose watcher, phone or address has this in it, or whose Call-ID it is
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `refusals`.
#[derive(Debug, Args)]
pub struct RefusalsArgs {
    /// The realm of the account; without it all that the token may see, with a superuser's token also those of no account
    #[arg(value_name = "REALM")]
    pub realm: Option<String>,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to look for; case does not matter
    #[arg(value_name = "TEXT")]
    pub text: String,
    /// Look in the account with this realm only, not in all that the token opens
    #[arg(long, value_name = "REALM")]
    pub realm: Option<String>,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `resend` and `end`.
#[derive(Debug, Args)]
pub struct SubscriptionArgs {
    /// The subscription, as `subscriptions`, `search` and `explain` name it
    #[arg(value_name = "SUBSCRIPTION")]
    pub id: String,
    /// The realm of its account; not needed where the token opens one only
    #[arg(value_name = "REALM")]
    pub realm: Option<String>,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Take new subscriptions again
    #[arg(long, conflicts_with_all = ["status", "wait"])]
    pub undo: bool,
    /// Change nothing, only say what there is
    #[arg(long)]
    pub status: bool,
    /// Wait so long for phones to answer the NOTIFYs that are under way; exit status 1 if some have not
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u32,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The extension, such as 1001@acme.test
    #[arg(value_name = "EXTENSION@REALM")]
    pub address: Address,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The extension, such as 1001@acme.test
    #[arg(value_name = "EXTENSION@REALM")]
    pub address: Address,
    /// The state: ringing, talking, none
    #[arg(value_parser = ["early", "confirmed", "terminated"])]
    pub state: String,
    /// How the server is asked.
    #[command(flatten)]
    pub server: ServerArgs,
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
