//! Runs scenarios in the simulator and prints the results.

use std::process::ExitCode;

use clap::Parser;
use lamplighter::simulator::{self, Options, Outcome};

/// Run scenarios in a simulated network, chosen by seed, against the real core.
#[derive(Parser)]
struct Args {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Fraction of datagrams that are lost; chosen by the seed if not given.
    #[arg(long)]
    loss: Option<f64>,
    /// Phones in a scenario.
    #[arg(long, default_value_t = 60)]
    phones: usize,
    /// Duration of a scenario in minutes.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Average number of server crashes in a scenario; 0 for none.
    #[arg(long, default_value_t = 2.0)]
    crashes: f64,
    /// Print the ladder of the first failure.
    #[arg(long)]
    ladder: bool,
    /// Do not print the table of wrong-lamp seconds.
    #[arg(long)]
    no_table: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        phones: args.phones,
        minutes: args.minutes,
        loss: args.loss,
        crashes: args.crashes,
        ..Options::default()
    };
    let (mut failed, mut events, mut notifies, mut crashes) = (0u64, 0, 0, 0);
    for seed in args.first..args.first + args.seeds {
        let outcome = simulator::run(seed, &options);
        events += outcome.tally.events;
        notifies += outcome.tally.notifies;
        crashes += outcome.tally.crashes;
        if let Some((fault, picture)) = &outcome.failure {
            failed += 1;
            println!("seed {seed}: {:.3} s, step {}: {}", fault.at as f64 / 1000.0, fault.step, fault.law);
            if args.ladder && failed == 1 {
                println!("{picture}");
            }
        }
    }
    println!(
        "storms: {} seeds, {failed} failed, {events} call events, {notifies} NOTIFYs, {crashes} crashes",
        args.seeds
    );
    if !args.no_table {
        table(&args);
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints the wrong-lamp seconds by packet loss. Phones and publishers follow the protocol here, and the server does
/// not crash; only the network loses datagrams.
fn table(args: &Args) {
    println!("\n  loss  call events  wrong-lamp seconds    mean   longest  NOTIFYs per");
    println!("                      per million events  (ms)      (ms)   call event");
    let losses = args.loss.map_or(vec![0.0, 0.01, 0.05, 0.2], |loss| vec![loss]);
    for loss in losses {
        let options = Options {
            phones: args.phones,
            minutes: args.minutes,
            loss: Some(loss),
            trouble: false,
            crashes: 0.0,
            ..Options::default()
        };
        let outcomes: Vec<Outcome> =
            (args.first..args.first + args.seeds.min(100)).map(|seed| simulator::run(seed, &options)).collect();
        let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
        let events = sum(|o| o.tally.events).max(1);
        let (wrong, times) = (sum(|o| o.tally.wrong), sum(|o| o.tally.times).max(1));
        let longest = outcomes.iter().map(|o| o.tally.longest).max().unwrap_or_default();
        println!(
            "{:>5.0}% {events:>12} {:>19.0} {:>7} {longest:>9} {:>12.2}",
            loss * 100.0,
            wrong as f64 / 1_000.0 * 1_000_000.0 / events as f64,
            wrong / times,
            sum(|o| o.tally.notifies) as f64 / events as f64,
        );
    }
}
