//! The agent's processes for real: root helper, stages, workers and engines that misbehave, on directories and loop devices.
//!
//! Needs root, as the agent does. The engine is a shell under the name `postgres`, so that each test can say what it does.

#![expect(clippy::unwrap_used, reason = "a test whose parts cannot be set up has failed")]

mod adopt;
mod certificates;
mod disk;
mod log;
mod node;
mod receivers;
mod stall;
mod start;
mod stop;
mod workers;
