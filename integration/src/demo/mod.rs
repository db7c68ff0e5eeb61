//! The demo: told scene by scene, on real parts, with a verdict at the end.
//!
//! * [`narrator`] prints.
//! * [`single`] is the story of one node that loses its only disk.
//! * [`outcome`] judges it.
//! * [`zones`] is the story of three nodes in three zones.

pub mod narrator;
pub mod outcome;
pub mod single;
pub mod zones;

/// The time of day, for what is compared with the daemon's log.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the daemon's log carries wall-clock time")]
pub(crate) fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
