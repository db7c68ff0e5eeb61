//! Judges from what was seen of a mounted volume how its disk is doing. Pure.
//!
//! Only a write that returned in time proves life: an idle engine reads for ever from the cache of a disk that has
//! vanished. So silence counts as a stall, also when nobody asked.
//!
//! Invariants, each a test below:
//! * `a_write_past_its_deadline_is_a_stall_and_a_late_answer_ends_it`
//! * `silence_is_a_stall`
//! * `one_failed_write_is_sick_for_good`
//! * `a_vanished_device_is_gone_whatever_else_was_seen`

use holdfast_model::Tick;
use holdfast_model::volume::DiskHealth;

use crate::mountinfo::FsState;

/// Milliseconds between probe writes unless configured otherwise.
pub const PROBE_INTERVAL_MS: u64 = 200;
/// Milliseconds after which a write that has not returned counts as stalled unless configured otherwise.
pub const STALL_DEADLINE_MS: u64 = 2000;

/// What was seen of one mounted volume since it was mounted. A new mount gets a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    deadline_ms: u64,
    /// When a write was last known to have returned; at first, when the volume was mounted.
    proven: Tick,
    waiting_since: Option<Tick>,
    failed: Option<String>,
    gone: Option<String>,
    fs: FsState,
}

impl Watch {
    /// Starts watching a volume that was just mounted.
    #[must_use]
    pub const fn new(mounted: Tick, deadline_ms: u64) -> Self {
        let fs = FsState::ReadWrite;
        Self { deadline_ms, proven: mounted, waiting_since: None, failed: None, gone: None, fs }
    }

    /// A probe write was handed to the worker. Only one is under way at a time; a second one is not counted.
    pub const fn submitted(&mut self, now: Tick) {
        if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
    }

    /// The probe write returned.
    pub fn returned(&mut self, now: Tick, result: Result<(), String>) {
        self.waiting_since = None;
        match result {
            Ok(()) => self.proven = now,
            Err(why) => self.failed = self.failed.take().or(Some(why)),
        }
    }

    /// The engine or a worker saw a write fail.
    pub fn write_failed(&mut self, why: String) {
        self.failed = self.failed.take().or(Some(why));
    }

    /// The worker that was probing is gone (killed, or its socket closed); its write no longer counts as waiting.
    pub const fn abandoned(&mut self) {
        self.waiting_since = None;
    }

    /// The device and the mount table were looked at: `gone` says how it shows that the device is not there.
    pub fn looked(&mut self, gone: Option<String>, fs: FsState) {
        self.gone = gone;
        self.fs = fs;
    }

    /// How the disk is doing at `now`.
    #[must_use]
    pub fn health(&self, now: Tick) -> DiskHealth {
        if let Some(why) = &self.gone {
            return DiskHealth::Gone { why: why.clone() };
        }
        match self.fs {
            FsState::NotMounted => {
                return DiskHealth::Gone { why: "the volume is no longer mounted".to_owned() };
            }
            FsState::ShutDown => return DiskHealth::ShutDown,
            FsState::ReadOnly => return DiskHealth::ReadOnly,
            FsState::ReadWrite => {}
        }
        if let Some(why) = &self.failed {
            return DiskHealth::Sick { why: why.clone() };
        }
        let for_ms = now.millis_since(self.waiting_since.unwrap_or(self.proven));
        if for_ms > self.deadline_ms { DiskHealth::Stalled { for_ms } } else { DiskHealth::Healthy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Tick {
        Tick::from_millis(ms)
    }

    fn watch() -> Watch {
        Watch::new(at(0), STALL_DEADLINE_MS)
    }

    #[test]
    fn a_write_past_its_deadline_is_a_stall_and_a_late_answer_ends_it() {
        let mut w = watch();
        w.submitted(at(100));
        w.submitted(at(300));
        assert_eq!(w.health(at(2100)), DiskHealth::Healthy);
        assert_eq!(w.health(at(2101)), DiskHealth::Stalled { for_ms: 2001 });
        w.returned(at(9000), Ok(()));
        assert_eq!(w.health(at(9000)), DiskHealth::Healthy);
    }

    #[test]
    fn silence_is_a_stall() {
        let mut w = watch();
        assert_eq!(w.health(at(2001)), DiskHealth::Stalled { for_ms: 2001 });
        w.submitted(at(2100));
        w.returned(at(2200), Ok(()));
        w.submitted(at(2300));
        w.abandoned();
        assert_eq!(w.health(at(4200)), DiskHealth::Healthy);
        assert_eq!(w.health(at(4201)), DiskHealth::Stalled { for_ms: 2001 });
    }

    #[test]
    fn one_failed_write_is_sick_for_good() {
        let mut w = watch();
        w.returned(at(10), Err("eio".to_owned()));
        w.returned(at(20), Ok(()));
        w.returned(at(30), Err("again".to_owned()));
        assert_eq!(w.health(at(30)), DiskHealth::Sick { why: "eio".to_owned() });
    }

    #[test]
    fn a_vanished_device_is_gone_whatever_else_was_seen() {
        let mut w = watch();
        w.write_failed("eio".to_owned());
        w.looked(Some("no such device".to_owned()), FsState::ReadOnly);
        assert_eq!(w.health(at(9000)).word(), "gone");
        w.looked(None, FsState::NotMounted);
        assert_eq!(w.health(at(9000)).word(), "gone");
        w.looked(None, FsState::ShutDown);
        assert_eq!(w.health(at(9000)).word(), "shut_down");
        w.looked(None, FsState::ReadOnly);
        assert_eq!(w.health(at(9000)).word(), "read_only");
        w.looked(None, FsState::ReadWrite);
        assert_eq!(w.health(at(9000)).word(), "sick", "a device that came back is not trusted");
    }
}
