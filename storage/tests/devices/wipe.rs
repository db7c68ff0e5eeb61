//! Erasing takes consent that names the device and what it holds, and is good once.

use holdfast_model::volume::Filesystem;
use holdfast_storage::format::EraseError;
use holdfast_storage::ops::{Consent, FormatOrder, OpError, Response, Verb};
use holdfast_storage::wipe::{TokenId, VALID_FOR_MS, WipeError};

use crate::rig::{Disk, Rig, SMALL_MIB, run};

fn occupied() -> (Rig, Disk) {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    run("mkfs.ext4", &["-q", disk.path().to_str().unwrap()]);
    run("sync", &[]);
    (rig, disk)
}

fn offer(rig: &Rig, disk: &Disk) -> TokenId {
    let offered = rig.perform(Verb::OfferWipe { seen: rig.seen(disk), now_unix_ms: 1000 }).unwrap();
    let Response::WipeOffered { token, .. } = offered.response else { panic!("no token was offered") };
    token
}

fn order(rig: &Rig, disk: &Disk, token: &TokenId, now_unix_ms: u64) -> FormatOrder {
    let consent = Consent::Wipe { token: token.clone(), now_unix_ms };
    FormatOrder { consent, ..Rig::order(rig.seen(disk)) }
}

#[test]
fn a_foreign_device_is_formatted_with_a_token_and_the_token_is_used_up() {
    let (rig, disk) = occupied();
    let token = offer(&rig, &disk);
    drop(rig.perform(Verb::Format(order(&rig, &disk, &token, 2000))).unwrap());
    rig.unmount();
    assert_eq!(rig.verdict(&disk).word(), "ours");

    run("mkfs.ext4", &["-q", "-F", disk.path().to_str().unwrap()]);
    let again = rig.perform(Verb::Format(order(&rig, &disk, &token, 2000))).unwrap_err();
    assert!(matches!(again, OpError::Wipe(WipeError::Unknown { .. })), "{again}");
}

#[test]
fn a_device_that_changed_since_it_was_looked_at_is_not_erased() {
    let (rig, disk) = occupied();
    let token = offer(&rig, &disk);
    disk.write(5 << 20, b"news");
    let before = disk.checksum();
    let refused = rig.perform(Verb::Format(order(&rig, &disk, &token, 2000))).unwrap_err();
    assert!(
        matches!(refused, OpError::Erase(EraseError::Consent(WipeError::OtherContent { .. }))),
        "{refused}"
    );
    assert_eq!(disk.checksum(), before);
}

#[test]
fn without_a_token_or_with_an_old_one_nothing_is_erased() {
    let (rig, disk) = occupied();
    let before = disk.checksum();
    let blank = rig.perform(Verb::Format(Rig::order(rig.seen(&disk)))).unwrap_err();
    assert!(matches!(blank, OpError::NotAllowed { .. }), "{blank}");
    let token = offer(&rig, &disk);
    let late = rig.perform(Verb::Format(order(&rig, &disk, &token, 1000 + VALID_FOR_MS))).unwrap_err();
    assert!(matches!(late, OpError::Wipe(WipeError::Expired { .. })), "{late}");
    assert_eq!(disk.checksum(), before);
}

#[test]
fn a_token_for_one_device_does_not_erase_another() {
    let (mut rig, disk) = occupied();
    let token = offer(&rig, &disk);
    let copy = rig.dir().join("copy");
    std::fs::copy(&disk.file, &copy).unwrap();
    let copy = rig.attach(copy);
    let before = copy.checksum();
    let refused = rig.perform(Verb::Format(order(&rig, &copy, &token, 2000))).unwrap_err();
    assert!(
        matches!(refused, OpError::Erase(EraseError::Consent(WipeError::OtherDevice { .. }))),
        "{refused}"
    );
    assert_eq!(copy.checksum(), before);
}
