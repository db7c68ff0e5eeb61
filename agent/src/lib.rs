//! The agent: observe, decide, act. Wiring and processes; policy lives in `decide`.
//!
//! * Processes: [`daemon`] (unprivileged), [`helper`] (root), [`worker`] (the data disk), [`child`] (before an engine).
//! * Loops: [`reconcile`] and [`gate_loop`], over [`disk`], [`engine_actor`] and [`repo_watch`].
//! * Long work: [`jobs`] in workers, [`operations`] in the view; [`hands`] on a server that follows.
//! * Outside: [`api`] over [`tls`], [`peers`], [`metrics`], [`fetch`] for recovery.
//! * What lasts: [`ledger`] on the root disk, [`data`] on the volume.
//! * In debug builds, `die_at`: dies where a test wants it to.

pub mod api;
pub mod bootstrap;
pub mod chain;
pub mod child;
pub mod clock;
pub mod config;
pub mod crew;
pub mod daemon;
pub mod data;
#[cfg(debug_assertions)]
mod die_at;
pub mod disk;
pub mod engine_actor;
pub mod fetch;
pub mod gate_loop;
pub mod handover;
pub mod hands;
pub mod helper;
pub mod jobs;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod operations;
pub mod peers;
pub mod reconcile;
pub mod repo_watch;
pub mod supervisor;
pub mod tls;
pub mod worker;
