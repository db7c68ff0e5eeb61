//! Refusals: what is missing and what would resolve it, carried as `google.rpc` details of a gRPC status.
//!
//! Invariants, each a test below:
//! * `a_refusal_survives_its_status`: nothing is lost between a node and a program that reads its answer.
//! * `every_reason_has_a_word_of_its_own`.
//! * `what_a_member_stands_by_survives_its_status`: a coordinator learns the term to begin above.
//!
//! Not here: messages that are not valid ([`crate::convert::Invalid`]), failures without a remedy.

use std::fmt;

use holdfast_model::Term;
use holdfast_replication::promise;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `google.rpc.ErrorInfo.domain` of everything that this project sends.
pub const DOMAIN: &str = "holdfast";

const RESOLVE: &str = "resolve";

/// Where [`promise::Refused`] travels as JSON.
const REFUSED: &str = "refused";

/// Why a call is refused: stable words for programs; the text beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The certificate names nobody that this node knows how to judge.
    NoIdentity,
    /// The certificate belongs to another cluster.
    OtherCluster,
    /// The certificate lacks the role.
    RoleMissing,
    /// No role opens this path.
    UnknownMethod,
    /// The call is meant for another cluster, node or incarnation.
    WrongTarget,
    /// The caller knows of an older reign than this node.
    StaleTerm,
    /// The device is not what the caller saw.
    DeviceChanged,
    /// Switched off by configuration.
    SwitchedOff,
    /// A token that is not known, used up, or for something else.
    BadToken,
    /// The node has no mounted volume.
    NoVolume,
    /// There is data where there must be none.
    DataPresent,
    /// There is no usable data.
    NoData,
    /// The cluster exists already.
    ClusterExists,
    /// No repository is configured, or it holds nothing of this cluster.
    NoRepository,
    /// The engine is not in the state that this needs.
    EngineState,
    /// Other long work is under way.
    Busy,
    /// Nothing has this name.
    NotFound,
    /// The member stands by something else: [`declined`] reads what.
    Declined,
    /// What allows it counted once, and does not any more.
    Expired,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::NoIdentity,
        Self::OtherCluster,
        Self::RoleMissing,
        Self::UnknownMethod,
        Self::WrongTarget,
        Self::StaleTerm,
        Self::DeviceChanged,
        Self::SwitchedOff,
        Self::BadToken,
        Self::NoVolume,
        Self::DataPresent,
        Self::NoData,
        Self::ClusterExists,
        Self::NoRepository,
        Self::EngineState,
        Self::Busy,
        Self::NotFound,
        Self::Declined,
        Self::Expired,
    ];

    /// The word in `google.rpc.ErrorInfo.reason`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoIdentity => "NO_IDENTITY",
            Self::OtherCluster => "OTHER_CLUSTER",
            Self::RoleMissing => "ROLE_MISSING",
            Self::UnknownMethod => "UNKNOWN_METHOD",
            Self::WrongTarget => "WRONG_TARGET",
            Self::StaleTerm => "STALE_TERM",
            Self::DeviceChanged => "DEVICE_CHANGED",
            Self::SwitchedOff => "SWITCHED_OFF",
            Self::BadToken => "BAD_TOKEN",
            Self::NoVolume => "NO_VOLUME",
            Self::DataPresent => "DATA_PRESENT",
            Self::NoData => "NO_DATA",
            Self::ClusterExists => "CLUSTER_EXISTS",
            Self::NoRepository => "NO_REPOSITORY",
            Self::EngineState => "ENGINE_STATE",
            Self::Busy => "BUSY",
            Self::NotFound => "NOT_FOUND",
            Self::Declined => "DECLINED",
            Self::Expired => "EXPIRED",
        }
    }

    /// The gRPC code that goes with it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NoIdentity => Code::Unauthenticated,
            Self::OtherCluster | Self::RoleMissing | Self::UnknownMethod => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::WrongTarget
            | Self::StaleTerm
            | Self::DeviceChanged
            | Self::SwitchedOff
            | Self::BadToken
            | Self::NoVolume
            | Self::DataPresent
            | Self::NoData
            | Self::ClusterExists
            | Self::NoRepository
            | Self::EngineState
            | Self::Busy
            | Self::Declined
            | Self::Expired => Code::FailedPrecondition,
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A call that is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{missing}; to resolve: {resolve}")]
pub struct Refusal {
    /// Why, for programs.
    pub reason: Reason,
    /// What is missing or in the way, for people.
    pub missing: String,
    /// What would resolve it, for people.
    pub resolve: String,
}

