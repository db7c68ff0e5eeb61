//! Why no acknowledged commit is lost: the durability argument as code. Pure and sans-io; the orchestrator, the agent,
//! the simulator, the model checker, `explain` and the loss certificate all call these same functions.
//!
//! * [`coverage`]: U (no primary outside the recruited set can be acked any more) and E (a candidate inside it can).
//! * [`quorum`]: whose acks a commit needs, under one rule or under several that are open at once.
//! * [`promise`]: what a member that has promised a term may still take part in.
//! * [`choose`]: which recruited member becomes the primary, or why none may.
//! * [`account`]: the loss certificate, spelled out.
//! * [`change`]: how a primary changes its own rule, one voter at a time, and the rule of a promotion.
//! * [`chain`]: who may follow whom, and where a discarded tail begins.
//! * [`resume`]: when a primary whose engine ended goes on in place.
//! * [`catch_up`]: when a member that lost its disk may be counted again.
//! * [`faults`]: which losses would stop writes or a failover right now.
//!
//! The argument, in four steps. A commit is *durable* when its primary and k voters of other zones hold it. (1) U means
//! that what was not recruited holds no full voter together with k voters of other zones: so the recruited set meets
//! every set that could have made a commit durable, and no such set can form outside it any more. (2) The members of the
//! recruited set have promised before they told their positions: so the most advanced of them, by (last rule, position),
//! holds every durable commit. (3) E means that it can make commits durable with the recruited alone. (4) U of one
//! recruited set and E of another make the two meet in a member, and a member promises a term once: so a term has one
//! primary, without any lock or store.
//!
//! `tests/layouts.rs` checks (1), (3) and (4) exhaustively over small clusters; `tests/model` checks the whole with
//! competing coordinators, crashes, lost disks, rejoin, rule changes and log shipping at once.
//!
//! Not here: doing any of it (see `engine` and `agent`), and noticing that it must be done (see `orchestrator`).

pub mod account;
pub mod catch_up;
pub mod chain;
pub mod change;
pub mod choose;
pub mod coverage;
pub mod faults;
pub mod promise;
pub mod quorum;
pub mod resume;
#[cfg(test)]
mod testing;
