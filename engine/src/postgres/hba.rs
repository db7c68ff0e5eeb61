//! Renders `pg_hba.conf` and `pg_ident.conf`: who may connect. This is the gate.
//!
//! The agent owns both files whole (`include` came in 16, and 15 keeps the old rules in silence when it meets one:
//! T10). Postgres takes the first line that matches, so the order is the rule: the agent's own line, then a refusal
//! of the agent's roles from anywhere else, then either the operator's lines or nothing but refusals. A superuser is
//! not exempt from this file.
//!
//! Each peer has one line, which lets its member's role replicate and do nothing else, by a certificate whose common name
//! is the peer's node. An ack is counted by the login, so nobody acks for a member without its node's key (P6). The gate
//! does not stop replication: a candidate catches up behind a closed gate. A removed member has no line.
//!
//! Invariants, each a test below:
//! * `a_closed_gate_admits_the_agent_alone`.
//! * `no_user_rule_can_add_a_line_or_reach_the_agents_roles`.
//! * `each_peer_has_one_line_whatever_the_gate` and `members_do_nothing_but_replicate`.
//!
//! Not here: loading the file and checking that it is in force; see [`super::gate`].

use std::fmt::Write as _;
use std::net::IpAddr;

use holdfast_model::status::Gate;

use super::layout::{DATABASE, MEMBERS_ROLE, PROBE_ROLE, SUPERUSER};
use crate::links::Peer;

const MAP: &str = "holdfast";
/// From the common name of a certificate to the role of a member.
const MEMBERS_MAP: &str = "holdfast_members";

/// One line of the operator for `pg_hba.conf`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRule(String);

/// Why a line was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("client rule {line:?} is refused: {reason}")]
pub struct ClientRuleError {
    /// As the operator wrote it.
    pub line: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ClientRule {
    /// Checks one line, e.g. `host all all 10.0.0.0/8 scram-sha-256`.
    ///
    /// # Errors
    /// [`ClientRuleError`], when it is not one plain rule of a client.
    pub fn parse(line: &str) -> Result<Self, ClientRuleError> {
        let refuse = |reason| Err(ClientRuleError { line: line.to_owned(), reason });
        let bad_char = |c: char| (c.is_control() && c != '\t') || c == '#' || c == '\\' || c == '@';
        if line.contains(bad_char) {
            return refuse("line breaks, comments, '\\' and '@' are not allowed");
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let kind = words.first().copied().unwrap_or_default();
        let least = match kind {
            "local" => 4,
            "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => 5,
            _ => {
                return refuse(
                    "it must start with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc",
                );
            }
        };
        if words.len() < least {
            return refuse("it must name database, user, address (unless local) and method");
        }
        let databases = words[1].split(',').map(|name| name.trim_matches('"'));
        if databases.into_iter().any(|name| name == "replication") {
            return refuse("replication logins are the agent's");
        }
        Ok(Self(words.join(" ")))
    }
}

/// Renders `pg_hba.conf` for `gate`.
#[must_use]
pub fn render(gate: &Gate, peers: &[Peer], clients: &[ClientRule]) -> String {
    let mut out =
        String::from("# Written by holdfast; changes are overwritten. Set your own in [engine] hba.\n");
    let mut line = |text: &str| writeln!(out, "{text}").expect("writing to a String cannot fail");
    line(&format!("local all {SUPERUSER} peer map={MAP}"));
    for peer in peers {
        let databases =
            if peer.rewinds { format!("replication,{DATABASE}") } else { "replication".to_owned() };
        let address = peer.address.map_or_else(|| "all".to_owned(), single_address);
        line(&format!("hostssl {databases} \"{}\" {address} cert map={MEMBERS_MAP}", peer.member));
    }
    line(&format!("local all,replication +{MEMBERS_ROLE} reject"));
    line(&format!("host all,replication +{MEMBERS_ROLE} all reject"));
    match gate {
        Gate::Closed { .. } => line("# the gate is closed"),
        Gate::ReadOnly { term } | Gate::Open { term } => {
            line(&format!("# the gate is {} in term {term}", gate.word()));
            // Only an open gate lets the probe in, so a login of it proves which file is in force.
            line(&format!("local {DATABASE} {PROBE_ROLE} peer map={MAP}"));
            line(&format!("local all,replication {SUPERUSER},{PROBE_ROLE} reject"));
            line(&format!("host all,replication {SUPERUSER},{PROBE_ROLE} all reject"));
            clients.iter().for_each(|rule| line(&rule.0));
        }
    }
    line("local all,replication all reject");
    line("host all,replication all all reject");
    out
}

fn single_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}/32"),
        IpAddr::V6(address) => format!("{address}/128"),
    }
}

