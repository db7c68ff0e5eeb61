//! All knowledge of one database engine: Postgres, MySQL, and `fake` for simulation.
//!
//! * [`Engine`] is what the agent's loops call; [`postgres::Postgres`] and [`fake::Fake`] answer.
//! * What crosses that border has no engine's words in it: [`Ackers`], [`flushed`], [`links`], [`standing`].
//! * [`Launch`] says what to run. This crate starts nothing: the agent's helper does.
//! * [`postgres`] knows files, settings, SQL and log format of PostgreSQL; [`mysql`] knows those of MySQL.
//!
//! Most of it is pure: bytes and values in, values out. What talks to a server has a deadline on every wait.

pub mod ackers;
pub mod engine;
pub mod fake;
pub mod flushed;
pub mod launch;
pub mod links;
pub mod mysql;
pub mod postgres;
pub mod standing;

pub use ackers::Ackers;
pub use engine::{Engine, EngineError, EngineStatus, Retry};
pub use launch::Launch;
