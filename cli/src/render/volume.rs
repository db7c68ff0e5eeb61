//! Disks as the dry run sees them.

use holdfast_proto::reply::{PlannedDevice, PlannedStep, WipeConsent};

use super::with_header;

const fn step(step: PlannedStep) -> &'static str {
    match step {
        PlannedStep::None => "leave alone",
        PlannedStep::Format => "format",
        PlannedStep::Mount => "mount",
        PlannedStep::Keep => "in use",
    }
}

/// Each device with its verdict, and what would be done.
#[must_use]
pub fn plan(devices: &[PlannedDevice]) -> String {
    if devices.is_empty() {
        return "no candidate device was found".to_owned();
    }
    let rows = devices.iter().map(|planned| {
        let device = &planned.found.device;
        vec![
            device.path.display().to_string(),
            device.model.clone(),
            device.serial.clone(),
            device.diskseq.to_string(),
            device.size.to_string(),
            planned.found.verdict.to_string(),
            step(planned.step).to_owned(),
            planned.why.clone(),
        ]
    });
    with_header(&["DEVICE", "MODEL", "SERIAL", "DISKSEQ", "SIZE", "VERDICT", "STEP", "WHY"], rows)
}

/// What would be lost, and how to go on.
#[must_use]
pub fn consent(consent: &WipeConsent) -> String {
    format!(
        "{} is {}\neverything on it would be lost; to go on, repeat the command within {} s with\n  --token {}",
        consent.found.device,
        consent.found.verdict,
        consent.valid_for_ms / 1000,
        consent.token
    )
}
