//! A database engine as a plain struct: what it has on its disk, and what its process does with it.
//!
//! It stands for Postgres as the agents use it. A primary streams what it has flushed, and releases a commit once its list
//! of synchronous standbys is satisfied by the flush positions of those attached; a standby receives, flushes and tells so.
//! What a crash takes is what was not flushed.
//!
//! * `streams`: log on its way from a primary to its standbys, and acks on their way back.
//! * `orders`: what an agent asks of its engine.

mod orders;
mod streams;

pub(crate) use orders::{Recruited, Refused};

use std::collections::BTreeSet;

use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::{Member, Term, Tick};
use holdfast_replication::quorum::AckQuorum;

use crate::log::{Log, Payload, Record};
use crate::world::{Event, World};

/// Whose acks commits wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sync {
    /// No list that anybody could satisfy.
    Nobody,
    Quorum(AckQuorum),
}

/// What the engine keeps on the volume.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    pub(crate) log: Log,
    /// So many records survive a crash for certain.
    pub(crate) durable: usize,
    /// It starts as a standby.
    pub(crate) standby: bool,
}

/// A standby that is attached to a primary.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) stream: u64,
    pub(crate) node: usize,
    pub(crate) member: Member,
    pub(crate) sent: usize,
    /// As it told on this stream.
    pub(crate) flushed: usize,
}

/// Where a standby receives from.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    /// Another one each time it is pointed anywhere: what an earlier connection brings is none of this one's.
    pub(crate) attempt: u64,
    pub(crate) upstream: usize,
    /// The member that it logs in as.
    pub(crate) member: Member,
    /// Once it is connected.
    pub(crate) stream: Option<Connected>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Connected {
    pub(crate) stream: u64,
    pub(crate) timeline: Term,
}

/// A server's process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) since: Tick,
    pub(crate) ready: bool,
    pub(crate) recovers: bool,
    pub(crate) timeline: Term,
    pub(crate) gate: Gate,
    pub(crate) sync: Sync,
    /// Who may attach.
    pub(crate) admitted: BTreeSet<Member>,
    pub(crate) senders: Vec<Sender>,
    pub(crate) receiver: Option<Receiver>,
    /// Commits that wait for acks, oldest first, and where each ends.
    pub(crate) waiting: Vec<(u32, usize)>,
    flushing: bool,
}

impl Process {
    /// How far a member that is attached was seen to have flushed.
    fn seen_at(&self, member: &Member) -> Option<usize> {
        self.senders.iter().find(|sender| sender.member == *member).map(|sender| sender.flushed)
    }
}

/// The process as the agent knows it.
#[derive(Debug, Clone)]
pub(crate) enum Server {
    Stopped { crashes: u32, since: Option<Tick> },
    Alive(Box<Process>),
    Stopping { id: u64, since: Tick },
}

impl Server {
    pub(crate) fn alive(&self) -> Option<&Process> {
        match self {
            Self::Alive(process) => Some(process),
            Self::Stopped { .. } | Self::Stopping { .. } => None,
        }
    }
}

/// What the engine says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) recovers: bool,
    pub(crate) timeline: Term,
    pub(crate) flushed: usize,
}

/// Milliseconds for a flush.
const FLUSH_MS: (u64, u64) = (1, 15);
const START_MS: (u64, u64) = (50, 600);
const STOP_MS: (u64, u64) = (10, 200);

impl World {
    /// The process that answers.
    pub(crate) fn process(&self, n: usize) -> Option<&Process> {
        self.nodes[n].server.alive().filter(|process| process.ready && self.nodes[n].disk.is_some())
    }

    pub(crate) fn process_mut(&mut self, n: usize) -> Option<&mut Process> {
        let node = &mut self.nodes[n];
        match &mut node.server {
            Server::Alive(process) if process.ready && node.disk.is_some() => Some(process),
            Server::Alive(_) | Server::Stopped { .. } | Server::Stopping { .. } => None,
        }
    }

    pub(crate) fn files(&self, n: usize) -> Option<&Files> {
        self.nodes[n].disk.as_ref().map(|disk| &disk.files)
    }

