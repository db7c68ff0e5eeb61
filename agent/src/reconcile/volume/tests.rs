//! Which device is used, and what is promised on it.

use super::*;
use crate::child::process::ProcessId;
use crate::helper::wire::{self, AsyncChannel};
use crate::worker::Greeting;
use crate::worker::volume::{VolumeAnswer, VolumeFailure, VolumeReply, VolumeRequest, VolumeVerb};
use holdfast_model::{ByteCount, Incarnation, Term};

fn device(name: &str) -> DeviceId {
    let (model, serial) = ("m".to_owned(), name.to_owned());
    DeviceId { path: name.into(), model, serial, diskseq: 1, size: ByteCount::gib(1) }
}

fn blank(name: &str) -> Planned {
    Planned {
        found: DeviceVerdict { device: device(name), verdict: Verdict::Blank },
        identity: None,
        mounted: false,
    }
}

fn ours(name: &str, incarnation: u128) -> Planned {
    let identity = VolumeIdentity {
        cluster: "c".parse().unwrap(),
        cluster_id: None,
        node: "n".parse().unwrap(),
        incarnation: Incarnation::from_random(incarnation),
        zone: "z".parse().unwrap(),
        engine: "postgres".into(),
        serials: vec![],
        fs_uuid: uuid::Uuid::nil(),
        created: String::new(),
        boot_id: String::new(),
    };
    let verdict = Verdict::Ours { fs_uuid: uuid::Uuid::nil() };
    let found = DeviceVerdict { device: device(name), verdict };
    Planned { found, identity: Some(Box::new(identity)), mounted: false }
}

fn current(incarnation: u128, before: Option<u128>) -> CurrentVolume {
    let before = before.map(Incarnation::from_random);
    CurrentVolume { incarnation: Incarnation::from_random(incarnation), before }
}

#[track_caller]
fn chosen(found: &[Planned], current: Option<CurrentVolume>) -> String {
    match choose(found, current.as_ref()) {
        VolumeView::Unmounted { device } => format!("mount {}", device.path.display()),
        VolumeView::Blank { device } => format!("format {}", device.path.display()),
        VolumeView::Absent { verdicts } => {
            let words: Vec<_> = verdicts.iter().map(|found| found.verdict.word()).collect();
            format!("none: {}", words.join(" "))
        }
        other @ (VolumeView::Unknown | VolumeView::Mounted { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn an_abandoned_incarnation_never_comes_back() {
    let found = [ours("old", 1), ours("new", 2)];
    assert_eq!(chosen(&found, Some(current(2, None))), "mount new");
    assert_eq!(chosen(&found[..1], Some(current(2, None))), "none: stale");
    assert_eq!(chosen(&[ours("old", 1), blank("b")], Some(current(2, None))), "format b");
}

#[test]
fn the_one_before_counts_until_the_new_one_is_there() {
    let half_made = Some(current(2, Some(1)));
    assert_eq!(chosen(&[ours("old", 1), blank("b")], half_made.clone()), "mount old");
    assert_eq!(chosen(&[ours("old", 1), ours("new", 2)], half_made), "mount new");
}

#[test]
fn without_a_ledger_only_a_single_volume_of_ours_is_taken() {
    assert_eq!(chosen(&[ours("a", 1), blank("b")], None), "mount a");
    assert_eq!(chosen(&[ours("a", 1), ours("b", 2)], None), "none: stale stale");
    assert_eq!(chosen(&[], None), "none: ");
}

/// The worker's side of a desk.
struct FakeWorker(AsyncChannel);

impl FakeWorker {
    /// Answers the next request, and tells what it was.
    async fn answers(&self, result: Result<VolumeAnswer, VolumeFailure>) -> VolumeVerb {
        let (request, _) = self.0.receive::<VolumeRequest>().await.unwrap();
        self.0.send(&VolumeReply { id: request.id, result }).await.unwrap();
        request.verb
    }
}

async fn desk() -> (Desk, FakeWorker) {
    let (near, far) = wire::pair().unwrap();
    let worker = VolumeWorker::new((ProcessId::own().unwrap(), near)).unwrap();
    let far = FakeWorker(AsyncChannel::new(far).unwrap());
    far.0.send(&Greeting::Ready).await.unwrap();
    let Some(identity) = ours("a", 1).identity else { unreachable!("ours has one") };
    let reads = async {
        far.answers(Ok(VolumeAnswer::Identity(identity))).await;
        far.answers(Ok(VolumeAnswer::Promise(None))).await;
        far.answers(Ok(VolumeAnswer::Data(None))).await;
    };
    let (desk, ()) = tokio::join!(Desk::open(worker), reads);
    (desk.unwrap(), far)
}

/// I3: from its submission on a promise binds; it is answered only once it is known to be on the disk.
#[tokio::test]
async fn a_promise_that_was_not_heard_to_land_is_written_before_it_is_answered_again() {
    let (desk, far) = desk().await;
    let promise = Promise {
        cluster: "c-00000000000000000000000000000007".parse().unwrap(),
        member: desk.member(),
        max_term: Term::new(4).unwrap(),
        attempt: 9,
    };
    let failed = VolumeFailure::Disk { why: "no answer".to_owned(), errno: Some(5) };
    let (promised, _) = tokio::join!(desk.promise(promise.clone()), far.answers(Err(failed)));
    assert!(promised.is_err());
    assert_eq!(desk.facts().promise, Some(promise.clone()), "the write may have landed");

    let (kept, verb) = tokio::join!(desk.keep_promise(), far.answers(Ok(VolumeAnswer::Done)));
    kept.unwrap();
    assert!(matches!(verb, VolumeVerb::PersistPromise { promise: again, .. } if again == promise));
    // Nobody answers: nothing is asked.
    desk.keep_promise().await.unwrap();
}
