//! The guarded way back of a server whose log went past the fork: `pg_rewind`, which copies what differs instead of
//! everything.
//!
//! It goes back to the last checkpoint before the fork, so it takes away log that somebody may still need, and a run that
//! is cut short leaves a directory that is neither. Hence the guards: what it takes away was copied, the member's acks do
//! not count meanwhile (a rule says so, before the first byte changes), and the source has written a checkpoint on its own
//! timeline, without which `pg_rewind` takes it for an older one. Any failure, also one that is only suspected, means that
//! the directory is rebuilt.
//!
//! Invariants, each a test below or in `tests/replication/rewind.rs`:
//! * `a_rewind_needs_all_of_its_guards`.
//! * `a_deposed_primary_is_rewound_and_follows`.

use holdfast_model::{Member, Rule, RuleId, Term};

use crate::launch::Launch;
use crate::postgres::Layout;
use crate::postgres::links::{Tls, Upstream};
use crate::postgres::session::{Session, SessionError};

/// Whether the tail was copied to where the engine does not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Every byte past the fork is kept as evidence, durably.
    Copied,
    /// Not, or not known.
    NotCopied,
}

/// What is known before a rewind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewindView<'a> {
    /// Who is to be rewound.
    pub member: &'a Member,
    /// Its tail.
    pub tail: Tail,
    /// The newest rule of the source, seen acked.
    pub rule: &'a Rule,
    /// The timeline of the source's last checkpoint: [`Session::checkpoint_timeline`].
    pub source_checkpoint: Term,
}

/// One reason why a server must not be rewound now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRewound {
    /// What it would take away is nowhere else.
    #[error("the tail of {0} was not copied: copy it first")]
    TailNotCopied(Member),
    /// Its acks count.
    #[error("{member} is a voter by rule {rule}: make it an observer first")]
    Voter {
        /// Who.
        member: Member,
        /// By which rule.
        rule: RuleId,
    },
    /// The source looks older than it is.
    #[error(
        "the source's last checkpoint is of term {checkpoint}, it reigns in {term}: write a checkpoint there first"
    )]
    NotCheckpointed {
        /// The timeline of the checkpoint.
        checkpoint: Term,
        /// The source's term.
        term: Term,
    },
}

/// Whether the member may be rewound onto the primary of the view's rule.
///
/// # Errors
/// Every reason against it.
pub fn may_rewind(view: RewindView<'_>) -> Result<(), Vec<NotRewound>> {
    let RewindView { member, tail, rule, source_checkpoint } = view;
    let mut against = Vec::new();
    match tail {
        Tail::Copied => {}
        Tail::NotCopied => against.push(NotRewound::TailNotCopied(member.clone())),
    }
    if rule.voters.iter().any(|voter| voter.member == *member) {
        against.push(NotRewound::Voter { member: member.clone(), rule: rule.id });
    }
    if source_checkpoint != rule.id.term {
        against.push(NotRewound::NotCheckpointed { checkpoint: source_checkpoint, term: rule.id.term });
    }
    if against.is_empty() { Ok(()) } else { Err(against) }
}

/// The command that rewinds the stopped server of `layout` onto `upstream`. It first lets a crashed server recover by
/// itself, which changes its log: the tail was copied before. It leaves the directory without [`super::STANDBY_SIGNAL`].
#[must_use]
pub fn launch(layout: &Layout, upstream: &Upstream, tls: &Tls) -> Launch {
    let mut config = std::ffi::OsString::from("--config-file=");
    config.push(layout.config_file());
    let mut target = std::ffi::OsString::from("--target-pgdata=");
    target.push(&layout.data_dir);
    Launch::new(layout.program("pg_rewind"))
        .arg(target)
        .arg(format!("--source-server={}", upstream.rewind_conninfo(tls)))
        .arg(config)
        .arg("--progress")
}

impl Session {
    /// The timeline of the server's last checkpoint, by `pg_control`.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn checkpoint_timeline(&self) -> Result<Term, SessionError> {
        let doing = "read the timeline of the last checkpoint";
        let sql = "SELECT timeline_id::bigint FROM pg_control_checkpoint()";
        let number: i64 = self.row(doing, sql, &[]).await?.get(0);
        let timeline = u32::try_from(number).ok().and_then(Term::new);
        timeline.ok_or_else(|| SessionError::Answer { doing, found: format!("timeline {number}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{Incarnation, Lsn, Voter, VoterKind};

    #[test]
    fn a_rewind_needs_all_of_its_guards() {
        let member =
            |node: &str| Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(1) };
        let voter =
            |node: &str| Voter { member: member(node), zone: "z".parse().unwrap(), kind: VoterKind::Full };
        let (own, term) = (member("n1"), Term::new(5).unwrap());
        let rule = |voters: Vec<Voter>| Rule {
            id: RuleId { term, version: 1 },
            primary: member("n2"),
            voters,
            k: 1,
            previous: None,
            start: Lsn::ZERO,
        };
        let (without, with) = (rule(vec![voter("n2")]), rule(vec![voter("n2"), voter("n1")]));
        let good = RewindView { member: &own, tail: Tail::Copied, rule: &without, source_checkpoint: term };
        assert_eq!(may_rewind(good), Ok(()));
        let bad = RewindView {
            tail: Tail::NotCopied,
            rule: &with,
            source_checkpoint: Term::new(4).unwrap(),
            ..good
        };
        assert_eq!(may_rewind(bad).unwrap_err().len(), 3);
        let earlier = RewindView { source_checkpoint: Term::new(4).unwrap(), ..good };
        assert_eq!(
            may_rewind(earlier).unwrap_err()[0].to_string(),
            "the source's last checkpoint is of term 4, it reigns in 5: write a checkpoint there first"
        );
    }
}
