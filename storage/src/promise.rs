//! The promise on the volume: "I take part in nothing below term t", in two slots.
//!
//! One slot is written and fsynced, then the other: at every moment one whole slot holds the newest promise that
//! was answered, and after a quiet persist both do, so one damaged slot loses nothing. A promise that was being
//! written when the power went may or may not count; it was not answered.
//!
//! Invariants, each a test below:
//! * `a_promise_never_goes_down`
//! * `an_equal_term_of_another_attempt_is_refused`
//! * `a_crash_at_any_point_keeps_the_old_or_the_new_promise`
//! * `losing_both_slots_of_a_bound_volume_is_an_error`
//! * `a_promise_of_another_member_is_refused`
//!
//! Not here: who may ask for a promise, and deadlines. A persist on a stalled disk hangs; see the agent's worker.

use std::path::Path;

use holdfast_model::record::{self, RecordKind};
use holdfast_model::volume::VolumeIdentity;
use holdfast_model::{ClusterId, Incarnation, Member, Promise, Term};
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;

use crate::identity::{self, IdentityError};
use crate::places::PROMISE_SLOTS;

const KIND: RecordKind = RecordKind { tag: *b"prom", version: 1, name: "promise" };
const LIMIT: u64 = 4096;
const MODE: u32 = 0o600;
/// A name's field in the payload: its length and room for the longest name.
const NAME_FIELD: usize = 31;
/// Cluster name and bits, node and incarnation, term, attempt.
const PAYLOAD: usize = NAME_FIELD + 16 + NAME_FIELD + 16 + 4 + 16;

/// Why a promise was not read or not made.
#[derive(Debug, thiserror::Error)]
pub enum PromiseError {
    /// Neither slot of a volume that belongs to a cluster holds one: this member is lost and becomes a new
    /// incarnation.
    #[error(
        "promise of member {member} is lost: slot 0 {slot_0}, slot 1 {slot_1}; the volume must be formatted anew"
    )]
    Lost {
        /// Whose.
        member: Member,
        /// What is wrong with the first slot.
        slot_0: String,
        /// What is wrong with the second slot.
        slot_1: String,
    },
    /// The slots hold another member's promise.
    #[error("promise on the volume is that of member {found}, not of {expected}")]
    OtherMember {
        /// Whose it is.
        found: Member,
        /// Whose volume it is.
        expected: Member,
    },
    /// A higher term is promised.
    #[error("term {asked} is below the promised term {promised}")]
    Lower {
        /// Asked for.
        asked: Term,
        /// Promised.
        promised: Term,
    },
    /// This very term is promised to another attempt.
    #[error("term {term} is promised to another attempt")]
    OtherAttempt {
        /// The term.
        term: Term,
    },
    /// The volume's identity forbids it.
    #[error("check identity before a promise")]
    Identity(#[from] IdentityError),
    /// The volume does not answer as it should.
    #[error("access promise slots")]
    Io(#[from] IoError),
}

/// Reads the newest promise; `None` only on a volume that belongs to no cluster yet and never promised.
///
/// # Errors
/// [`PromiseError`]: `Lost`, `OtherMember` or `Io`.
pub fn load(root: &Root, identity: &VolumeIdentity) -> Result<Option<Promise>, PromiseError> {
    let member = Member { node: identity.node.clone(), incarnation: identity.incarnation };
    let slots = [read_slot(root, 0)?, read_slot(root, 1)?];
    let newest = match (&slots[0], &slots[1]) {
        (Ok(a), Ok(b)) => Some(if b.max_term > a.max_term { b } else { a }),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Some(one),
        (Err(_), Err(_)) => None,
    };
    match newest {
        Some(found) if found.member != member => {
            Err(PromiseError::OtherMember { found: found.member.clone(), expected: member })
        }
        Some(found) => Ok(Some(found.clone())),
        None if identity.cluster_id.is_none()
            && slots == [Err(SlotFault::Missing), Err(SlotFault::Missing)] =>
        {
            Ok(None)
        }
        None => {
            let fault = |slot: &Result<Promise, SlotFault>| match slot {
                Ok(_) => String::new(),
                Err(fault) => fault.to_string(),
            };
            Err(PromiseError::Lost { member, slot_0: fault(&slots[0]), slot_1: fault(&slots[1]) })
        }
    }
}

/// Persists `promise`; when it returns, power may fail. Re-reads the volume's identity first. Repeating the
/// newest promise is fine and heals a damaged slot.
///
/// # Errors
/// [`PromiseError`]. After `Io` the promise may or may not be on the volume: the caller behaves as if it were and
/// answers as if it were not.
pub fn persist(root: &Root, expected: &VolumeIdentity, promise: &Promise) -> Result<(), PromiseError> {
    let identity = identity::recheck(root, expected)?;
    let member = Member { node: identity.node.clone(), incarnation: identity.incarnation };
    if promise.member != member {
        return Err(PromiseError::OtherMember { found: promise.member.clone(), expected: member });
    }
    if let Some(bound) = identity.cluster_id.clone().filter(|bound| *bound != promise.cluster) {
        return Err(IdentityError::OtherCluster { bound, wanted: promise.cluster.clone() }.into());
    }
    let held = load(root, &identity)?;
    if let Some(held) = &held {
        if promise.max_term < held.max_term {
            return Err(PromiseError::Lower { asked: promise.max_term, promised: held.max_term });
        }
        if promise.max_term == held.max_term && promise.attempt != held.attempt {
            return Err(PromiseError::OtherAttempt { term: promise.max_term });
        }
    }
    // The slot that does not hold the newest promise goes first: it is the one that may be lost half-way.
    let first = usize::from(held.is_some() && read_slot(root, 0)?.ok() == held);
    for slot in [first, 1 - first] {
        if read_slot(root, slot)?.as_ref() != Ok(promise) {
            root.replace(Path::new(PROMISE_SLOTS[slot]), &record::frame(KIND, &encode(promise)), MODE)?;
        }
    }
    Ok(())
}

/// Why a slot holds no promise.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SlotFault {
    #[error("is missing")]
    Missing,
    #[error("is damaged ({0})")]
    Damaged(String),
}

