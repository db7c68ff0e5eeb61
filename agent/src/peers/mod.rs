//! The other nodes of the cluster.
//!
//! * [`client`]: calls to one of them. `dial`: a connection to it, once it has proven who it is.
//! * [`members`]: what a coordinator asks of all of them.
//!
//! Not here: what is made of their answers.

pub mod client;
mod dial;
pub mod members;

pub use client::{Deadlines, PeerClient, PeerError};
pub use dial::PeerAddress;
pub use members::MemberLines;
