//! The core in virtual time: phones, publishers and operators with a real notifier, without sockets and without
//! waiting. Each file follows the text of the specification that it checks.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

mod office;

mod access;
mod busy;
mod delivery;
mod keeping;
mod names;
mod phones;
mod publications;
mod refused;
mod repeated;
mod reset_and_set;
mod restart;
mod subscriptions;
mod tenants;
mod upgrade;
mod walls;
mod wrong_clock;
