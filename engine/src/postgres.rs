//! PostgreSQL 15 to 17.
//!
//! * Places and versions: [`Layout`], [`Version`], [`argv`].
//! * What the agent renders: [`config`], [`hba`], [`sync`]; [`gate`] puts it in force and proves it.
//! * What the agent asks over SQL: [`session`], [`backup`].
//! * What the agent reads as bytes: [`wal`], [`control`], [`page`], [`files`].
//! * What a restore needs: [`recovery`].
//! * Replication: [`links`] renders it, [`members`] admits and removes, [`standby`] recruits, promotes and follows, and
//!   [`breach`] says when the promise was broken from within.
//! * [`Postgres`] joins them behind [`crate::Engine`].

pub mod argv;
pub mod backup;
pub mod breach;
pub mod config;
pub mod control;
mod driver;
pub mod files;
pub mod gate;
pub mod hba;
pub mod layout;
pub mod links;
pub mod members;
pub mod page;
pub mod recovery;
mod replicate;
pub mod session;
pub mod standby;
pub mod sync;
pub mod version;
pub mod wal;

pub use driver::{Deadlines, Postgres, Setup};
pub use layout::Layout;
pub use version::{Version, VersionError};
