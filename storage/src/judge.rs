//! Judges from the ends of a device whose it is. Pure; the last word before anything is written.
//!
//! Rows, from the surest to the least sure: a sound file system with the UUID that our own stamp promises is ours,
//! whatever else the data looks like. A stamp of somebody else is theirs. Our stamp that says "formatting" without
//! any foreign signature is an interrupted format: nothing was ever stored on it. Our stamp without its file
//! system is stale. A signature, or any byte that is not zero, is foreign. Only zeros are blank.
//!
//! Invariants, each a test below:
//! * `only_zeros_are_blank`
//! * `a_finished_volume_is_ours`, `a_volume_of_another_node_or_cluster_is_theirs`
//! * `an_interrupted_format_is_recognised_and_a_foreign_signature_overrules_it`
//! * `a_copy_on_another_device_is_stale`
//! * `a_finished_volume_whose_superblock_is_damaged_is_never_formatted_again`

use holdfast_model::volume::{DeviceId, Verdict};
use holdfast_model::{ClusterName, NodeName};

use crate::content::Ends;
use crate::signature;
use crate::stamp::{self, Stamp, Step};
use crate::superblock::{self, Superblock, SuperblockState};

/// Whose devices are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// This machine.
    pub node: NodeName,
}

/// What the ends of a device say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Nothing at either end; the rest must be sampled.
    Blank,
    /// A format of ours was interrupted: remains of mkfs, and no data.
    Unfinished(Box<Stamp>),
    /// A finished volume of ours.
    Ours(Box<Stamp>),
    /// Anything else.
    Occupied(Verdict),
}

/// Judges the ends of `device`.
#[must_use]
pub fn judge(ends: &Ends, device: &DeviceId, owner: &Owner) -> Judged {
    let foreign = |why: String| Judged::Occupied(Verdict::Foreign { why });
    let superblock = superblock::read(ends);
    let stamp = match stamp::read(ends) {
        Ok(stamp) => stamp,
        Err(err) => return foreign(format!("a holdfast stamp that cannot be used: {err}")),
    };
    let Some(stamp) = stamp else { return without_stamp(ends) };

    let theirs = &stamp.identity;
    if theirs.cluster != owner.cluster || theirs.node != owner.node {
        let owner = format!("node {} of cluster {}", theirs.node, theirs.cluster);
        return Judged::Occupied(Verdict::Theirs { owner });
    }
    let own = superblock.as_ref().is_none_or(|sb| sb.uuid == stamp.identity.fs_uuid);
    if !own {
        return foreign("another file system over a volume of this node".to_owned());
    }
    let stale = |why: &str| Judged::Occupied(Verdict::Stale { why: why.to_owned() });
    if stamp.identity.serials.as_slice() != [device.serial.as_str()] {
        let serials = stamp.identity.serials.join(", ");
        return stale(&format!("a copy: it was formatted on device {serials}"));
    }
    if stamp.device_size != device.size {
        return stale(&format!("the device had {} when it was formatted", stamp.device_size));
    }
    match stamp.step {
        Step::Formatting => unfinished(ends, stamp),
        Step::Formatted => match superblock {
            Some(Superblock { state: SuperblockState::Sound, .. }) => Judged::Ours(Box::new(stamp)),
            Some(_) => stale("its superblock is damaged"),
            None => stale("its file system is gone"),
        },
    }
}

fn unfinished(ends: &Ends, stamp: Stamp) -> Judged {
    let strange: Vec<_> =
        signature::find(ends).into_iter().filter(|name| !signature::OWN_KINDS.contains(name)).collect();
    if strange.is_empty() {
        return Judged::Unfinished(Box::new(stamp));
    }
    let why = format!("{} over an unfinished volume of this node", strange.join(", "));
    Judged::Occupied(Verdict::Foreign { why })
}

