//! Mutual TLS for the gRPC listener: who is calling, with certificates that may change under way.
//!
//! * [`files`]: the node's certificate files as a rustls configuration; client certificates are always required.
//! * [`reload`]: swaps the configuration when the files change; a broken set leaves the old one in force.
//! * [`acceptor`]: shakes hands, bounded in number and time.
//! * [`peer`]: what the verified certificate says.
//!
//! Not here: what a caller may do (`api::authorise`). The plain HTTP listener has no TLS.

pub mod acceptor;
pub mod files;
pub mod peer;
pub mod reload;

pub use acceptor::{Acceptor, Connection};
pub use files::TlsError;
pub use peer::{NoIdentity, Peer};
pub use reload::Reloader;
