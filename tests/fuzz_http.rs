//! No client of the API can make it panic, answer what is no answer, or show him what is not his.
//!
//! As plain tests these get the same inputs every time; docs/fuzzing.md tells how to run them on new ones, longer and
//! led by coverage.

mod fuzz;

#[test]
fn requests_a_little_off_are_answered_in_the_envelope() {
    fuzz::inputs::seeded(&fuzz::http::TARGET);
}
