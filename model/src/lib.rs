//! The words of the project as types: parsed once at the edge, pure, no I/O, no async runtime.
//!
//! Everything that crosses a crate boundary and means something is named here: who ([`ids`]), which reign
//! ([`rule`]), how far ([`position`]), on which disk ([`volume`]), in what state ([`status`]), in what company ([`peer`]), by which steps
//! that changes ([`step`]), on whose word ([`vouch`]), and how a file of ours is framed ([`record`]).
//!
//! Not here: reading or writing anything, wire formats (`proto`), SQL (`engine`).

pub mod hex128;
pub mod ids;
pub mod peer;
pub mod position;
pub mod record;
pub mod rule;
pub mod size;
pub mod status;
pub mod step;
pub mod tick;
pub mod volume;
pub mod vouch;

pub use ids::{ClusterId, ClusterName, Incarnation, Member, NodeName, ParseIdError, Zone};
pub use position::{
    Gtid, GtidSet, Lsn, NotAnLsn, ParseGtidError, ParseLsnError, ParsePositionError, Position, Source,
};
pub use rule::{Promise, Rule, RuleId, Term, Voter, VoterKind};
pub use size::ByteCount;
pub use tick::Tick;
pub use vouch::Vouch;
