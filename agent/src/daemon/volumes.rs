//! The volume verbs of callers: look, format, wipe. The root helper looks at the device again before it writes, and
//! refuses one that is not, by then, what the caller saw.

use std::time::Duration;

use holdfast_model::status::{Operation, VolumeView};
use holdfast_model::volume::{DeviceVerdict, Verdict};
use holdfast_storage::ops::{Consent, Planned, Response, Seen, Verb};

use super::control::{failed, refused};
use crate::api::control::{CallError, PlannedDevice, PlannedStep, Reason, SeenDevice, Target, WipeConsent};
use crate::clock;
use crate::disk::format::Formatting;
use crate::ledger::CurrentVolume;
use crate::reconcile::{ABANDONED, Node};

const PLAN_DEADLINE: Duration = Duration::from_secs(60);

fn unexpected(what: &str) -> CallError {
    CallError::Failed { what: what.to_owned(), why: "the helper answered something else".to_owned() }
}

fn seen(device: &SeenDevice) -> Seen {
    Seen { serial: device.serial.clone(), diskseq: device.diskseq, verdict: device.verdict.word().to_owned() }
}

/// Looks at every candidate; writes nothing.
pub(super) async fn plan(node: &Node) -> Result<Vec<PlannedDevice>, CallError> {
    let current = node.ledger.load::<CurrentVolume>().map_err(|err| failed("read the ledger", &err))?;
    match node.helper.volume(Verb::Plan, PLAN_DEADLINE).await {
        Ok(Response::Planned { devices }) => {
            Ok(devices.into_iter().map(|device| planned(device, current.as_ref())).collect())
        }
        Ok(_) => Err(unexpected("look at devices")),
        Err(err) => Err(failed("look at devices", &err)),
    }
}

fn planned(planned: Planned, current: Option<&CurrentVolume>) -> PlannedDevice {
    let abandoned = match (current, &planned.identity) {
        (Some(current), Some(identity)) => !current.may_be(identity.incarnation),
        (Some(_) | None, _) => false,
    };
    let (step, why) = match (&planned.found.verdict, planned.mounted) {
        (Verdict::Ours { .. }, false) if abandoned => (PlannedStep::None, ABANDONED.to_owned()),
        (Verdict::Ours { .. }, true) => (PlannedStep::Keep, "it is in use".to_owned()),
        (Verdict::Ours { .. }, false) => (PlannedStep::Mount, "it is this node's".to_owned()),
        (Verdict::Blank, _) => {
            (PlannedStep::Format, "it is blank: once there is something to put on it".to_owned())
        }
        (
            other @ (Verdict::Stale { .. }
            | Verdict::Theirs { .. }
            | Verdict::Foreign { .. }
            | Verdict::Sick { .. }
            | Verdict::Gone { .. }),
            _,
        ) => (PlannedStep::None, other.to_string()),
    };
    PlannedDevice { found: planned.found, step, why }
}

/// Issues a single-use token to wipe exactly what is on the device now.
pub(super) async fn offer_wipe(node: &Node, device: &SeenDevice) -> Result<WipeConsent, CallError> {
    let now_unix_ms = clock::unix_ms();
    let verb = Verb::OfferWipe { seen: seen(device), now_unix_ms };
    match node.helper.volume(verb, PLAN_DEADLINE).await {
        Ok(Response::WipeOffered { token, device: found, expires_unix_ms }) => Ok(WipeConsent {
            token: token.into(),
            valid_for_ms: expires_unix_ms.saturating_sub(now_unix_ms),
            found: DeviceVerdict {
                device: found,
                verdict: Verdict::Foreign { why: format!("seen as {}", device.verdict.word()) },
            },
        }),
        Ok(_) => Err(unexpected("offer to wipe")),
        Err(err) => Err(failed("offer to wipe", &err)),
    }
}

/// Begins to format a device; with a token, what is on it is erased first.
pub(super) fn format(
    node: &Node,
    target: &Target,
    device: &SeenDevice,
    consent: Consent,
) -> Result<Operation, CallError> {
    if let Some(begun) = node.operations.of_request(target.request.as_str()) {
        return Ok(begun);
    }
    if matches!(node.view.borrow().volume, VolumeView::Mounted { .. }) {
        let resolve = "nothing: a node uses one volume at a time";
        return Err(refused(Reason::Busy, "this node's volume is mounted", resolve));
    }
    let formatting = Formatting::begin(&node.ledger, seen(device), consent)
        .map_err(|err| failed("remember the new incarnation", &err))?;
    let ticket = formatting.ticket(&node.operations);
    node.operations.note_request(target.request.as_str(), ticket.id());
    let operation = ticket.operation();
    let helper = node.helper.clone();
    // How it ends is told through the ticket; the reconcile loop finds the volume by itself.
    node.tasks.spawn(async move { drop(formatting.run(&helper, ticket).await) });
    operation.ok_or_else(|| unexpected("begin to format"))
}
