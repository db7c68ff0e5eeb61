//! Decides whether a mutating call is meant for this node as it is now.
//!
//! Invariants, each a test below:
//! * `a_call_for_another_cluster_node_or_volume_is_refused`.
//! * `a_call_from_an_older_reign_is_refused`.
//! * `a_caller_may_know_a_newer_reign_than_the_node`: a node whose engine is stopped has read no rule yet.
//! * `a_call_with_a_term_of_its_own_is_judged_by_the_member`.
//!
//! Not here: promises (a call that names a term does not make one), who may call ([`super::authorise`]).

use holdfast_model::status::{NodeView, VolumeView};
use holdfast_model::{Incarnation, Term};
use holdfast_proto::refusal::{Reason, Refusal};
use holdfast_proto::request::Target;

/// Compares `target` with `view`.
///
/// # Errors
/// [`Reason::WrongTarget`], [`Reason::NoVolume`] or [`Reason::StaleTerm`], naming both sides.
pub fn check(target: &Target, view: &NodeView) -> Result<(), Refusal> {
    check_member(target, view)?;
    check_term(target.term, view.rule.as_ref().map(|rule| rule.id.term))
}

/// Compares all of `target` but its term with `view`: for calls that name a term of their own, which the member judges by
/// its promise and its log. Only that answer tells a coordinator which term to begin above.
///
/// # Errors
/// [`Reason::WrongTarget`] or [`Reason::NoVolume`], naming both sides.
pub fn check_member(target: &Target, view: &NodeView) -> Result<(), Refusal> {
    let here = (&view.cluster, &view.node);
    if (&target.cluster, &target.node) != here {
        return Err(Refusal::new(
            Reason::WrongTarget,
            format!(
                "the call is meant for node {} of cluster {}, this is {} of {}",
                target.node, target.cluster, view.node, view.cluster
            ),
            "send it to that node's endpoint",
        ));
    }
    check_incarnation(target.incarnation, incarnation(view))
}

fn incarnation(view: &NodeView) -> Option<Incarnation> {
    match &view.volume {
        VolumeView::Mounted { identity, .. } => Some(identity.incarnation),
        VolumeView::Unknown
        | VolumeView::Absent { .. }
        | VolumeView::Blank { .. }
        | VolumeView::Unmounted { .. } => None,
    }
}

fn check_incarnation(meant: Option<Incarnation>, is: Option<Incarnation>) -> Result<(), Refusal> {
    const AGAIN: &str = "read the node's status and decide again";
    match (meant, is) {
        (None, None) => Ok(()),
        (Some(meant), Some(is)) if meant == is => Ok(()),
        (Some(meant), Some(is)) => Err(Refusal::new(
            Reason::WrongTarget,
            format!("the call is meant for incarnation {meant}, the mounted volume is {is}"),
            AGAIN,
        )),
        (None, Some(is)) => Err(Refusal::new(
            Reason::WrongTarget,
            format!("the call names no incarnation, the mounted volume is {is}"),
            AGAIN,
        )),
        (Some(meant), None) => Err(Refusal::new(
            Reason::NoVolume,
            format!("the call is meant for incarnation {meant}, no volume is mounted"),
            AGAIN,
        )),
    }
}

fn check_term(known: Option<Term>, is: Option<Term>) -> Result<(), Refusal> {
    match (known, is) {
        (_, None) => Ok(()),
        (Some(known), Some(is)) if known >= is => Ok(()),
        (known, Some(is)) => Err(Refusal::new(
            Reason::StaleTerm,
            match known {
                Some(known) => format!("the caller knows term {known}, this node is in term {is}"),
                None => format!("the call names no term, this node is in term {is}"),
            },
            "read the status of the cluster and decide again",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::explain::tests::serving;

    fn target() -> Target {
        Target {
            request: "request-1".parse().unwrap(),
            cluster: "orders".parse().unwrap(),
            node: "n1".parse().unwrap(),
            incarnation: Some(Incarnation::from_random(7)),
            term: Term::new(3),
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Target)) -> Reason {
        let mut target = target();
        change(&mut target);
        check(&target, &serving()).unwrap_err().reason
    }

    #[test]
    fn a_call_for_this_node_passes() {
        check(&target(), &serving()).unwrap();
    }

    #[test]
    fn a_call_for_another_cluster_node_or_volume_is_refused() {
        assert_eq!(refused(|t| t.cluster = "billing".parse().unwrap()), Reason::WrongTarget);
        assert_eq!(refused(|t| t.node = "n2".parse().unwrap()), Reason::WrongTarget);
        assert_eq!(refused(|t| t.incarnation = Some(Incarnation::from_random(8))), Reason::WrongTarget);
        assert_eq!(refused(|t| t.incarnation = None), Reason::WrongTarget);
        let mut bare = serving();
        bare.volume = VolumeView::Absent { verdicts: Vec::new() };
        assert_eq!(check(&target(), &bare).unwrap_err().reason, Reason::NoVolume);
    }

    #[test]
    fn a_call_from_an_older_reign_is_refused() {
        assert_eq!(refused(|t| t.term = Term::new(2)), Reason::StaleTerm);
        assert_eq!(refused(|t| t.term = None), Reason::StaleTerm);
    }

    #[test]
    fn a_call_with_a_term_of_its_own_is_judged_by_the_member() {
        check_member(&Target { term: Term::new(2), ..target() }, &serving()).unwrap();
        check_member(&Target { term: None, ..target() }, &serving()).unwrap();
        let elsewhere = Target { incarnation: Some(Incarnation::from_random(8)), ..target() };
        assert_eq!(check_member(&elsewhere, &serving()).unwrap_err().reason, Reason::WrongTarget);
    }

    #[test]
    fn a_caller_may_know_a_newer_reign_than_the_node() {
        let newer = Target { term: Term::new(4), ..target() };
        check(&newer, &serving()).unwrap();
        let mut unread = serving();
        unread.rule = None;
        check(&newer, &unread).unwrap();
    }
}