fn read_slot(root: &Root, slot: usize) -> Result<Result<Promise, SlotFault>, IoError> {
    let Some(bytes) = root.read(Path::new(PROMISE_SLOTS[slot]), LIMIT)? else {
        return Ok(Err(SlotFault::Missing));
    };
    Ok(match record::unframe(KIND, &bytes) {
        Ok(payload) => decode(payload).ok_or_else(|| SlotFault::Damaged("unreadable payload".to_owned())),
        Err(err) => Err(SlotFault::Damaged(err.to_string())),
    })
}

fn encode(promise: &Promise) -> Vec<u8> {
    let mut out = Vec::with_capacity(PAYLOAD);
    let name = |out: &mut Vec<u8>, text: &str| {
        let end = out.len() + NAME_FIELD;
        out.push(u8::try_from(text.len()).expect("names have at most 30 bytes"));
        out.extend_from_slice(text.as_bytes());
        out.resize(end, 0);
    };
    name(&mut out, promise.cluster.name().as_str());
    out.extend_from_slice(&promise.cluster.bits().to_le_bytes());
    name(&mut out, promise.member.node.as_str());
    out.extend_from_slice(&promise.member.incarnation.bits().to_le_bytes());
    out.extend_from_slice(&promise.max_term.number().to_le_bytes());
    out.extend_from_slice(&promise.attempt.to_le_bytes());
    out
}

fn decode(payload: &[u8]) -> Option<Promise> {
    if payload.len() != PAYLOAD {
        return None;
    }
    let mut at = 0;
    let mut take = |n: usize| {
        let part = &payload[at..at + n];
        at += n;
        part
    };
    let cluster = name(take(NAME_FIELD))?.parse().ok()?;
    let cluster_bits = u128::from_le_bytes(take(16).try_into().ok()?);
    let node = name(take(NAME_FIELD))?.parse().ok()?;
    let incarnation = u128::from_le_bytes(take(16).try_into().ok()?);
    let max_term = Term::new(u32::from_le_bytes(take(4).try_into().ok()?))?;
    let attempt = u128::from_le_bytes(take(16).try_into().ok()?);
    let member = Member { node, incarnation: Incarnation::from_random(incarnation) };
    Some(Promise { cluster: ClusterId::new(cluster, cluster_bits), member, max_term, attempt })
}

