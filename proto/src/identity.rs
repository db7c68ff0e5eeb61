//! Who a certificate says the caller is: the one URI in its subject alternative names with scheme `holdfast`.
//!
//! * a node: `holdfast://<cluster>/node/<zone>/<node>`, with `?roles=promote` when it may coordinate
//! * a person or program: `holdfast://<cluster>/user/<name>?roles=observe,operate`
//!
//! The incarnation is not in it: that changes by itself, and travels in each message.
//!
//! Invariants, each a test below:
//! * `identities_survive_their_uri`.
//! * `an_unknown_role_refuses_the_whole_uri`: a misspelt role must not pass for fewer rights than were meant.
//! * `roles_do_not_imply_one_another`.
//! * `a_node_may_observe_and_at_most_promote`.
//!
//! Not here: which role a call needs (`agent::api::authorise`), reading certificates (`agent::tls::peer`).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use holdfast_model::{ClusterName, NodeName, ParseIdError, Zone};

/// Leave to make one kind of call. None includes another; a certificate lists each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read state.
    Observe,
    /// Start and stop the engine, take backups.
    Operate,
    /// Decide who may write: bootstrap, failover, switchover, who votes.
    Promote,
    /// Rebuild a node from the repository.
    Restore,
    /// Format and wipe devices.
    Destroy,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Observe, Self::Operate, Self::Promote, Self::Restore, Self::Destroy];

    /// The word in certificates and messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Operate => "operate",
            Self::Promote => "promote",
            Self::Restore => "restore",
            Self::Destroy => "destroy",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = ParseIdentityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.word() == text)
            .ok_or_else(|| ParseIdentityError::Role(text.to_owned()))
    }
}

/// What kind of caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Another node of the cluster; may observe.
    Node {
        /// Where it stands.
        zone: Zone,
        /// Which.
        node: NodeName,
        /// Whether it may coordinate: recruit, promote and the like, of members only (`agent::api::authorise`).
        promote: bool,
    },
    /// A person or program.
    User {
        /// Who; the same shape as a node's name.
        name: NodeName,
        /// What it may do.
        roles: BTreeSet<Role>,
    },
}

/// A verified caller: the certificate chains to the cluster's own authority and names this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that it belongs to.
    pub cluster: ClusterName,
    /// Who.
    pub caller: Caller,
}

/// Why a URI names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdentityError {
    /// Another shape.
    #[error(
        "identity {0:?} is not valid: use holdfast://<cluster>/node/<zone>/<node>, with ?roles=promote or without, or \
         holdfast://<cluster>/user/<name>?roles=<role>,.."
    )]
    Shape(String),
    /// A role that does not exist.
    #[error("role {0:?} does not exist: use observe, operate, promote, restore or destroy")]
    Role(String),
    /// A part with characters that are not allowed.
    #[error(transparent)]
    Name(#[from] ParseIdError),
}

/// How every identity begins.
pub const SCHEME: &str = "holdfast://";

/// The only roles that a node's identity can list.
const NODE_ROLES: &str = "roles=promote";

impl Identity {
    /// A node of `cluster` that may only observe.
    #[must_use]
    pub const fn node(cluster: ClusterName, zone: Zone, node: NodeName) -> Self {
        Self { cluster, caller: Caller::Node { zone, node, promote: false } }
    }

    /// Whether both name the same node or the same person, whatever either may do.
    #[must_use]
    pub fn names_the_same_as(&self, other: &Self) -> bool {
        let same = match (&self.caller, &other.caller) {
            (Caller::Node { zone, node, .. }, Caller::Node { zone: at, node: also, .. }) => {
                (zone, node) == (at, also)
            }
            (Caller::User { name, .. }, Caller::User { name: also, .. }) => name == also,
            (Caller::Node { .. }, Caller::User { .. }) | (Caller::User { .. }, Caller::Node { .. }) => false,
        };
        same && self.cluster == other.cluster
    }

    /// Whether this caller may make calls that need `role`.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        match &self.caller {
            Caller::Node { promote, .. } => role == Role::Observe || (role == Role::Promote && *promote),
            Caller::User { roles, .. } => roles.contains(&role),
        }
    }
}

