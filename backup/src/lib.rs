//! Engine-agnostic bytes to object storage and back.
//!
//! * [`store`]: configuration, connection, and what can go wrong, in words to act on.
//! * [`repository`]: the place of one cluster: found, created, opened.
//! * [`rules`]: rules and the chain that they make.
//! * [`backup`]: makes a backup from a [`backup::Source`], deduplicated against an earlier one, published last.
//! * [`restore`]: plans and runs a restore, which can be cut short and continued.
//! * [`evidence`]: what people read after something happened.
//! * [`log`]: ships log and reads it back.
//!
//! What holds everywhere: no object that arbitrates is ever overwritten; whatever comes from the repository is
//! hostile until it was checked; memory does not grow with the size of the data; a future may be dropped at any point
//! and the operation repeated.
//!
//! Not here: engines (which files, which log, when), devices, and the daemon's decisions.

pub mod backup;
mod chunk;
pub mod evidence;
mod key;
mod kind;
pub mod log;
pub mod manifest;
mod meter;
pub mod pack;
mod path;
pub mod repository;
pub mod restore;
pub mod rules;
pub mod store;
#[cfg(test)]
mod testing;
mod wire;

pub use chunk::{ChunkError, ChunkName, ChunkRef};
pub use key::{BackupId, PackId};
pub use manifest::page::PageError;
pub use manifest::walk::WalkError;
pub use meter::Meter;
pub use path::{PathError, RelPath};
pub use repository::{ClusterRecord, FetchError, Found, Location, Repository};
pub use store::RepositoryConfig;
pub use wire::LayoutError;