    pub(crate) fn files_mut(&mut self, n: usize) -> Option<&mut Files> {
        self.nodes[n].disk.as_mut().map(|disk| &mut disk.files)
    }

    pub(crate) fn log(&self, n: usize) -> Option<&Log> {
        self.files(n).map(|files| &files.log)
    }

    /// Starts the server, with a closed gate and a list that nobody satisfies.
    pub(crate) fn start_server(&mut self, n: usize) {
        let Some(files) = self.files(n) else { return };
        let (timeline, recovers) = (files.log.timeline(), files.standby);
        self.next_id += 1;
        let id = self.next_id;
        let process = Process {
            id,
            since: self.now,
            ready: false,
            recovers,
            timeline,
            gate: Gate::Closed { why: GateClosed::Starting },
            sync: Sync::Nobody,
            admitted: BTreeSet::new(),
            senders: vec![],
            receiver: None,
            waiting: vec![],
            flushing: false,
        };
        self.nodes[n].server = Server::Alive(Box::new(process));
        let ms = self.chance.between(START_MS.0, START_MS.1);
        self.after(ms, Event::Ready { n, process: id });
        self.say(|| {
            format!("{} engine starts as a {}", name(n), if recovers { "standby" } else { "primary" })
        });
    }

    pub(crate) fn server_is_ready(&mut self, n: usize, id: u64) {
        match &mut self.nodes[n].server {
            Server::Alive(process) if process.id == id => process.ready = true,
            Server::Alive(_) | Server::Stopped { .. } | Server::Stopping { .. } => return,
        }
        self.flush(n, id);
        self.after(1, Event::Connect { n, process: id });
        self.wake(n);
    }

    /// It stands still: it neither answers, nor receives, nor flushes, and what is sent to it waits.
    pub(crate) fn freeze_server(&mut self, n: usize, ms: u64) {
        let Some(process) = self.process_mut(n) else { return };
        process.ready = false;
        let process = process.id;
        self.counts.one("fault: engine frozen");
        self.after(ms, Event::Ready { n, process });
    }

    /// Whether it is there and does not answer.
    pub(crate) fn is_frozen(&self, n: usize) -> bool {
        self.nodes[n].server.alive().is_some_and(|process| !process.ready)
    }

    /// The agent stops it: at once, and no waiter hears of success.
    pub(crate) fn stop_server(&mut self, n: usize) {
        let Server::Alive(process) = &self.nodes[n].server else { return };
        let id = process.id;
        self.end_process(n);
        self.reset_streams(n);
        self.nodes[n].server = Server::Stopping { id, since: self.now };
        let ms = self.chance.between(STOP_MS.0, STOP_MS.1);
        self.after(ms, Event::Stopped { n, process: id });
        self.say(|| format!("{} engine is stopped", name(n)));
    }

    pub(crate) fn server_has_stopped(&mut self, n: usize, id: u64) {
        if matches!(&self.nodes[n].server, Server::Stopping { id: stopping, .. } if *stopping == id) {
            self.nodes[n].server = Server::Stopped { crashes: 0, since: Some(self.now) };
            self.wake(n);
        }
    }

    /// It ends by itself.
    pub(crate) fn crash_server(&mut self, n: usize) {
        if self.nodes[n].server.alive().is_none() {
            return;
        }
        self.end_process(n);
        self.reset_streams(n);
        let crashes = self.nodes[n].crashes.saturating_add(1).min(3);
        self.nodes[n].crashes = crashes;
        self.nodes[n].server = Server::Stopped { crashes, since: Some(self.now) };
        self.wake(n);
    }

    /// What was not flushed may be gone, from some record on.
    fn end_process(&mut self, n: usize) {
        let Some(files) = self.files(n) else { return };
        let (durable, len) = (files.durable, files.log.len());
        let kept = usize::try_from(self.chance.between(durable as u64, len as u64)).expect("it is a length");
        let Some(files) = self.files_mut(n) else { return };
        files.log.truncate(kept);
        files.durable = kept;
    }

