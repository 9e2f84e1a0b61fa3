//! The `lamplighter` command.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use lamplighter::cli::{Cli, Command, DemoArgs, JournalCommand};
use lamplighter::config::{Config, LogFormat};
use lamplighter::demo::Demo;
use lamplighter::server::{Server, StartError};
use sd_notify::NotifyState;

use lamplighter::{bench, ctl, ctl::health_check, logging, notifier, server::startup_banner, watch};

/// jemalloc: returns unused memory to the system and wastes little on many small allocations; the system's allocator
/// does neither.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code: the command line or the configuration is wrong.
const MISUSE: u8 = 2;
/// Exit code: the journal is damaged or otherwise unusable, so that restarting would not help.
const UNUSABLE_JOURNAL: u8 = 3;

fn main() -> ExitCode {
    let by_default = || Command::Serve { config: std::env::var_os("LAMPLIGHTER_CONFIG").map(Into::into) };
    match Cli::parse().command.unwrap_or_else(by_default) {
        Command::Serve { config } => serve(config.as_deref()),
        Command::Demo(args) => demo(&args),
        Command::Check { config } => check(&config),
        Command::Watch(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(watch::run(&args)));
            let misused = matches!(outcome, Err(watch::WatchError::Target(_)));
            let code = report(outcome);
            if misused { ExitCode::from(MISUSE) } else { code }
        }
        Command::Explain(args) => report(ctl::explain(&args)),
        Command::Accounts(args) => report(ctl::accounts(&args)),
        Command::Lamps(args) => report(ctl::lamps(&args)),
        Command::Subscriptions(args) => report(ctl::subscriptions(&args)),
        Command::Search(args) => report(ctl::search(&args)),
        Command::Reset(args) => report(ctl::reset(&args)),
        Command::Set(args) => report(ctl::set(&args)),
        Command::Resend(args) => report(ctl::resend(&args)),
        Command::End(args) => report(ctl::end(&args)),
        Command::Refusals(args) => report(ctl::refusals(&args)),
        Command::Journal(command) => {
            let outcome = match command {
                JournalCommand::Check { dir } => ctl::check_journal(&dir),
                JournalCommand::Repair { dir } => ctl::repair_journal(&dir),
            };
            let unusable = outcome.as_ref().is_err_and(|error| error.needs_the_operator());
            let code = report(outcome);
            if unusable { ExitCode::from(UNUSABLE_JOURNAL) } else { code }
        }
        Command::Drain(args) => report(ctl::drain(&args)),
        Command::Completion { shell } => report(ctl::completion(shell)),
        Command::Man { folder } => report(ctl::man(folder.as_deref())),
        Command::Bench(args) => {
            let outcome = bench::run(&args);
            let misused = matches!(outcome, Err(bench::BenchError::Setting(_)));
            let code = report(outcome);
            if misused { ExitCode::from(MISUSE) } else { code }
        }
        Command::Health { url } => report(health_check::probe(&url)),
    }
}

fn report<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lamplighter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> ExitCode {
    match Config::load(file) {
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("lamplighter: warning: {warning}");
            }
            println!("{}: ok, {} account(s), {} token(s)", file.display(), config.accounts.len(), config.tokens.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lamplighter: {error}");
            ExitCode::from(MISUSE)
        }
    }
}

fn serve(file: Option<&Path>) -> ExitCode {
    let demo_token = format!("{:032x}", u128::from_ne_bytes(notifier::new_secret()));
    let config = match file.map_or_else(|| Ok(Config::demo(&demo_token)), Config::load) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("lamplighter: {error}");
            return ExitCode::from(MISUSE);
        }
    };
    logging::init(&config.log.level, config.log.format);
    for warning in &config.warnings {
        tracing::warn!(%warning, "the configuration is valid, but should be changed");
    }
    let mut unusable = false;
    let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let mut signals = runtime.block_on(async { Signals::listen() })?;
        // The server has its own threads and runtimes; this runtime only waits for signals.
        let server = Server::start(&config).map_err(|error| {
            unusable = matches!(&error, StartError::Journal(error) if error.needs_the_operator());
            std::io::Error::other(error)
        })?;
        startup_banner::print(&config, &server, file.is_none().then_some(&*demo_token));
        tell_service_manager(&[NotifyState::Ready]);
        while runtime.block_on(signals.any()) == Signal::Reload {
            server.reload_certificates();
        }
        tracing::info!("stopping: new subscriptions are refused, requests in progress are completed");
        // Readiness ends before systemd is notified, so that a check made upon that notification sees it.
        server.drain();
        tell_service_manager(&[NotifyState::Stopping]);
        server.stop();
        Ok(())
    });
    let code = report(outcome);
    let code = if unusable { ExitCode::from(UNUSABLE_JOURNAL) } else { code };
    // Standard output may be buffered, and the process ends after this.
    let _ = std::io::stdout().flush();
    code
}

fn demo(args: &DemoArgs) -> ExitCode {
    logging::init("warn", LogFormat::Text);
    let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let mut signals = runtime.block_on(async { Signals::listen() })?;
        let demo = Demo::open(args).map_err(std::io::Error::other)?;
        demo.greet();
        while runtime.block_on(signals.any()) == Signal::Reload {}
        demo.close();
        Ok(())
    });
    report(outcome)
}

/// Notifies systemd, or another service manager that sets NOTIFY_SOCKET, of the state of the server (sd_notify(3)).
fn tell_service_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service manager at NOTIFY_SOCKET");
    }
}

/// Effect of a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signal {
    Stop,
    Reload,
}

/// Streams of the signals SIGINT and SIGTERM (stop) and SIGHUP (reload).
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }
}