impl FromStr for Identity {
    type Err = ParseIdentityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || ParseIdentityError::Shape(text.to_owned());
        let rest = text.strip_prefix(SCHEME).ok_or_else(shape)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (cluster, caller) = match (parts.as_slice(), query) {
            ([cluster, "node", zone, node], None | Some(NODE_ROLES)) => {
                let (zone, node) = (zone.parse()?, node.parse()?);
                (cluster, Caller::Node { zone, node, promote: query.is_some() })
            }
            ([cluster, "user", name], query) => {
                let roles = match query {
                    None => BTreeSet::new(),
                    Some(query) => query
                        .strip_prefix("roles=")
                        .ok_or_else(shape)?
                        .split(',')
                        .map(str::parse)
                        .collect::<Result<_, _>>()?,
                };
                (cluster, Caller::User { name: name.parse()?, roles })
            }
            _ => return Err(shape()),
        };
        Ok(Self { cluster: cluster.parse()?, caller })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.caller {
            Caller::Node { zone, node, promote } => {
                write!(f, "{SCHEME}{}/node/{zone}/{node}", self.cluster)?;
                if *promote { write!(f, "?{NODE_ROLES}") } else { Ok(()) }
            }
            Caller::User { name, roles } => {
                write!(f, "{SCHEME}{}/user/{name}", self.cluster)?;
                let words: Vec<&str> = roles.iter().map(|role| role.word()).collect();
                if words.is_empty() { Ok(()) } else { write!(f, "?roles={}", words.join(",")) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(roles: impl IntoIterator<Item = Role>) -> Identity {
        let caller = Caller::User { name: "ops".parse().unwrap(), roles: roles.into_iter().collect() };
        Identity { cluster: "orders".parse().unwrap(), caller }
    }

    #[test]
    fn an_unknown_role_refuses_the_whole_uri() {
        let err = "holdfast://orders/user/ops?roles=observe,oeprate".parse::<Identity>().unwrap_err();
        assert_eq!(err, ParseIdentityError::Role("oeprate".to_owned()));
    }

    #[test]
    fn roles_do_not_imply_one_another() {
        for granted in Role::ALL {
            for asked in Role::ALL {
                assert_eq!(user([granted]).has(asked), granted == asked, "{granted} against {asked}");
            }
        }
    }

    #[test]
    fn a_node_may_observe_and_at_most_promote() {
        let node: Identity = "holdfast://orders/node/eu-1a/n1".parse().unwrap();
        let coordinator: Identity = "holdfast://orders/node/eu-1a/n1?roles=promote".parse().unwrap();
        for role in Role::ALL {
            assert_eq!(node.has(role), role == Role::Observe);
            assert_eq!(coordinator.has(role), matches!(role, Role::Observe | Role::Promote));
        }
    }

    #[test]
    fn a_name_is_the_same_whatever_it_may_do() {
        let node = |uri: &str| uri.parse::<Identity>().unwrap();
        let own = node("holdfast://orders/node/eu-1a/n1");
        assert!(own.names_the_same_as(&node("holdfast://orders/node/eu-1a/n1?roles=promote")));
        assert!(user([]).names_the_same_as(&user([Role::Destroy])));
        for other in [
            "holdfast://billing/node/eu-1a/n1",
            "holdfast://orders/node/eu-1b/n1",
            "holdfast://orders/node/eu-1a/n2",
            "holdfast://orders/user/n1?roles=promote",
        ] {
            assert!(!own.names_the_same_as(&node(other)), "{other}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for bad in [
            "",
            "https://orders/node/a/n1",
            "holdfast://orders",
            "holdfast://orders/n1",
            "holdfast://orders/node/a/n1?roles=destroy",
            "holdfast://orders/node/a/n1?roles=observe,promote",
            "holdfast://orders/node/a/n1?roles=",
            "holdfast://orders/node/a/n1?",
            "holdfast://orders/node/a/n1/x",
            "holdfast://orders/user/ops?role=observe",
            "holdfast://orders/user/ops?roles=",
            "holdfast://Orders/user/ops",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?} must be refused");
        }
    }

    proptest! {
        #[test]
        fn identities_survive_their_uri(
            name in "[a-z0-9][a-z0-9-]{0,29}",
            zone in "[A-Za-z0-9._-]{1,63}",
            roles in proptest::sample::subsequence(Role::ALL.to_vec(), 0..=5),
            promote: bool,
        ) {
            let person = user(roles);
            prop_assert_eq!(person.to_string().parse::<Identity>().unwrap(), person);
            let (zone, node) = (zone.parse().unwrap(), name.parse().unwrap());
            let caller = Caller::Node { zone, node, promote };
            let node = Identity { cluster: name.parse().unwrap(), caller };
            prop_assert_eq!(node.to_string().parse::<Identity>().unwrap(), node);
        }

        #[test]
        fn parsing_never_panics(text in "(holdfast://)?.{0,80}") {
            prop_assert_eq!(text.parse::<Identity>().is_ok(), text.parse::<Identity>().is_ok());
        }
    }
}
