//! How a Postgres server is told whom it replicates with.
//!
//! A member replicates under a login of its own name, with its name as `application_name` (which is what
//! `synchronous_standby_names` goes by) and from a slot of its own. All three are derived here from the member alone.
//!
//! Invariants, each a test below:
//! * `two_members_never_share_a_slot`.
//! * `no_value_escapes_its_quotes_in_a_conninfo`.
//! * `an_upstream_is_verified_by_its_nodes_name`.
//!
//! Not here: who that is ([`crate::links`]).

use std::fmt::Write as _;
use std::path::Path;

use holdfast_model::Member;

use crate::links::{Peer, Tls, Upstream};

/// No member has this name: members' names hold a dot.
const UNCOUNTED: &str = "holdfast_rewind";

/// Everybody that a server replicates with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    /// Who may replicate from it.
    pub peers: Vec<Peer>,
    /// Whom it follows; nobody unless [`super::standby::follow`] was allowed to.
    pub upstream: Option<Upstream>,
}

/// The value of `primary_conninfo`. A dead connection is noticed within about ten seconds: nothing else would notice
/// that a primary's machine is gone.
#[must_use]
pub fn conninfo(upstream: &Upstream, tls: &Tls) -> String {
    let mut out = connection(upstream, tls);
    push(&mut out, "application_name", &upstream.member.to_string());
    out
}

/// The value of `primary_conninfo` for a server whose acks must not count yet: it receives under a name that is in no
/// list.
#[must_use]
pub fn uncounted_conninfo(upstream: &Upstream, tls: &Tls) -> String {
    let mut out = connection(upstream, tls);
    push(&mut out, "application_name", UNCOUNTED);
    out
}

/// The connection string for a rewind, which reads files over SQL.
#[must_use]
pub fn rewind_conninfo(upstream: &Upstream, tls: &Tls) -> String {
    let mut out = connection(upstream, tls);
    push(&mut out, "dbname", super::layout::DATABASE);
    push(&mut out, "application_name", UNCOUNTED);
    // It lists every file in one query, and compiling that gains nothing.
    push(&mut out, "options", "-c jit=off");
    out
}

fn connection(upstream: &Upstream, tls: &Tls) -> String {
    let mut out = String::new();
    // The name is what the certificate is checked against, the address is where the connection goes.
    push(&mut out, "host", upstream.node.as_str());
    push(&mut out, "hostaddr", &upstream.address.ip().to_string());
    push(&mut out, "port", &upstream.address.port().to_string());
    push(&mut out, "user", &upstream.member.to_string());
    push(&mut out, "sslmode", "verify-full");
    push(&mut out, "sslcert", &text(&tls.cert));
    push(&mut out, "sslkey", &text(&tls.key));
    push(&mut out, "sslrootcert", &text(&tls.ca));
    push(&mut out, "gssencmode", "disable");
    for (name, value) in [
        ("connect_timeout", "5"),
        ("keepalives", "1"),
        ("keepalives_idle", "5"),
        ("keepalives_interval", "2"),
        ("keepalives_count", "3"),
        ("tcp_user_timeout", "10000"),
    ] {
        push(&mut out, name, value);
    }
    out
}

/// The slot of a member, on any server that keeps log for it: `n-1.<id>` has `n_1_<id>`. A slot's name holds no `-` and
/// no `.`, a node's holds no `_`, and the incarnation has a fixed length, so nothing collides.
#[must_use]
pub fn slot_name(member: &Member) -> String {
    member.to_string().replace(['-', '.'], "_")
}

/// Paths that are not UTF-8 were refused when the settings were rendered; see [`super::config::pinned`].
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// One `name='value'` of libpq's connection string, where `\` escapes a quote and itself.
fn push(out: &mut String, name: &str, value: &str) {
    let space = if out.is_empty() { "" } else { " " };
    let value = value.replace('\\', r"\\").replace('\'', r"\'");
    write!(out, "{space}{name}='{value}'").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::{Incarnation, Term};
    use proptest::prelude::*;

    fn member(node: &str, bits: u128) -> Member {
        Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(bits) }
    }

    fn upstream() -> Upstream {
        Upstream {
            node: "n1".parse().unwrap(),
            address: "10.0.0.1:5432".parse().unwrap(),
            member: member("n-2", 7),
            term: Term::FIRST,
        }
    }

    fn tls(key: &str) -> Tls {
        Tls { cert: "/c".into(), key: key.into(), ca: "/a".into() }
    }

    proptest! {
        #[test]
        fn two_members_never_share_a_slot(a in "[a-z0-9][a-z0-9-]{0,29}", b in "[a-z0-9][a-z0-9-]{0,29}", x: u128, y: u128) {
            let (one, other) = (member(&a, x), member(&b, y));
            prop_assert_eq!(one == other, slot_name(&one) == slot_name(&other));
            // Postgres' own limit, and its letters.
            let name = slot_name(&one);
            prop_assert!(name.len() <= 63 && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_'));
        }
    }

    #[test]
    fn no_value_escapes_its_quotes_in_a_conninfo() {
        let text = conninfo(&upstream(), &tls(r"/k' host='evil\"));
        assert!(text.contains(r"sslkey='/k\' host=\'evil\\' sslrootcert='/a'"), "{text}");
    }

    #[test]
    fn an_upstream_is_verified_by_its_nodes_name() {
        let text = conninfo(&upstream(), &tls("/k"));
        let id = Incarnation::from_random(7);
        assert!(text.starts_with("host='n1' hostaddr='10.0.0.1' port='5432' "), "{text}");
        assert!(text.contains(&format!("user='n-2.{id}' sslmode='verify-full' ")), "{text}");
        assert!(text.ends_with(&format!(" application_name='n-2.{id}'")), "{text}");
        assert_eq!(slot_name(&upstream().member), format!("n_2_{id}"));
    }
}
