//! The agent's processes for real: root helper, stages, workers and engines that misbehave, on directories and loop devices.
//!
//! Needs root, as the agent does. The engine is a shell under the name `postgres`, so that each test can say what it does.

mod adopt;
mod disk;
mod log;
mod node;
mod stall;
mod start;
mod stop;
mod workers;
