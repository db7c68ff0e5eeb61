//! `holdfast.v1` on the wire, and its way to and from the words of the project.
//!
//! * [`v1`]: code generated from `proto/v1/*.proto`. Wire types stop in this crate: services and the command line
//!   handle [`holdfast_model`] types, [`request`]s and [`reply`]s.
//! * [`convert`]: wire to model and back; all validation of what comes in.
//! * [`identity`]: who a certificate says the caller is, and which roles there are.
//! * [`refusal`]: errors that say what is missing and what would resolve it, to and from `google.rpc` details.
//!
//! Not here: who may call what (`agent::api::authorise`), connections (`agent::tls`, `cli`).

pub mod convert;
pub mod identity;
pub mod refusal;
pub mod reply;
pub mod request;

/// Generated from `proto/v1/*.proto`; each message and field is documented there.
pub mod v1 {
    #![expect(missing_docs, clippy::allow_attributes, clippy::large_enum_variant, reason = "generated code")]
    tonic::include_proto!("holdfast.v1");
}

/// The encoded `FileDescriptorSet` of `holdfast.v1` as built, for reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
