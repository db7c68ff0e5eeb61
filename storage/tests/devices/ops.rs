//! The verbs as the helper uses them.

use holdfast_model::volume::Filesystem;
use holdfast_storage::ops::{OpError, Request, Response, Verb};

use crate::rig::{Rig, SMALL_MIB};

#[test]
fn requests_and_responses_survive_json() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    let verb = Verb::Format(Rig::order(rig.seen(&disk)));
    let request = Request { spec: rig.spec.clone(), verb };
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    rig.format(&disk);
    let response = rig.perform(Verb::Plan).unwrap().response;
    let text = serde_json::to_string(&response).unwrap();
    assert_eq!(serde_json::from_str::<Response>(&text).unwrap(), response);
}

#[test]
fn candidates_are_planned_in_the_configured_order() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let first = rig.disk(SMALL_MIB);
    let second = rig.disk(SMALL_MIB);
    rig.spec.devices.reverse();
    let paths: Vec<_> = rig.plan().into_iter().map(|p| p.found.device.path).collect();
    assert_eq!(paths, [second.path(), first.path()]);
}

#[test]
fn two_formats_of_one_device_make_one_volume() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    let order = Rig::order(rig.seen(&disk));
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..3).map(|_| scope.spawn(|| rig.perform(Verb::Format(order.clone())).is_ok())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(results.iter().filter(|done| **done).count() <= 1, "{results:?}");
    if !results.contains(&true) {
        // All of them met another one's claim; the next one is alone.
        rig.format(&disk);
    }
    assert!(rig.plan()[0].mounted);
}

#[test]
fn mounting_what_is_blank_is_refused() {
    let mut rig = Rig::new(Filesystem::Ext4);
    let disk = rig.disk(SMALL_MIB);
    assert!(matches!(rig.mount(&disk), Err(OpError::NotAllowed { .. })));
}

#[test]
fn shutting_down_without_a_volume_is_fine() {
    let rig = Rig::new(Filesystem::Ext4);
    rig.perform(Verb::ShutDown).unwrap();
}