    /// Writes a record on a primary; returns where it ends. It is flushed a little later.
    pub(crate) fn append(&mut self, n: usize, payload: Payload) -> Option<usize> {
        let timeline = self.process(n).filter(|process| !process.recovers)?.timeline;
        let end = self.files_mut(n)?.log.push(Record { timeline, payload });
        self.flush_soon(n);
        Some(end)
    }

    /// As [`Self::append`], and flushed before it returns.
    pub(crate) fn append_durably(&mut self, n: usize, payload: Payload) -> Option<usize> {
        let end = self.append(n, payload)?;
        self.flushed(n, end);
        Some(end)
    }

    pub(crate) fn flush_soon(&mut self, n: usize) {
        let slow = self.nodes[n].slow_disk_ms;
        let ms = self.chance.between(FLUSH_MS.0, FLUSH_MS.1) + slow;
        let Some(process) = self.process_mut(n).filter(|process| !process.flushing) else { return };
        process.flushing = true;
        let id = process.id;
        self.after(ms, Event::Flush { n, process: id });
    }

    pub(crate) fn flush(&mut self, n: usize, id: u64) {
        let Some(process) = self.process_mut(n).filter(|process| process.id == id) else { return };
        process.flushing = false;
        let end = self.log(n).map_or(0, Log::len);
        self.flushed(n, end);
    }

    /// Everything up to `end` is on the disk.
    fn flushed(&mut self, n: usize, end: usize) {
        let Some(files) = self.files_mut(n) else { return };
        if files.durable >= end {
            return;
        }
        files.durable = end;
        let Some(process) = self.process(n) else { return };
        if process.recovers {
            self.tell_flushed(n);
        } else {
            self.send_log(n);
            self.release(n);
        }
    }

    /// A client commits, if the gate lets it.
    pub(crate) fn commit(&mut self, n: usize) {
        let Some(process) = self.process(n) else { return };
        if process.recovers || !matches!(process.gate, Gate::Open { .. }) {
            return;
        }
        self.writes += 1;
        let id = self.writes;
        let Some(end) = self.append(n, Payload::Write(id)) else { return };
        if let Some(process) = self.process_mut(n) {
            process.waiting.push((id, end));
        }
        self.counts.one("writes");
    }

    /// How far what is in force counts log as acked.
    pub(crate) fn acked_by(&self, n: usize, quorum: &AckQuorum) -> Option<usize> {
        let (process, files) = (self.process(n)?, self.files(n)?);
        quorum.acked(files.durable, |member| process.seen_at(member))
    }

    /// Whether what lies before `at` is seen acked by `quorum`.
    pub(crate) fn is_acked(&self, n: usize, quorum: &AckQuorum, at: usize) -> bool {
        let (Some(process), Some(files)) = (self.process(n), self.files(n)) else { return false };
        quorum.holds(at, files.durable, |member| process.seen_at(member))
    }

    /// Tells those clients that wait and need not any more.
    pub(crate) fn release(&mut self, n: usize) {
        let Some(process) = self.process(n).filter(|process| !process.recovers) else { return };
        let Sync::Quorum(quorum) = &process.sync else { return };
        if process.waiting.is_empty() {
            return;
        }
        let Some(acked) = self.acked_by(n, quorum) else { return };
        let (quorum, timeline) = (quorum.clone(), process.timeline);
        let Some(process) = self.process_mut(n) else { return };
        let told: Vec<(u32, usize)> =
            process.waiting.iter().copied().filter(|(_, end)| *end <= acked).collect();
        process.waiting.retain(|(_, end)| *end > acked);
        for (id, end) in told {
            self.client_was_told(n, timeline, (id, end), &quorum);
        }
    }

    pub(crate) fn status(&self, n: usize, process: u64) -> Option<Status> {
        let server = self.process(n).filter(|server| server.id == process)?;
        let files = self.files(n)?;
        Some(Status { recovers: server.recovers, timeline: server.timeline, flushed: files.durable })
    }
}

/// How a node is called.
pub(crate) fn name(n: usize) -> String {
    format!("n{}", n + 1)
}
