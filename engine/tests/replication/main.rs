//! Replication on real servers: pairs and trios on loopback, with certificates, as three zones would be.
//!
//! Each trap of `reference/design-review.md` (T4-T10) and `reference/reliability.md` (P1-P9, P11) that a server can show is
//! shown first, on a server without what guards it, and then seen not to catch ours.
#![expect(clippy::unwrap_used, reason = "a test's tools fail the test")]

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/mod.rs"]
mod support;

mod acks;
mod breaches;
mod choose;
mod cluster;
mod crashes;
mod disks;
mod first_segment;
mod follow;
mod hands;
mod keep;
mod members;
mod promote;
mod recruit;
mod resume;
mod rewind;
