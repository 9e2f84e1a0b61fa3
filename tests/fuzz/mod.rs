//! Fuzz targets and their checks. Each is a plain test in `tests/fuzz_*.rs` and a campaign of `.ci/fuzz`.
#![allow(dead_code, reason = "no crate that takes this in needs all of it")]

pub(crate) mod bodies;
pub(crate) mod fixtures;
pub(crate) mod http;
pub(crate) mod inputs;
pub(crate) mod message;
pub(crate) mod mutation;
#[path = "../torture/notifier.rs"]
pub(crate) mod notifier;
pub(crate) mod sound;
pub(crate) mod stream;
pub(crate) mod talk;
pub(crate) mod target;
pub(crate) mod values;
