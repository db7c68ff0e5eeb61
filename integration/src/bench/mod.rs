//! Figures for a person who compares: how fast faults are noticed, and what an agent costs, idle and under load. The story with its
//! backup and restore is measured by [`crate::demo::single`].
//!
//! * [`fault`]: what can go wrong below a node, each made by one system call.
//! * [`detect`]: from the fault to a closed gate.
//! * [`idle`]: memory and processor time of an agent that has nothing to do.
//! * [`load`]: processor time for commits, and commits with and without agents.
//!
//! Nothing here asserts a time: tests assert what happens, benchmarks say how fast.

pub mod detect;
pub mod fault;
pub mod idle;
pub mod load;
mod stage;
