//! Decides who may call what. Deny by default, here and nowhere else.
//!
//! Invariants, tests below and in `cli/tests/authorisation.rs`, which calls every RPC of the descriptor:
//! * `every_rpc_needs_a_role`: a method that the table does not list is refused for everybody, so a new one stays shut
//!   until somebody gives it a role.
//! * `each_role_opens_exactly_its_rows`.
//! * `a_caller_of_another_cluster_is_refused`.
//! * `a_node_coordinates_members_and_begins_nothing_else`.
//!
//! Not here: whether a permitted call makes sense now ([`super::target`], the daemon).

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use holdfast_model::ClusterName;
use holdfast_proto::identity::{Caller, Identity, Role};
use holdfast_proto::refusal::{Reason, Refusal};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::{info, warn};

use crate::tls::Peer;

/// What members ask of one another: all that the role `promote` of a node opens.
const MEMBERS: &str = "holdfast.v1.MemberService";

/// Which role opens which path. The last part of a row is a method, or `*` for a whole service.
const TABLE: [(&str, &str, Role); 30] = [
    ("holdfast.v1.NodeService", "*", Role::Observe),
    ("holdfast.v1.OperationService", "*", Role::Observe),
    ("holdfast.v1.VolumeService", "PlanVolume", Role::Observe),
    ("holdfast.v1.VolumeService", "FormatVolume", Role::Destroy),
    ("holdfast.v1.VolumeService", "AllowWipe", Role::Destroy),
    ("holdfast.v1.VolumeService", "WipeVolume", Role::Destroy),
    ("holdfast.v1.LifecycleService", "Bootstrap", Role::Promote),
    ("holdfast.v1.LifecycleService", "StartEngine", Role::Operate),
    ("holdfast.v1.LifecycleService", "StopEngine", Role::Operate),
    ("holdfast.v1.LifecycleService", "Restore", Role::Restore),
    ("holdfast.v1.BackupService", "CreateBackup", Role::Operate),
    ("holdfast.v1.BackupService", "ListBackups", Role::Observe),
    ("holdfast.v1.BackupService", "ShowBackup", Role::Observe),
    ("holdfast.v1.BackupService", "GetLog", Role::Observe),
    (MEMBERS, "GetRules", Role::Observe),
    (MEMBERS, "AskVote", Role::Observe),
    (MEMBERS, "AskNear", Role::Observe),
    (MEMBERS, "Recruit", Role::Promote),
    (MEMBERS, "Promote", Role::Promote),
    (MEMBERS, "Follow", Role::Promote),
    (MEMBERS, "Close", Role::Promote),
    (MEMBERS, "AwaitPosition", Role::Promote),
    (MEMBERS, "Reopen", Role::Promote),
    ("holdfast.v1.ClusterService", "Failover", Role::Promote),
    ("holdfast.v1.ClusterService", "Switchover", Role::Promote),
    ("holdfast.v1.ClusterService", "ChangeMember", Role::Promote),
    ("grpc.health.v1.Health", "Check", Role::Observe),
    ("grpc.health.v1.Health", "Watch", Role::Observe),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", Role::Observe),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", Role::Observe),
];

/// The role that a path needs; `None` when no role opens it.
#[must_use]
pub fn required_role(path: &str) -> Option<Role> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    TABLE
        .iter()
        .find(|(of, name, _)| *of == service && (*name == method || *name == "*"))
        .map(|(_, _, role)| *role)
}

/// Judges one call to `path` at a node of `cluster`.
///
/// # Errors
/// [`Reason::NoIdentity`], [`Reason::OtherCluster`], [`Reason::UnknownMethod`] or [`Reason::RoleMissing`].
pub fn judge<'a>(
    path: &str,
    peer: Option<&'a Peer>,
    cluster: &ClusterName,
) -> Result<(&'a Identity, Role), Refusal> {
    let issue = "issue one with holdfast certs issue";
    let peer = peer.ok_or_else(|| {
        Refusal::new(Reason::NoIdentity, "the connection carries no verified certificate", issue)
    })?;
    let identity =
        peer.identity.as_ref().map_err(|why| Refusal::new(Reason::NoIdentity, why.to_string(), issue))?;
    if identity.cluster != *cluster {
        return Err(Refusal::new(
            Reason::OtherCluster,
            format!("the certificate of {identity} belongs to another cluster than {cluster}"),
            "use a certificate of this cluster, or this certificate at a node of its own cluster",
        ));
    }
    let role = required_role(path).ok_or_else(|| {
        Refusal::new(
            Reason::UnknownMethod,
            format!("no role opens {path}"),
            "use a method of holdfast.v1 of this version",
        )
    })?;
    if !identity.has(role) {
        return Err(Refusal::new(
            Reason::RoleMissing,
            format!("{identity} lacks role {role}, which {path} needs"),
            format!("use a certificate that was issued with role {role}"),
        ));
    }
    if is_node(identity) && role != Role::Observe && service_of(path) != Some(MEMBERS) {
        return Err(Refusal::new(
            Reason::RoleMissing,
            format!("{identity} is a node, whose role {role} is for what members ask of one another"),
            format!("call {path} with the certificate of a person or program that has role {role}"),
        ));
    }
    Ok((identity, role))
}

fn service_of(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split_once('/').map(|(service, _)| service)
}