fn name(field: &[u8]) -> Option<&str> {
    let (len, text) = field.split_first()?;
    std::str::from_utf8(text.get(..usize::from(*len))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{example, volume};

    fn promise(term: u32, attempt: u128) -> Promise {
        let id = example();
        Promise {
            cluster: ClusterId::new(id.cluster, 9),
            member: Member { node: id.node, incarnation: id.incarnation },
            max_term: Term::new(term).unwrap(),
            attempt,
        }
    }

    #[test]
    fn a_fresh_volume_has_promised_nothing_and_both_slots_hold_the_first_promise() {
        let (dir, root) = volume();
        assert_eq!(load(&root, &example()).unwrap(), None);
        persist(&root, &example(), &promise(1, 5)).unwrap();
        for slot in PROMISE_SLOTS {
            let kept = std::fs::read(dir.path().join(slot)).unwrap();
            std::fs::write(dir.path().join(slot), b"HLDF").unwrap();
            assert_eq!(load(&root, &example()).unwrap(), Some(promise(1, 5)), "without {slot}");
            std::fs::write(dir.path().join(slot), kept).unwrap();
        }
    }

    #[test]
    fn a_promise_never_goes_down() {
        let (_dir, root) = volume();
        persist(&root, &example(), &promise(3, 5)).unwrap();
        assert!(matches!(persist(&root, &example(), &promise(2, 5)), Err(PromiseError::Lower { .. })));
        persist(&root, &example(), &promise(4, 6)).unwrap();
        assert_eq!(load(&root, &example()).unwrap(), Some(promise(4, 6)));
    }

    #[test]
    fn an_equal_term_of_another_attempt_is_refused() {
        let (_dir, root) = volume();
        persist(&root, &example(), &promise(3, 5)).unwrap();
        persist(&root, &example(), &promise(3, 5)).unwrap();
        assert!(matches!(persist(&root, &example(), &promise(3, 6)), Err(PromiseError::OtherAttempt { .. })));
    }

    #[test]
    fn a_crash_at_any_point_keeps_the_old_or_the_new_promise() {
        let (dir, root) = volume();
        persist(&root, &example(), &promise(3, 5)).unwrap();
        let old = std::fs::read(dir.path().join(PROMISE_SLOTS[0])).unwrap();
        let new = record::frame(KIND, &encode(&promise(4, 6)));
        // Each slot old, torn or new; never both torn, since the second is written after the first is durable.
        for (first, second) in
            [(&old, &old), (&new[..50].to_vec(), &old), (&new, &old), (&new, &new[..9].to_vec())]
        {
            std::fs::write(dir.path().join(PROMISE_SLOTS[0]), first).unwrap();
            std::fs::write(dir.path().join(PROMISE_SLOTS[1]), second).unwrap();
            let expected = if *first == new { promise(4, 6) } else { promise(3, 5) };
            assert_eq!(load(&root, &example()).unwrap(), Some(expected));
            persist(&root, &example(), &promise(4, 6)).unwrap();
            assert_eq!(load(&root, &example()).unwrap(), Some(promise(4, 6)));
        }
    }

    #[test]
    fn losing_both_slots_of_a_bound_volume_is_an_error() {
        let (dir, root) = volume();
        persist(&root, &example(), &promise(1, 5)).unwrap();
        let bound = identity::bind(&root, &promise(1, 5).cluster).unwrap();
        for slot in PROMISE_SLOTS {
            std::fs::remove_file(dir.path().join(slot)).unwrap();
        }
        assert!(matches!(load(&root, &bound), Err(PromiseError::Lost { .. })));
        assert!(matches!(persist(&root, &bound, &promise(2, 6)), Err(PromiseError::Lost { .. })));
    }

    #[test]
    fn a_promise_of_another_member_is_refused() {
        let (_dir, root) = volume();
        let mut other = promise(2, 5);
        other.member.incarnation = Incarnation::from_random(99);
        assert!(matches!(persist(&root, &example(), &other), Err(PromiseError::OtherMember { .. })));
        let mut elsewhere = promise(2, 5);
        persist(&root, &example(), &elsewhere).unwrap();
        identity::bind(&root, &elsewhere.cluster).unwrap();
        elsewhere.cluster = ClusterId::new("orders".parse().unwrap(), 10);
        elsewhere.max_term = Term::new(3).unwrap();
        assert!(matches!(persist(&root, &example(), &elsewhere), Err(PromiseError::Identity(_))));
    }
}
