//! Decides whether clients may use the engine.
//!
//! Level-triggered: the answer depends on what is, not on how we got here.
//!
//! Invariants, each a test below:
//! * `starts_closed`: a gate that knows nothing is closed.
//! * `never_open_before_the_marker_of_this_start_is_acked` (I2).
//! * `never_open_above_a_higher_promise` (I3).
//! * `a_hold_always_wins`.
//!
//! Not here: applying it. See the agent's gate loop.

use holdfast_model::status::{Gate, GateClosed};
use holdfast_model::{Member, Promise, Rule};

/// What the gate loop knows.
#[derive(Debug, Clone, Copy)]
pub struct GateInputs<'a> {
    /// This member; `None` before a volume is mounted.
    pub member: Option<&'a Member>,
    /// Whether the engine answers queries and is out of recovery.
    pub engine_writable: bool,
    /// The newest rule in the engine's own log.
    pub rule: Option<&'a Rule>,
    /// What was promised on this volume.
    pub promise: Option<&'a Promise>,
    /// Whether the marker that was written after this start of the engine was seen acked.
    pub marker_acked: bool,
    /// Whether the last probe write of the disk returned in time.
    pub disk_healthy: bool,
    /// Whether free space is below the reserve.
    pub nearly_full: bool,
    /// The reconcile loop wants the gate closed.
    pub hold: Option<GateClosed>,
}

/// What clients may do.
#[must_use]
pub fn judge(inputs: &GateInputs<'_>) -> Gate {
    match closed(inputs) {
        Err(why) => Gate::Closed { why },
        Ok(rule) if inputs.nearly_full => Gate::ReadOnly { term: rule.id.term },
        Ok(rule) => Gate::Open { term: rule.id.term },
    }
}

fn closed<'a>(inputs: &GateInputs<'a>) -> Result<&'a Rule, GateClosed> {
    if let Some(why) = inputs.hold {
        return Err(why);
    }
    let member = inputs.member.ok_or(GateClosed::Starting)?;
    if !inputs.disk_healthy {
        return Err(GateClosed::DiskUnsafe);
    }
    if !inputs.engine_writable {
        return Err(GateClosed::NoEngine);
    }
    let rule = inputs.rule.filter(|rule| rule.primary == *member).ok_or(GateClosed::NotPrimary)?;
    match inputs.promise {
        Some(promise) if promise.member == *member && promise.max_term == rule.id.term => {}
        Some(_) | None => return Err(GateClosed::PromisedHigher),
    }
    if !inputs.marker_acked {
        return Err(GateClosed::MarkerNotAcked);
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{ClusterId, Incarnation, Lsn, RuleId, Term, Voter, VoterKind};
    use proptest::prelude::*;

    fn member(bits: u128) -> Member {
        Member { node: "a".parse().unwrap(), incarnation: Incarnation::from_random(bits) }
    }

    fn rule(primary: Member, term: u32) -> Rule {
        let voters =
            vec![Voter { member: primary.clone(), zone: "z".parse().unwrap(), kind: VoterKind::Full }];
        let id = RuleId { term: Term::new(term).unwrap(), version: 1 };
        Rule { id, primary, voters, k: 0, previous: None, start: Lsn::ZERO.into() }
    }

    fn promise(member: Member, term: u32) -> Promise {
        let cluster = ClusterId::new("c".parse().unwrap(), 7);
        Promise { cluster, member, max_term: Term::new(term).unwrap(), attempt: 1 }
    }

    #[test]
    fn starts_closed() {
        let nothing = GateInputs {
            member: None,
            engine_writable: false,
            rule: None,
            promise: None,
            marker_acked: false,
            disk_healthy: false,
            nearly_full: false,
            hold: None,
        };
        assert_eq!(judge(&nothing), Gate::Closed { why: GateClosed::Starting });
    }

    struct Case {
        own: Member,
        rule: Option<Rule>,
        promise: Option<Promise>,
        flags: [bool; 4],
        hold: Option<GateClosed>,
    }

    impl Case {
        fn judge(&self) -> Gate {
            let [engine_writable, marker_acked, disk_healthy, nearly_full] = self.flags;
            judge(&GateInputs {
                member: Some(&self.own),
                engine_writable,
                rule: self.rule.as_ref(),
                promise: self.promise.as_ref(),
                marker_acked,
                disk_healthy,
                nearly_full,
                hold: self.hold,
            })
        }
    }

    fn case() -> impl Strategy<Value = Case> {
        let rules = prop::option::of((1..3_u128, 1..4_u32));
        let promises = prop::option::of((1..3_u128, 1..4_u32));
        let hold = prop::option::of(Just(GateClosed::Stopping));
        (rules, promises, any::<[bool; 4]>(), hold).prop_map(|(r, p, flags, hold)| Case {
            own: member(1),
            rule: r.map(|(bits, term)| rule(member(bits), term)),
            promise: p.map(|(bits, term)| promise(member(bits), term)),
            flags,
            hold,
        })
    }

    impl std::fmt::Debug for Case {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:?} {:?} {:?} {:?}", self.rule, self.promise, self.flags, self.hold)
        }
    }

    proptest! {
        #[test]
        fn never_open_before_the_marker_of_this_start_is_acked(mut case in case()) {
            case.flags[1] = false;
            let closed = matches!(case.judge(), Gate::Closed { .. });
            prop_assert!(closed);
        }

        #[test]
        fn never_open_above_a_higher_promise(case in case()) {
            let served = match case.judge() {
                Gate::Open { term } | Gate::ReadOnly { term } => Some(term),
                Gate::Closed { .. } => None,
            };
            if let Some(term) = served {
                prop_assert_eq!(case.promise.as_ref().map(|p| p.max_term), Some(term));
                prop_assert_eq!(case.rule.as_ref().map(|r| &r.primary), Some(&case.own));
            }
        }

        #[test]
        fn a_hold_always_wins(mut case in case()) {
            case.hold = Some(GateClosed::Stopping);
            prop_assert_eq!(case.judge(), Gate::Closed { why: GateClosed::Stopping });
        }
    }

    #[test]
    fn opens_when_everything_holds_and_reads_only_when_nearly_full() {
        let term = Term::FIRST;
        let mut case = Case {
            own: member(1),
            rule: Some(rule(member(1), 1)),
            promise: Some(promise(member(1), 1)),
            flags: [true, true, true, false],
            hold: None,
        };
        assert_eq!(case.judge(), Gate::Open { term });
        case.flags[3] = true;
        assert_eq!(case.judge(), Gate::ReadOnly { term });
    }
}
