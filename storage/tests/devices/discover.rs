//! Which devices may be looked at, on recorded sysfs trees of clouds and own hardware.

use std::path::{Path, PathBuf};

use holdfast_storage::discover::{Wanted, local_nvme};
use holdfast_storage::mountinfo::Mounts;
use holdfast_storage::sysfs::Sysfs;

const AWS: &str = include_str!("../fixtures/sysfs/aws-i4i.txt");
const GCP: &str = include_str!("../fixtures/sysfs/gcp-local-ssd.txt");
const AZURE: &str = include_str!("../fixtures/sysfs/azure-lsv3.txt");
const BARE_METAL: &str = include_str!("../fixtures/sysfs/bare-metal.txt");

/// Lays a recorded tree out below `dir`: `path value` is a file, `path/` a directory, `mountinfo` a mount.
fn lay_out(recorded: &str, dir: &Path) -> Mounts {
    let mut mounts = String::new();
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let (path, value) = line.split_once(' ').unwrap_or((line, ""));
        if path == "mountinfo" {
            mounts.push_str(value);
            mounts.push('\n');
        } else if path.ends_with('/') {
            std::fs::create_dir_all(dir.join(path)).unwrap();
        } else {
            let file = dir.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("{value}\n")).unwrap();
        }
    }
    Mounts::parse(mounts.as_bytes())
}

fn check(recorded: &str, models: &[&str], serials: &[&str], expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let mounts = lay_out(recorded, dir.path());
    let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let (models, serials) = (owned(models), owned(serials));
    let wanted = Wanted { models: &models, serials: &serials };
    let found = local_nvme(&Sysfs::at(dir.path()), &mounts, wanted).unwrap();
    assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
}

#[test]
fn on_aws_only_the_instance_store_is_a_candidate() {
    check(AWS, &[], &[], &["/dev/nvme1n1"]);
}

#[test]
fn on_gcp_local_ssds_are_candidates_in_order_of_serial() {
    check(GCP, &[], &[], &["/dev/nvme1n1", "/dev/nvme0n2"]);
}

#[test]
fn on_azure_the_multipath_head_of_the_local_disk_is_a_candidate() {
    check(AZURE, &[], &[], &["/dev/nvme1n1"]);
}

#[test]
fn on_bare_metal_nothing_is_a_candidate_without_a_pattern_or_a_serial() {
    check(BARE_METAL, &[], &[], &[]);
}

#[test]
fn neither_disks_of_the_root_mirror_nor_remote_ones_are_candidates_whatever_the_pattern() {
    check(BARE_METAL, &["SAMSUNG*"], &[], &["/dev/nvme3n1", "/dev/nvme2n1"]);
    check(BARE_METAL, &[], &["S64FNE0R100001", "S64GNE0R200009"], &[]);
}

#[test]
fn serials_narrow_the_choice() {
    check(BARE_METAL, &[], &["S64GNE0R200002"], &["/dev/nvme2n1"]);
    check(AWS, &[], &["no-such-serial"], &[]);
}