fn without_stamp(ends: &Ends) -> Judged {
    let found = signature::find(ends);
    let why = if !found.is_empty() {
        found.join(", ")
    } else if let Some(at) = ends.first_nonzero() {
        format!("unknown content: a byte at offset {at} is not zero")
    } else {
        return Judged::Blank;
    };
    Judged::Occupied(Verdict::Foreign { why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::tests::{put, stamp};
    use crate::superblock::tests::xfs;
    use holdfast_model::ByteCount;
    use proptest::prelude::*;

    const SIZE: usize = 4 << 20;

    fn device() -> DeviceId {
        DeviceId {
            path: "/dev/x".into(),
            model: String::new(),
            serial: "S1".to_owned(),
            diskseq: 1,
            size: ByteCount::new(SIZE as u64),
        }
    }

    fn owner() -> Owner {
        Owner { cluster: "orders".parse().unwrap(), node: "n1".parse().unwrap() }
    }

    fn volume(step: Step) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        let stamp = stamp(step, SIZE as u64);
        bytes[..512].copy_from_slice(&xfs(stamp.identity.fs_uuid, "hf"));
        put(&mut bytes, &stamp);
        bytes
    }

    fn verdict(bytes: &[u8], device: &DeviceId, owner: &Owner) -> &'static str {
        match judge(&Ends::of(bytes), device, owner) {
            Judged::Blank => "blank",
            Judged::Unfinished(_) => "unfinished",
            Judged::Ours(_) => "ours",
            Judged::Occupied(verdict) => verdict.word(),
        }
    }

    #[test]
    fn a_finished_volume_is_ours() {
        let mut bytes = volume(Step::Formatted);
        assert_eq!(verdict(&bytes, &device(), &owner()), "ours");
        bytes[4120..4124].copy_from_slice(&[0xC6, 0x85, 0x73, 0xF6]);
        assert_eq!(verdict(&bytes, &device(), &owner()), "ours", "data may look like anything");
    }

    #[test]
    fn a_volume_of_another_node_or_cluster_is_theirs() {
        for step in [Step::Formatting, Step::Formatted] {
            let other_node = Owner { node: "n2".parse().unwrap(), ..owner() };
            let other_cluster = Owner { cluster: "users".parse().unwrap(), ..owner() };
            assert_eq!(verdict(&volume(step), &device(), &other_node), "theirs");
            assert_eq!(verdict(&volume(step), &device(), &other_cluster), "theirs");
        }
    }

    #[test]
    fn an_interrupted_format_is_recognised_and_a_foreign_signature_overrules_it() {
        let mut bytes = volume(Step::Formatting);
        assert_eq!(verdict(&bytes, &device(), &owner()), "unfinished");
        bytes[..512].fill(0);
        bytes[100_000] = 1;
        assert_eq!(verdict(&bytes, &device(), &owner()), "unfinished", "half-written mkfs");
        bytes[512..520].copy_from_slice(b"LABELONE");
        assert_eq!(verdict(&bytes, &device(), &owner()), "foreign");
        let mut bytes = volume(Step::Formatting);
        bytes[..512].copy_from_slice(&xfs(uuid::Uuid::from_u128(5), ""));
        assert_eq!(verdict(&bytes, &device(), &owner()), "foreign", "another file system");
    }

    #[test]
    fn a_copy_on_another_device_is_stale() {
        let copy = DeviceId { serial: "S2".to_owned(), ..device() };
        assert_eq!(verdict(&volume(Step::Formatted), &copy, &owner()), "stale");
        assert_eq!(verdict(&volume(Step::Formatting), &copy, &owner()), "stale");
    }

    #[test]
    fn a_finished_volume_whose_superblock_is_damaged_is_never_formatted_again() {
        let mut bytes = volume(Step::Formatted);
        bytes[300] ^= 1;
        assert_eq!(verdict(&bytes, &device(), &owner()), "stale");
        bytes[..512].fill(0);
        assert_eq!(verdict(&bytes, &device(), &owner()), "stale");
    }

    #[test]
    fn a_file_system_of_anybody_is_foreign() {
        let mut bytes = vec![0; SIZE];
        bytes[..512].copy_from_slice(&xfs(uuid::Uuid::from_u128(5), ""));
        assert_eq!(verdict(&bytes, &device(), &owner()), "foreign");
        bytes[300] ^= 1;
        assert_eq!(verdict(&bytes, &device(), &owner()), "foreign", "also with a bad checksum");
    }

    proptest! {
        // Each case reads megabytes.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn only_zeros_are_blank(at in 0..SIZE, byte in 1u8..) {
            let mut bytes = vec![0; SIZE];
            prop_assert_eq!(verdict(&bytes, &device(), &owner()), "blank");
            bytes[at] = byte;
            prop_assert_eq!(verdict(&bytes, &device(), &owner()), "foreign");
        }

        #[test]
        fn no_damage_to_a_finished_volume_makes_it_blank_or_unfinished(at in 0..LEN_OF_MARKS, flip in 1u8..) {
            let mut bytes = volume(Step::Formatted);
            let offset = usize::try_from(stamp::offset(SIZE as u64)).unwrap();
            let at = if at < 512 { at } else { offset + at - 512 };
            bytes[at] ^= flip;
            let word = verdict(&bytes, &device(), &owner());
            prop_assert!(!matches!(word, "blank" | "unfinished"), "byte {} made it {}", at, word);
        }
    }

    const LEN_OF_MARKS: usize = 512 + stamp::LEN;
}