const fn is_node(identity: &Identity) -> bool {
    match identity.caller {
        Caller::Node { .. } => true,
        Caller::User { .. } => false,
    }
}

/// Puts [`judge`] before every gRPC service.
#[derive(Debug, Clone)]
pub struct AuthoriseLayer {
    cluster: Arc<ClusterName>,
}

impl AuthoriseLayer {
    /// Admits callers of `cluster` by their roles.
    #[must_use]
    pub fn new(cluster: ClusterName) -> Self {
        Self { cluster: Arc::new(cluster) }
    }
}

impl<S> Layer<S> for AuthoriseLayer {
    type Service = Authorise<S>;

    fn layer(&self, inner: S) -> Authorise<S> {
        Authorise { inner, cluster: Arc::clone(&self.cluster) }
    }
}

/// A service behind [`judge`].
#[derive(Debug, Clone)]
pub struct Authorise<S> {
    inner: S,
    cluster: Arc<ClusterName>,
}

impl<S> Service<http::Request<Body>> for Authorise<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let peer = request.extensions().get::<Peer>();
        match judge(path, peer, &self.cluster) {
            Ok((_, Role::Observe)) => {}
            Ok((caller, role @ (Role::Operate | Role::Promote | Role::Restore | Role::Destroy))) => {
                info!(%caller, method = path, %role, "call admitted");
            }
            Err(refusal) => {
                let from = peer.map(|peer| tracing::field::display(peer.address));
                warn!(from, method = path, reason = %refusal.reason, "call refused: {}", refusal.missing);
                return Either::Right(ready(Ok(Status::from(refusal).into_http())));
            }
        }
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::NoIdentity;
    use holdfast_proto::DESCRIPTOR;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    fn every_path() -> Vec<String> {
        let mut paths = Vec::new();
        for encoded in [
            DESCRIPTOR,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for file in FileDescriptorSet::decode(encoded).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                    }
                }
            }
        }
        paths
    }

    fn peer(uri: &str) -> Peer {
        Peer { address: ([127, 0, 0, 1], 1).into(), identity: Ok(uri.parse().unwrap()) }
    }

    fn cluster() -> ClusterName {
        "orders".parse().unwrap()
    }

    #[track_caller]
    fn refused(path: &str, peer: Option<&Peer>) -> Reason {
        judge(path, peer, &cluster()).unwrap_err().reason
    }

    #[test]
    fn every_rpc_needs_a_role() {
        let paths = every_path();
        assert!(paths.len() >= 20, "{paths:?}");
        for path in paths {
            assert!(required_role(&path).is_some(), "{path} is not in the table");
            let nobody = peer("holdfast://orders/user/nobody");
            assert_eq!(refused(&path, Some(&nobody)), Reason::RoleMissing);
            assert_eq!(refused(&path, None), Reason::NoIdentity);
            let unnamed = Peer { identity: Err(NoIdentity::NoUri), ..nobody };
            assert_eq!(refused(&path, Some(&unnamed)), Reason::NoIdentity);
        }
        let all = peer("holdfast://orders/user/root?roles=observe,operate,promote,restore,destroy");
        for path in ["", "/", "/holdfast.v1.NodeService", "/holdfast.v2.NodeService/GetStatus", "/metrics"] {
            assert_eq!(refused(path, Some(&all)), Reason::UnknownMethod, "{path}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_a_method() {
        let paths = every_path();
        for (service, method, _) in TABLE {
            let of_service = |path: &&String| path.starts_with(&format!("/{service}/"));
            let named = |path: &&String| method == "*" || path.ends_with(&format!("/{method}"));
            assert!(paths.iter().filter(of_service).any(|path| named(&path)), "{service}/{method}");
        }
    }

    #[test]
    fn each_role_opens_exactly_its_rows() {
        for path in every_path() {
            for role in Role::ALL {
                let caller = peer(&format!("holdfast://orders/user/x?roles={role}"));
                let admitted = judge(&path, Some(&caller), &cluster()).is_ok();
                assert_eq!(admitted, required_role(&path) == Some(role), "{path} with {role}");
            }
        }
    }

    #[test]
    fn a_node_coordinates_members_and_begins_nothing_else() {
        let plain = peer("holdfast://orders/node/eu-1a/n2");
        let coordinator = peer("holdfast://orders/node/eu-1a/n2?roles=promote");
        for path in every_path() {
            let (needed, admitted) = (required_role(&path), |by| judge(&path, Some(by), &cluster()).is_ok());
            assert_eq!(admitted(&plain), needed == Some(Role::Observe), "{path}");
            let coordinates = needed == Some(Role::Promote) && path.contains(MEMBERS);
            assert_eq!(admitted(&coordinator), needed == Some(Role::Observe) || coordinates, "{path}");
        }
        assert_eq!(refused("/holdfast.v1.ClusterService/Failover", Some(&coordinator)), Reason::RoleMissing);
        assert_eq!(
            refused("/holdfast.v1.LifecycleService/Bootstrap", Some(&coordinator)),
            Reason::RoleMissing
        );
    }

    #[test]
    fn a_caller_of_another_cluster_is_refused() {
        let other = peer("holdfast://billing/user/root?roles=observe,operate,promote,restore,destroy");
        for path in every_path() {
            assert_eq!(refused(&path, Some(&other)), Reason::OtherCluster);
        }
    }
}
