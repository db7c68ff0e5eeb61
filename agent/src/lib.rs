//! The agent: observe, decide, act. Wiring and processes; policy lives in `decide`.

pub mod api;
pub mod chain;
pub mod child;
pub mod clock;
pub mod config;
pub mod crew;
pub mod data;
pub mod helper;
pub mod ledger;
pub mod logging;
pub mod supervisor;
pub mod tls;
pub mod worker;
