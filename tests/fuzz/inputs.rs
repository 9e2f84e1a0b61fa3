//! Inputs of a fuzz target.

use std::fmt::Debug;

use bolero::generator::TypeGenerator;
use bolero::generator::bolero_generator::driver::{ByteSliceDriver, Options};

use super::mutation::{Change, mutate};
use super::target::Target;

/// Number of inputs of a target in a plain `cargo test`.
const INPUTS: u64 = 3_000;
/// Number of inputs of a target that starts from the fixtures, which cause more work than generated ones.
const CHANGED: u64 = 1_000;
/// Largest number of octets from which an input is made.
const LONGEST: u64 = 4_096;

/// Runs a target. A plain `cargo test` gives it the same inputs everywhere and every time, so that no change is
/// refused because of a random finding. `cargo bolero` and the `BOLERO_RANDOM_...` variables give it new ones
/// (docs/fuzzing.md).
#[allow(unused_macros, reason = "as for dead code")]
macro_rules! fuzz {
    ($input:ty, $target:expr) => {
        if cfg!(fuzzing) || std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("BOLERO_RANDOM")) {
            bolero::check!().with_type::<$input>().for_each($target)
        } else {
            crate::fuzz::inputs::same_every_time::<$input>($target)
        }
    };
}
#[allow(unused_imports, reason = "as for dead code")]
pub(crate) use fuzz;

/// Runs a target on its seeds, and on its seeds with a few changes.
pub(crate) fn seeded(target: &Target) {
    let seeds = (target.seeds)();
    seeds.iter().for_each(|seed| (target.run)(seed));
    so_many::<(u16, Vec<Change>)>(CHANGED, |(seed, changes)| {
        let seed = &seeds[usize::from(*seed) % seeds.len()];
        (target.run)(&mutate(seed, &changes[..changes.len().min(4)], target.words));
    });
}

/// Runs a target on the inputs of a plain test; a failure prints the number of the input, and the input.
pub(crate) fn same_every_time<T: TypeGenerator + Debug>(target: impl FnMut(&T)) {
    so_many(INPUTS, target);
}

fn so_many<T: TypeGenerator + Debug>(inputs: u64, mut target: impl FnMut(&T)) {
    let mut chance = 0;
    for number in 0..inputs {
        let length = next(&mut chance) % (LONGEST + 1);
        let octets: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next(&mut chance).to_le_bytes()).collect();
        let mut driver = ByteSliceDriver::new(&octets, &Options::default());
        let Some(input) = T::generate(&mut driver) else { continue };
        let told = Told { number, input: &input };
        target(&input);
        std::mem::forget(told);
    }
}

/// Prints the input if the target panics.
struct Told<'a, T: Debug> {
    number: u64,
    input: &'a T,
}

impl<T: Debug> Drop for Told<'_, T> {
    fn drop(&mut self) {
        println!("input {} did it: {:?}", self.number, self.input);
    }
}

/// Random number generator SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
