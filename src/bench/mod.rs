//! `lamplighter bench`: load generator for any presence server, which also checks the correctness of every message.
//!
//! One thread simulates thousands of phones and a PBX. It sends SUBSCRIBEs, refreshes and changes over UDP, and
//! receives the NOTIFYs, as fast as the server answers or at a given rate. It checks that each request is answered and
//! each SUBSCRIBE is followed by its NOTIFY, that CSeq and version rise by one, and that documents show the published
//! states in their order. Every violation is named, and makes the exit status 1.
//!
//! Input: [`Settings`]. Output: tables, JSON and charts. The bench uses `sip/` for parsing and no other module of the
//! server; it learns about a server only from /proc and from the network.

mod body;
mod book;
mod cold;
mod compare;
mod configuration;
mod drive;
mod engine;
mod fan_out;
mod histogram;
mod lamps;
mod login;
mod net;
mod notifies;
mod ops;
mod plot;
mod progress;
mod requests;
mod result;
mod runner;
mod scan;
mod settings;
mod steady;
mod storm;
mod table;
mod tally;
mod text;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

pub use settings::{BenchArgs, Errand, Scenario, Settings};

use cold::Server;
use configuration::Wanted;
use runner::Runner;
use text::Names;

/// Failure of a benchmark.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A socket or a file failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A setting is invalid.
    #[error("{0}")]
    Setting(String),
    /// The server does not answer.
    #[error("no answer from {0} within {1} s; is the server running there?")]
    Silent(SocketAddr, u64),
    /// The server violated the protocol; the table has the details.
    #[error("the server made {0} kind(s) of mistakes, see above")]
    Faults(usize),
}

/// Time that a server may take until its first response.
const START: Duration = Duration::from_secs(30);

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<(), BenchError> {
    match &args.errand {
        None => measure(args),
        Some(Errand::Config { file, digest, domain, phones, listen, http, durability, data }) => {
            let phones = digest.then_some(*phones);
            let (listen, http) = (*listen, *http);
            let text = configuration::write(&Wanted { domain, phones, listen, http, durability, data });
            Ok(std::fs::write(file, text)?)
        }
        Some(Errand::Compare { files, plot }) => {
            print!("{}", compare::run(files, plot.as_deref())?);
            Ok(())
        }
    }
}

fn measure(args: &BenchArgs) -> Result<(), BenchError> {
    let mut settings = args.settings.clone();
    let wanted = settings.scenarios();
    if wanted.contains(&Scenario::Cold) && settings.server_command.is_none() {
        let why = "a cold start needs --server-command, for the server has to be killed and started again";
        return Err(BenchError::Setting(why.into()));
    }
    settings.phones = settings.phones.max(settings.storm_phones);
    settings.addresses = settings.addresses.min(settings.sockets);
    settings.scenario = wanted;
    let run = u32::from_ne_bytes(crate::notifier::new_secret()[..4].try_into().unwrap_or_default());
    let mut server = settings.server_command.as_deref().map(Server::start).transpose()?;
    let names = Names { domain: settings.domain.clone(), run: format!("{run:08x}") };
    let began = Instant::now();
    let first = loop {
        if let Some(ended) = server.as_mut().map(Server::has_ended).transpose()?.flatten() {
            return Err(BenchError::Setting(format!("--server-command has ended at once ({ended})")));
        }
        if cold::until_answered(settings.target, &names, Duration::from_millis(100))?.is_some() {
            break began.elapsed();
        }
        if began.elapsed() > START {
            return Err(BenchError::Silent(settings.target, START.as_secs()));
        }
    };
    let mut runner = Runner::new(settings, server, run)?;
    let about = about(&runner, first);
    runner.run()?;
    let settings = &runner.engine.settings;
    print!("{}", table::write(settings, &about, &runner.rows, &runner.faults));
    if let Some(file) = &args.json {
        let json = result::to_json(settings, &about, &runner.rows, &runner.faults);
        std::fs::write(file, format!("{json:#}\n"))?;
    }
    match runner.faults.iter().count() {
        0 => Ok(()),
        kinds => Err(BenchError::Faults(kinds)),
    }
}

/// Environment of the measurement: machine, server and settings.
fn about(runner: &Runner, first_answer: Duration) -> Map<String, Value> {
    let mut about = Map::new();
    let mut say = |name: &str, value: Value| drop(about.insert(name.into(), value));
    say("generator", concat!("lamplighter bench ", env!("CARGO_PKG_VERSION")).into());
    let build = if cfg!(debug_assertions) { "debug: its own speed is no measure" } else { "release" };
    say("build", build.into());
    say("machine", usage::machine().into());
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    say("unix_time", since.as_secs().into());
    say("first_answer_ms", (first_answer.as_secs_f64() * 1e3).into());
    say("kernel_buffer", runner.engine.net.kernel_buffer().into());
    about
}
