//! The agent: observe, decide, act. Wiring and processes; policy lives in `decide`.

pub mod api;
pub mod child;
pub mod config;
pub mod helper;
pub mod supervisor;
pub mod tls;
pub mod worker;