impl Refusal {
    /// Refuses because `missing`; `resolve` would help.
    pub fn new(reason: Reason, missing: impl Into<String>, resolve: impl Into<String>) -> Self {
        Self { reason, missing: missing.into(), resolve: resolve.into() }
    }

    /// Reads a refusal back; `None` when `status` says something else.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let reason = Reason::from_word(&info.reason)?;
        let resolve = info.metadata.get(RESOLVE)?.clone();
        let missing = status.message().strip_suffix(&format!("; to resolve: {resolve}"))?;
        Some(Self { reason, missing: missing.to_owned(), resolve })
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        status(&refusal, None)
    }
}

/// The status of `refusal`, with what a member stands by if that is the reason.
fn status(refusal: &Refusal, refused: Option<String>) -> Status {
    let mut details = ErrorDetails::new();
    let (word, resolve) = (refusal.reason.word(), (RESOLVE.to_owned(), refusal.resolve.clone()));
    match refused {
        None => details.set_error_info(word, DOMAIN, [resolve]),
        Some(refused) => details.set_error_info(word, DOMAIN, [resolve, (REFUSED.to_owned(), refused)]),
    };
    if refusal.reason.code() == Code::FailedPrecondition {
        details.add_precondition_failure_violation(refusal.reason.word(), DOMAIN, &refusal.missing);
    }
    Status::with_error_details(refusal.reason.code(), refusal.to_string(), details)
}

/// A member takes no part: for people a [`Refusal`], and for whoever coordinates what [`declined`] reads back.
#[must_use]
pub fn decline(refused: &promise::Refused) -> Status {
    let again = |term: Term| format!("begin again above term {term}");
    let (missing, resolve) = match refused {
        promise::Refused::Promised { promised, asked } => {
            (format!("term {promised} is promised, and term {asked} is not above it"), again(*promised))
        }
        promise::Refused::OtherAttempt { term } => {
            (format!("term {term} is promised to another attempt"), again(*term))
        }
        promise::Refused::Begun { rule, asked } => {
            (format!("rule {rule} is in the log, and term {asked} is not above it"), again(rule.term))
        }
        promise::Refused::NotRecruited { asked } => {
            (format!("term {asked} was not promised here"), "recruit this member first".to_owned())
        }
    };
    let json = serde_json::to_string(refused).expect("terms and rule ids are always JSON");
    status(&Refusal::new(Reason::Declined, missing, resolve), Some(json))
}

/// What a member stands by; `None` when `status` says something else, such as that it was not reached.
#[must_use]
pub fn declined(status: &Status) -> Option<promise::Refused> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
    if Reason::from_word(&info.reason) != Some(Reason::Declined) {
        return None;
    }
    serde_json::from_str(info.metadata.get(REFUSED)?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use holdfast_model::RuleId;

    #[test]
    fn a_refusal_survives_its_status() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(reason, "no volume; none at all", "insert a disk");
            let status = Status::from(refusal.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Refusal::from_status(&status), Some(refusal));
        }
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: BTreeSet<_> = Reason::ALL.into_iter().map(Reason::word).collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn what_a_member_stands_by_survives_its_status() {
        let term = |number| Term::new(number).unwrap();
        let rule = RuleId { term: term(7), version: 2 };
        for (refused, resolve) in [
            (promise::Refused::Promised { promised: term(5), asked: term(4) }, "begin again above term 5"),
            (promise::Refused::OtherAttempt { term: term(4) }, "begin again above term 4"),
            (promise::Refused::Begun { rule, asked: term(4) }, "begin again above term 7"),
            (promise::Refused::NotRecruited { asked: term(4) }, "recruit this member first"),
        ] {
            let status = decline(&refused);
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert_eq!(declined(&status), Some(refused));
            let told = Refusal::from_status(&status).unwrap();
            assert_eq!((told.reason, told.resolve.as_str()), (Reason::Declined, resolve));
        }
    }

    #[test]
    fn whoever_was_not_reached_has_declined_nothing() {
        assert_eq!(declined(&Status::unavailable("no route to host")), None);
        assert_eq!(declined(&Refusal::new(Reason::Busy, "a backup runs", "wait for it").into()), None);
        let unread = status(&Refusal::new(Reason::Declined, "a", "b"), Some("{\"Newer\":{}}".to_owned()));
        assert_eq!(declined(&unread), None);
    }

    #[test]
    fn a_status_of_others_is_no_refusal() {
        assert_eq!(Refusal::from_status(&Status::not_found("no such thing")), None);
    }
}
