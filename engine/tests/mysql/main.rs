//! MySQL on real servers, on loopback, with certificates, each member as a zone of its own.
//!
//! Each trap (M1-M12 and T12-T14 in the comments) that a server can show is shown first, by hand, on a server that is not guarded
//! against it, and then seen not to catch ours.
#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

#[path = "../support/certificates.rs"]
mod certificates;

mod backup;
mod binlog;
mod channel;
mod cluster;
mod config;
mod driver;
mod gate;
mod members;
mod purge;
mod rules;
mod server;
