//! The whole protocol as a model, checked by `stateright`: competing coordinators, crashes, lost disks, rejoin, rule changes,
//! log shipping, lost, late and repeated messages, all at once. Every decision in it is made by the crate's own functions.
//!
//! * [`state`]: what a cluster, its coordinators and the repository are at one moment.
//! * [`actions`]: what can happen next.
//! * [`nodes`], [`coordinator`]: how it happens.
//! * [`properties`]: what must never be, and what must be reachable, so that nothing is proven about an empty model.
//! * [`sound`]: no violation, exhaustively within small bounds and, by [`story`], at random beyond them.
//! * [`naive`]: shortcuts that look harmless; within the same bounds the same model finds each of them unsafe.
#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]
#![expect(clippy::print_stdout, reason = "how many states were checked is the test's result")]

mod actions;
mod coordinator;
mod naive;
mod nodes;
mod properties;
mod rules;
mod sound;
mod state;
mod story;
