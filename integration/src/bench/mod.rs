//! Figures for a person who compares: how fast faults are noticed, and what an idle agent costs. The story with its
//! backup and restore is measured by [`crate::demo::single`].
//!
//! * [`fault`]: what can go wrong below a node, each made by one system call.
//! * [`detect`]: from the fault to a closed gate.
//! * [`idle`]: memory and processor time of an agent that has nothing to do.
//!
//! Nothing here asserts a time: tests assert what happens, benchmarks say how fast.

pub mod detect;
pub mod fault;
pub mod idle;
mod stage;
