//! What others see of this node: gRPC with mutual TLS, and five plain read-only HTTP paths.
//!
//! * [`authorise`]: the one place that says who may call what; deny by default.
//! * [`control`]: the trait behind the services, which the daemon implements; services only translate.
//! * [`target`]: whether a mutating call is meant for this node, this volume and this reign.
//! * [`explain`]: why the node does what it does, from its view alone.
//! * [`services`]: `holdfast.v1`; [`health`]: `grpc.health.v1` from the view; [`plain`]: the HTTP paths.
//! * [`mod@serve`]: puts them on two listeners; `bounded`: the plain one, so that nobody keeps others from it.
//!
//! Not here: doing anything (the daemon), certificates and connections ([`crate::tls`]), wire types
//! (`holdfast_proto::convert`).

pub mod authorise;
mod bounded;
pub mod control;
pub mod explain;
pub mod health;
pub mod plain;
pub mod serve;
pub mod services;
pub mod target;

pub use control::{CallError, Control};
pub use serve::{Api, ApiError, ApiOptions, serve};
