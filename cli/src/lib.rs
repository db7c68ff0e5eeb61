//! `holdfast`: asks any agent over gRPC, and shows the answer to people as tables or to programs as JSON.
//!
//! * [`args`]: what can be typed. [`run`]: what then happens, one file per group of commands.
//! * [`endpoint`], [`client`]: where an agent is, and a mutually verified connection to it.
//! * [`clock`]: the wall clock.
//! * [`certs`]: the small certificate authority behind `holdfast certs`.
//! * [`company`]: the nodes of a cluster, as one of them sees them.
//! * [`render`]: tables, as pure functions. [`output`]: the only place that prints.
//! * [`failure`]: what can go wrong, and the exit code that says so.
//!
//! Not here: any decision about a cluster. The library exists so that tests can call what the binary does.

pub mod args;
pub mod certs;
pub mod client;
pub mod clock;
pub mod company;
pub mod endpoint;
pub mod failure;
pub mod output;
pub mod render;
pub mod run;
