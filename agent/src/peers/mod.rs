//! The other nodes of the cluster.
//!
//! * [`client`]: calls to one of them. `dial`: a connection to it, once it has proven who it is.
//!
//! Not here: what is made of their answers.

pub mod client;
mod dial;

pub use client::{Deadlines, PeerClient, PeerError};
pub use dial::PeerAddress;
