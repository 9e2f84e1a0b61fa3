//! Simulator runs: many short ones, the seeds that once found a bug, and proof that the invariants detect violations.

use lamplighter::simulator::{self, Options, Sabotage};

/// A storm that ends quickly, even in a debug build.
fn short() -> Options {
    Options { phones: 10, minutes: 1, ..Options::default() }
}

fn runs_clean(seed: u64, options: &Options) {
    if let Some((fault, ladder)) = simulator::run(seed, options).failure {
        panic!("seed {seed}, {} ms, step {}: {}\n{ladder}", fault.at, fault.step, fault.law);
    }
}

#[test]
fn short_storms_run_clean() {
    for seed in 0..SHORT_STORMS {
        runs_clean(seed, &short());
    }
}

/// A debug build takes a third of a second for each; a release build runs a few hundred in the same time.
const SHORT_STORMS: u64 = if cfg!(debug_assertions) { 40 } else { 400 };

#[test]
fn a_storm_is_replayed_from_its_seed() {
    let tallies = [(); 2].map(|()| simulator::run(7, &short()).tally);
    assert_eq!(format!("{:?}", tallies[0]), format!("{:?}", tallies[1]));
    assert_ne!(format!("{:?}", tallies[0]), format!("{:?}", simulator::run(8, &short()).tally));
}

/// A regression: a subscription on TCP expired while its NOTIFY waited for a response, and the timer of the final
/// NOTIFY fired at once, again and again, until Timer F.
#[test]
fn time_goes_on_after_the_final_notify_on_a_stream() {
    runs_clean(4, &Options { phones: 30, minutes: 3, ..Options::default() });
}

/// Runs storms until the mutation is detected, and returns the violation.
fn noticed(sabotage: Sabotage) -> String {
    noticed_in(sabotage, &short())
}

fn noticed_in(sabotage: Sabotage, options: &Options) -> String {
    let options = Options { sabotage: Some(sabotage), ..options.clone() };
    let mut faults = (0..30).filter_map(|seed| Some((seed, simulator::run(seed, &options).failure?.0)));
    let (seed, fault) = faults.next().unwrap_or_else(|| panic!("{sabotage:?} went unnoticed"));
    println!("{sabotage:?} is noticed with seed {seed}: {}", fault.law);
    fault.law
}

/// A storm with more crashes than usual.
fn crashing() -> Options {
    Options { crashes: 6.0, ..short() }
}

#[test]
fn a_lost_change_is_noticed_when_all_is_calm() {
    let law = noticed(Sabotage::LostChange);
    assert!(law.contains("after the storm"), "{law}");
}

#[test]
fn stale_bodies_and_revived_calls_are_noticed_as_they_leave() {
    for sabotage in [Sabotage::StaleBody, Sabotage::Revival] {
        let law = noticed(sabotage);
        assert!(law.contains("is true") || law.contains("went back"), "{sabotage:?}: {law}");
    }
}

#[test]
fn notifies_out_of_turn_are_noticed() {
    let law = noticed(Sabotage::Impatience);
    assert!(law.contains("a second NOTIFY"), "{law}");
    let law = noticed(Sabotage::Overtaken);
    assert!(law.contains("CSeq") || law.contains("is repeated after 0 ms"), "{law}");
}

#[test]
fn another_tenant_s_call_is_noticed() {
    let law = noticed(Sabotage::Leak);
    assert!(law.contains("acme.test"), "{law}");
}

#[test]
fn a_record_that_a_crash_loses_or_brings_back_is_noticed() {
    for sabotage in [Sabotage::LostRecord, Sabotage::OldRecord] {
        let law = noticed_in(sabotage, &crashing());
        assert!(law.contains("crash"), "{sabotage:?}: {law}");
    }
}

#[test]
fn counting_that_falls_over_a_crash_is_noticed() {
    let law = noticed_in(Sabotage::FallingCount, &crashing());
    assert!(law.contains("over a crash"), "{law}");
}

#[test]
fn notifies_to_those_who_know_after_a_restart_are_noticed() {
    let law = noticed_in(Sabotage::RestartStorm, &crashing());
    assert!(law.contains("told again after a restart"), "{law}");
}

#[test]
fn messages_that_do_not_wait_for_the_journal_are_noticed() {
    let law = noticed_in(Sabotage::Haste, &crashing());
    assert!(law.contains("crash"), "{law}");
    let law = noticed(Sabotage::Overtaking);
    assert!(law.contains("before the journal has kept"), "{law}");
}

#[test]
fn a_request_that_is_not_recognised_over_a_crash_is_noticed() {
    let law = noticed_in(Sabotage::OtherBranch, &crashing());
    assert!(law.contains("repeated"), "{law}");
}

#[test]
fn a_refused_change_that_stays_is_noticed() {
    let law = noticed_in(Sabotage::RefusedStays, &Options { crashes: 0.0, ..short() });
    assert!(law.contains("is true") || law.contains("entity-tag"), "{law}");
}

#[test]
fn what_is_lost_of_a_tenant_that_comes_back_is_noticed() {
    let law = noticed_in(Sabotage::LostTenant, &crashing());
    assert!(law.contains("lost in a crash"), "{law}");
}

#[test]
fn leases_that_a_clock_makes_longer_are_noticed() {
    let law = noticed_in(Sabotage::EndlessLease, &crashing());
    let expected = ["is true", "entity-tag", "a crash", "before its time"];
    assert!(expected.iter().any(|part| law.contains(part)), "{law}");
}

#[test]
fn pacing_that_is_shared_behind_a_proxy_is_noticed() {
    let law = noticed_in(Sabotage::SharedPacing, &Options { phones: 20, crashes: 0.0, ..short() });
    assert!(law.contains("is not told"), "{law}");
}