/// Renders `pg_ident.conf`: which operating system users may log in as the agent, and which certificate as which member.
/// Names that could break the line
/// are the caller's bug: they come from the password database, not from outside.
///
/// # Panics
/// When a name holds white space, quotes or starts with `/` (which Postgres would read as a pattern).
#[must_use]
pub fn render_ident(os_users: &[&str], peers: &[Peer]) -> String {
    let mut out = String::from("# Written by holdfast; changes are overwritten.\n");
    for user in os_users {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.$".contains(c);
        assert!(
            !user.is_empty() && user.chars().all(plain),
            "operating system user {user:?} is not a plain name"
        );
        for role in [SUPERUSER, PROBE_ROLE] {
            writeln!(out, "{MAP} {user} {role}").expect("writing to a String cannot fail");
        }
    }
    for Peer { member, .. } in peers {
        writeln!(out, "{MEMBERS_MAP} {} \"{member}\"", member.node).expect("writing to a String cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_model::status::GateClosed;
    use holdfast_model::{Incarnation, Member, Term};
    use proptest::prelude::*;

    const RULE: &str = "host  all all 127.0.0.1/32   scram-sha-256";

    #[test]
    fn a_closed_gate_admits_the_agent_alone() {
        let rule = ClientRule::parse(RULE).unwrap();
        let text = render(&Gate::Closed { why: GateClosed::Starting }, &[], &[rule]);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "local all holdfast peer map=holdfast",
                "local all,replication +holdfast_members reject",
                "host all,replication +holdfast_members all reject",
                "local all,replication all reject",
                "host all,replication all all reject",
            ]
        );
    }

    #[test]
    fn an_open_gate_keeps_the_agents_roles_before_client_rules() {
        let rule = ClientRule::parse(RULE).unwrap();
        let text = render(&Gate::Open { term: Term::FIRST }, &[], &[rule]);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines[0], "local all holdfast peer map=holdfast");
        assert_eq!(lines[5], "host all,replication holdfast,holdfast_probe all reject");
        assert_eq!(lines[6], "host all all 127.0.0.1/32 scram-sha-256");
        assert_eq!(lines.len(), 9);
    }

    fn peer(node: &str, address: Option<&str>) -> Peer {
        let member = Member { node: node.parse().unwrap(), incarnation: Incarnation::from_random(7) };
        Peer { member, address: address.map(|ip| ip.parse().unwrap()), rewinds: false }
    }

    #[test]
    fn each_peer_has_one_line_whatever_the_gate() {
        let peers = [peer("n2", None), peer("n3", Some("10.0.0.3")), peer("n4", Some("fd00::4"))];
        let id = Incarnation::from_random(7);
        for gate in [Gate::Closed { why: GateClosed::Starting }, Gate::Open { term: Term::FIRST }] {
            let text = render(&gate, &peers, &[ClientRule::parse(RULE).unwrap()]);
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("hostssl")).collect();
            assert_eq!(
                lines,
                [
                    format!("hostssl replication \"n2.{id}\" all cert map=holdfast_members"),
                    format!("hostssl replication \"n3.{id}\" 10.0.0.3/32 cert map=holdfast_members"),
                    format!("hostssl replication \"n4.{id}\" fd00::4/128 cert map=holdfast_members"),
                ]
            );
        }
        let ident = render_ident(&[], &peers);
        assert!(ident.ends_with(&format!("holdfast_members n4 \"n4.{id}\"\n")), "{ident}");
    }

    #[test]
    fn members_do_nothing_but_replicate() {
        let text = render(
            &Gate::Open { term: Term::FIRST },
            &[peer("n2", None)],
            &[ClientRule::parse(RULE).unwrap()],
        );
        let at = |start: &str| text.lines().position(|line| line.starts_with(start)).unwrap();
        let reject = at("host all,replication +holdfast_members all reject");
        assert!(at("hostssl replication") < reject && reject < at("host all all 127.0.0.1/32"), "{text}");
        let rewinds = Peer { rewinds: true, ..peer("n2", None) };
        assert!(
            render(&Gate::Open { term: Term::FIRST }, &[rewinds], &[])
                .contains("hostssl replication,postgres ")
        );
    }

    #[test]
    fn no_user_rule_can_add_a_line_or_reach_the_agents_roles() {
        for bad in [
            "",
            "include other.conf",
            "host all all",
            "host all all 0/0 trust\nlocal all holdfast trust",
            "host replication all 0.0.0.0/0 trust",
            "host \"replication\" all 0.0.0.0/0 trust",
            "host a,replication all 0.0.0.0/0 trust",
            "host @dbs all 0.0.0.0/0 trust",
            "host all all 0.0.0.0/0 trust # why not",
        ] {
            assert!(ClientRule::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }

    proptest! {
        #[test]
        fn a_checked_rule_is_one_line(line in "(local|host) .{0,60}") {
            if let Ok(ClientRule(text)) = ClientRule::parse(&line) {
                prop_assert_eq!(text.lines().count(), 1);
            }
        }
    }

    #[test]
    fn each_named_user_may_be_the_agent_and_the_probe() {
        let text = render_ident(&["holdfast", "postgres"], &[]);
        assert_eq!(text.lines().filter(|line| line.starts_with("holdfast ")).count(), 4);
    }
}
