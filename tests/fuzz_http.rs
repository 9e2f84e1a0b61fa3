//! Fuzz test: no client of the API can cause a panic, an invalid response, or access to data of another account.
//!
//! As a plain test it gets the same inputs every time; docs/fuzzing.md explains how to run it on new ones, for longer
//! and guided by coverage.

mod fuzz;

#[test]
fn requests_a_little_off_are_answered_in_the_envelope() {
    fuzz::inputs::seeded(&fuzz::http::TARGET);
}
