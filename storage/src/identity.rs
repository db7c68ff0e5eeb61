//! The identity record on a volume: who it belongs to.
//!
//! Invariants: `an_identity_of_another_node_or_cluster_is_refused`, `binding_happens_once`,
//! `a_damaged_identity_is_never_read_as_missing`.

use std::path::Path;

use holdfast_model::record::{self, RecordError, RecordKind};
use holdfast_model::volume::VolumeIdentity;
use holdfast_model::{ClusterId, ClusterName, NodeName};
use holdfast_storage_io::IoError;
use holdfast_storage_io::root::Root;

use crate::places::IDENTITY;

const KIND: RecordKind = RecordKind { tag: *b"vlid", version: 1, name: "volume identity" };
/// Above any identity that we write; keeps a hostile file from filling memory.
const LIMIT: u64 = 64 << 10;
const MODE: u32 = 0o600;

/// Why a volume's identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none: not a volume of ours, or formatting it was not finished.
    #[error("volume at {volume} has no identity record")]
    Missing {
        /// The mount point.
        volume: String,
    },
    /// It is damaged or too new.
    #[error("read identity of volume at {volume}")]
    Record {
        /// The mount point.
        volume: String,
        /// How.
        #[source]
        source: RecordError,
    },
    /// It names somebody else.
    #[error("volume belongs to node {node} of cluster {cluster}")]
    SomebodyElses {
        /// Its node.
        node: NodeName,
        /// Its cluster.
        cluster: ClusterName,
    },
    /// It is bound to another cluster of the same name.
    #[error("volume is bound to cluster {bound}, not to {wanted}")]
    OtherCluster {
        /// The cluster that it is bound to.
        bound: ClusterId,
        /// The one asked for.
        wanted: ClusterId,
    },
    /// It is another volume than the one that was here before.
    #[error("volume changed under its mount point: it was incarnation {was}, now it is {is}")]
    Changed {
        /// What was expected.
        was: holdfast_model::Incarnation,
        /// What is there.
        is: holdfast_model::Incarnation,
    },
    /// The volume does not answer as it should.
    #[error("access identity record")]
    Io(#[from] IoError),
}

/// Reads the identity of the volume at `root`.
///
/// # Errors
/// [`IdentityError`]: `Missing`, `Record` or `Io`.
pub fn read(root: &Root) -> Result<VolumeIdentity, IdentityError> {
    let volume = || root.name().display().to_string();
    let bytes =
        root.read(Path::new(IDENTITY), LIMIT)?.ok_or_else(|| IdentityError::Missing { volume: volume() })?;
    record::decode(KIND, &bytes).map_err(|source| IdentityError::Record { volume: volume(), source })
}

/// Writes the identity; durable when it returns, and old or new whatever happens.
///
/// # Errors
/// [`IdentityError::Io`].
pub fn write(root: &Root, identity: &VolumeIdentity) -> Result<(), IdentityError> {
    Ok(root.replace(Path::new(IDENTITY), &record::encode(KIND, identity), MODE)?)
}

/// Refuses an identity of another node or another cluster.
///
/// # Errors
/// [`IdentityError::SomebodyElses`].
pub fn check(identity: &VolumeIdentity, cluster: &ClusterName, node: &NodeName) -> Result<(), IdentityError> {
    if identity.cluster == *cluster && identity.node == *node {
        return Ok(());
    }
    Err(IdentityError::SomebodyElses { node: identity.node.clone(), cluster: identity.cluster.clone() })
}

/// Reads the identity again and refuses if another volume has come under the mount point since `expected` was
/// read. The cluster id may have been bound in the meantime.
///
/// # Errors
/// [`IdentityError`].
pub fn recheck(root: &Root, expected: &VolumeIdentity) -> Result<VolumeIdentity, IdentityError> {
    let now = read(root)?;
    check(&now, &expected.cluster, &expected.node)?;
    if now.incarnation != expected.incarnation || now.fs_uuid != expected.fs_uuid {
        return Err(IdentityError::Changed { was: expected.incarnation, is: now.incarnation });
    }
    Ok(now)
}

/// Binds the volume to a cluster for good. Binding it again to the same one changes nothing.
///
/// # Errors
/// [`IdentityError`]; `OtherCluster` if it is bound to another one.
pub fn bind(root: &Root, cluster: &ClusterId) -> Result<VolumeIdentity, IdentityError> {
    let mut identity = read(root)?;
    check(&identity, cluster.name(), &identity.node.clone())?;
    match &identity.cluster_id {
        Some(bound) if bound == cluster => return Ok(identity),
        Some(bound) => {
            return Err(IdentityError::OtherCluster { bound: bound.clone(), wanted: cluster.clone() });
        }
        None => identity.cluster_id = Some(cluster.clone()),
    }
    write(root, &identity)?;
    Ok(identity)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use holdfast_model::Incarnation;

    pub(crate) fn example() -> VolumeIdentity {
        VolumeIdentity {
            cluster: "orders".parse().unwrap(),
            cluster_id: None,
            node: "n1".parse().unwrap(),
            incarnation: Incarnation::from_random(7),
            zone: "eu-1a".parse().unwrap(),
            engine: "postgres".to_owned(),
            serials: vec!["S1".to_owned()],
            fs_uuid: uuid::Uuid::nil(),
            created: "2026-11-23T06:00:00Z".to_owned(),
            boot_id: "b".to_owned(),
        }
    }

    pub(crate) fn volume() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".holdfast")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        write(&root, &example()).unwrap();
        (dir, root)
    }

    #[test]
    fn an_identity_of_another_node_or_cluster_is_refused() {
        let id = example();
        check(&id, &id.cluster, &id.node).unwrap();
        assert!(check(&id, &"other".parse().unwrap(), &id.node).is_err());
        assert!(check(&id, &id.cluster, &"n2".parse().unwrap()).is_err());
    }

    #[test]
    fn binding_happens_once() {
        let (_dir, root) = volume();
        let ours = ClusterId::new("orders".parse().unwrap(), 1);
        assert_eq!(bind(&root, &ours).unwrap().cluster_id, Some(ours.clone()));
        bind(&root, &ours).unwrap();
        let namesake = ClusterId::new("orders".parse().unwrap(), 2);
        assert!(matches!(bind(&root, &namesake), Err(IdentityError::OtherCluster { .. })));
        assert_eq!(read(&root).unwrap().cluster_id, Some(ours));
    }

    #[test]
    fn a_damaged_identity_is_never_read_as_missing() {
        let (dir, root) = volume();
        let path = dir.path().join(IDENTITY);
        for damage in [0, 3, 19, 40] {
            std::fs::write(&path, vec![0; damage]).unwrap();
            assert!(matches!(read(&root), Err(IdentityError::Record { .. })));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&root), Err(IdentityError::Missing { .. })));
    }

    #[test]
    fn another_volume_under_the_same_mount_point_is_noticed() {
        let (_dir, root) = volume();
        recheck(&root, &example()).unwrap();
        let other = VolumeIdentity { incarnation: Incarnation::from_random(8), ..example() };
        write(&root, &other).unwrap();
        assert!(matches!(recheck(&root, &example()), Err(IdentityError::Changed { .. })));
    }
}
