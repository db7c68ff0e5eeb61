//! Log on its way from a primary to its standbys, and acks on their way back.
//!
//! A stream is a connection: in order and whole, or broken. A server compares nothing but timelines when a standby attaches,
//! as Postgres does; that more than this is true is for the checks to see.

use holdfast_model::{Member, Term};

use super::{Connected, Sender, name};
use crate::log::Record;
use crate::net::Body;
use crate::world::{Event, World};

/// Before a standby that is not connected tries again.
const AGAIN_MS: u64 = 400;
/// Records in one message.
const RECORDS_MAX: usize = 16;

impl World {
    /// A standby's receiver tries to connect, and again for as long as it is not connected.
    pub(crate) fn connect(&mut self, n: usize, process: u64) {
        let Some(server) = self.process(n).filter(|server| server.id == process && server.recovers) else {
            return;
        };
        let Some(receiver) = server.receiver.clone().filter(|receiver| receiver.stream.is_none()) else {
            return;
        };
        let Some(log) = self.log(n) else { return };
        let (at, timeline) = (log.len(), log.timeline());
        let body = Body::Attach { attempt: receiver.attempt, member: receiver.member, at, timeline };
        self.send(n, receiver.upstream, body);
        self.after(AGAIN_MS, Event::Connect { n, process });
    }

    /// A standby asks to be sent log from `at` on.
    pub(crate) fn attach(&mut self, n: usize, from: usize, asked: (u64, Member, usize, Term)) {
        let (attempt, member, at, timeline) = asked;
        let Some(server) = self.process(n) else { return };
        let admitted = !server.recovers && server.admitted.contains(&member);
        let durable = self.files(n).map_or(0, |files| files.durable);
        let streams = self.log(n).is_some_and(|log| log.streams_from(at, timeline)) && at <= durable;
        if !admitted || !streams {
            return;
        }
        self.check_attached(n, from, at);
        self.next_id += 1;
        let stream = self.next_id;
        let Some(server) = self.process_mut(n) else { return };
        let timeline = server.timeline;
        server.senders.retain(|sender| sender.member != member);
        server.senders.push(Sender { stream, node: from, member, sent: at, flushed: at });
        self.send(n, from, Body::Attached { attempt, connected: Connected { stream, timeline } });
        self.say(|| format!("{} receives from {} at {at}", name(from), name(n)));
        self.send_log(n);
        self.release(n);
    }

    pub(crate) fn attached(&mut self, n: usize, attempt: u64, connected: Connected) {
        let Some(server) = self.process_mut(n).filter(|server| server.recovers) else { return };
        let receiver = server.receiver.as_mut().filter(|receiver| receiver.attempt == attempt);
        if let Some(receiver) = receiver {
            receiver.stream = Some(connected);
            self.wake_gate(n);
        }
    }

    /// Sends what is flushed and was not sent yet.
    pub(crate) fn send_log(&mut self, n: usize) {
        let Some(server) = self.process(n).filter(|server| !server.recovers) else { return };
        let durable = self.files(n).map_or(0, |files| files.durable);
        let mut messages = vec![];
        for (index, sender) in server.senders.iter().enumerate().filter(|(_, sender)| sender.sent < durable) {
            let log = self.log(n).map(|log| &log.records()[sender.sent..durable]).unwrap_or_default();
            for (piece, records) in log.chunks(RECORDS_MAX).enumerate() {
                let from = sender.sent + piece * RECORDS_MAX;
                messages.push((index, Body::Log { stream: sender.stream, from, records: records.to_vec() }));
            }
        }
        for (index, body) in messages {
            let Some(server) = self.process_mut(n) else { return };
            let Some(sender) = server.senders.get_mut(index) else { continue };
            sender.sent = durable;
            let to = sender.node;
            self.send(n, to, body);
        }
    }

    /// Log arrives at a standby.
    pub(crate) fn receive(&mut self, n: usize, stream: u64, from: usize, records: Vec<Record>) {
        if self.received_stream(n) != Some(stream) {
            return;
        }
        let Some(files) = self.files_mut(n) else { return };
        if files.log.len() != from {
            return;
        }
        for record in records {
            files.log.push(record);
        }
        let timeline = files.log.timeline();
        if let Some(server) = self.process_mut(n) {
            server.timeline = timeline;
        }
        self.flush_soon(n);
    }

    /// The stream that a standby receives by.
    fn received_stream(&self, n: usize) -> Option<u64> {
        let receiver = self.process(n).filter(|server| server.recovers)?.receiver.as_ref()?;
        Some(receiver.stream?.stream)
    }

    /// Tells the primary how far this standby has flushed: the ack.
    pub(crate) fn tell_flushed(&mut self, n: usize) {
        let Some(receiver) = self.process(n).and_then(|server| server.receiver.as_ref()) else { return };
        let (Some(connected), upstream) = (receiver.stream, receiver.upstream) else { return };
        let at = self.files(n).map_or(0, |files| files.durable);
        self.check_ack(n, connected.timeline, at);
        self.send(n, upstream, Body::Flushed { stream: connected.stream, at });
    }

    /// An ack arrives.
    pub(crate) fn take_ack(&mut self, n: usize, stream: u64, at: usize) {
        let Some(server) = self.process_mut(n) else { return };
        if let Some(sender) = server.senders.iter_mut().find(|sender| sender.stream == stream) {
            sender.flushed = sender.flushed.max(at);
            self.release(n);
        }
    }

    /// A message of a stream was lost, and with it the connection; both ends find out.
    pub(crate) fn break_stream(&mut self, one: usize, other: usize, stream: u64) {
        for n in [one, other] {
            let Some(server) = self.process_mut(n) else { continue };
            server.senders.retain(|sender| sender.stream != stream);
            let process = server.id;
            let Some(receiver) = &mut server.receiver else { continue };
            if receiver.stream.is_some_and(|connected| connected.stream == stream) {
                receiver.stream = None;
                self.after(AGAIN_MS, Event::Connect { n, process });
            }
        }
    }

    /// The process at one end is gone: the other end's kernel hears of it, if the link lets it.
    pub(crate) fn reset_streams(&mut self, gone: usize) {
        for n in 0..self.nodes.len() {
            if n == gone || self.net.is_cut(gone, n) {
                continue;
            }
            let Some(server) = self.process_mut(n) else { continue };
            server.senders.retain(|sender| sender.node != gone);
            let process = server.id;
            let Some(receiver) = server.receiver.as_mut().filter(|receiver| receiver.upstream == gone) else {
                continue;
            };
            if receiver.stream.take().is_some() {
                self.after(AGAIN_MS, Event::Connect { n, process });
            }
        }
    }
}
