//! MySQL 8.4 to 9.
//!
//! * Places and versions: [`Layout`], [`Version`], [`argv`].
//! * What the agent renders: [`config`], which is always closed.
//! * Names: [`identity`] says under which a member writes, and how a log tells its last rule.
//! * What the agent asks over SQL: [`session`], [`status`], [`rules`]; [`gate`] puts in force what clients may do and proves it.
//!   [`weakened`] says what would break the promise from within.
//! * Replication: [`members`] lets members attach and looks who acks, [`channel`] follows, recruits and promotes.
//! * Log and copies: [`purge`] lets go of binlog, [`backup`] copies the data, [`binlog`] takes log apart and puts it together, [`replay`] has it
//!   applied.
//! * [`Mysql`] joins them behind [`crate::Engine`].

pub mod argv;
pub mod backup;
pub mod binlog;
pub mod channel;
pub mod config;
mod driver;
pub mod gate;
pub mod identity;
pub mod layout;
pub mod members;
pub mod purge;
pub mod replay;
pub mod rules;
pub mod session;
pub mod status;
pub mod version;
pub mod weakened;

pub use driver::{Deadlines, Mysql, Setup};
pub use layout::Layout;
pub use version::{Version, VersionError};
