//! Processes of an engine as the kernel shows them: who they are, whether they live, and stopping them.
//!
//! A process is named by pid *and* start time: a pid alone is used again. `/proc/<pid>/stat` is read and never the
//! command line of anybody, except to find a postmaster: reading `cmdline` takes a lock that a process which hangs on
//! a stalled disk may hold.
//!
//! * [`ProcessTable`]: one look at `/proc`.
//! * [`stop`]: which signal when, and stopping a whole engine at once.

pub mod stop;
mod table;

pub use table::{Process, ProcessId, ProcessTable, TableError, find_by_arguments};
