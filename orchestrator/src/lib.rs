//! What a cluster needs done that no node can do alone. The cores are sans-io: answers and ticks go in, requests come out,
//! and whoever drives them (an agent, an external orchestrator over the same calls, a simulation) carries them.
//!
//! * [`failover`]: one attempt at another primary, from the votes of those who miss the old one to an open gate.
//! * [`switchover`]: the same in peace: nothing is interrupted before the candidate is near, and taken back if it fails.
//! * [`course`]: either of them, for whoever carries requests.
//! * [`drive`]: runs either to its end over a trait that carries requests.
//!
//! Safety does not rest here: every member judges by its own promise and its own log what it takes part in (see
//! `replication`), and an attempt that is cut off anywhere leaves promises behind and nothing else. What is decided here
//! is when to ask, when it is enough, and what to say when it is not.
//!
//! Not here: how a request travels (the agent), and noticing by itself that a failover is due.

pub mod course;
pub mod drive;
pub mod failover;
pub mod switchover;
#[cfg(test)]
mod testing;
