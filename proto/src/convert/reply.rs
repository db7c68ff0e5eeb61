//! Plans, consents and explanations.

use super::{Reader, Wire};
use crate::reply::{Blocker, Explanation, PlannedDevice, PlannedStep, WipeConsent};
use crate::v1;

const fn step_to_wire(step: PlannedStep) -> v1::PlannedStep {
    match step {
        PlannedStep::None => v1::PlannedStep::None,
        PlannedStep::Format => v1::PlannedStep::Format,
        PlannedStep::Mount => v1::PlannedStep::Mount,
        PlannedStep::Keep => v1::PlannedStep::Keep,
    }
}

const fn step_from_wire(step: v1::PlannedStep) -> Option<PlannedStep> {
    match step {
        v1::PlannedStep::Unspecified => None,
        v1::PlannedStep::None => Some(PlannedStep::None),
        v1::PlannedStep::Format => Some(PlannedStep::Format),
        v1::PlannedStep::Mount => Some(PlannedStep::Mount),
        v1::PlannedStep::Keep => Some(PlannedStep::Keep),
    }
}

impl Wire for PlannedDevice {
    type Message = v1::PlannedDevice;

    fn to_wire(&self) -> v1::PlannedDevice {
        v1::PlannedDevice {
            found: Some(self.found.to_wire()),
            step: step_to_wire(self.step).into(),
            why: self.why.clone(),
        }
    }

    fn read(reader: &mut Reader, message: v1::PlannedDevice) -> Option<Self> {
        let found = reader.required("found", message.found);
        let step = reader.choice("step", message.step).and_then(step_from_wire);
        Some(Self { found: found?, step: step?, why: message.why })
    }
}

impl Wire for WipeConsent {
    type Message = v1::AllowWipeResponse;

    fn to_wire(&self) -> v1::AllowWipeResponse {
        v1::AllowWipeResponse {
            token: self.token.clone(),
            valid_for_ms: self.valid_for_ms,
            found: Some(self.found.to_wire()),
        }
    }

    fn read(reader: &mut Reader, message: v1::AllowWipeResponse) -> Option<Self> {
        let token = reader.filled("token", message.token);
        let found = reader.required("found", message.found);
        Some(Self { token: token?, valid_for_ms: message.valid_for_ms, found: found? })
    }
}

impl Wire for Blocker {
    type Message = v1::Blocker;

    fn to_wire(&self) -> v1::Blocker {
        v1::Blocker { missing: self.missing.clone(), resolve: self.resolve.clone() }
    }

    fn read(_reader: &mut Reader, message: v1::Blocker) -> Option<Self> {
        Some(Self { missing: message.missing, resolve: message.resolve })
    }
}

impl Wire for Explanation {
    type Message = v1::ExplainResponse;

    fn to_wire(&self) -> v1::ExplainResponse {
        v1::ExplainResponse {
            gate: Some(self.gate.to_wire()),
            reason: self.reason.clone(),
            blockers: self.blockers.iter().map(Wire::to_wire).collect(),
            would_stop_writes: self.would_stop_writes.clone(),
            vouch: self.vouch.as_ref().map(Wire::to_wire),
            certificate: self.certificate.as_ref().map(Wire::to_wire),
            refused: self.refused.iter().map(Wire::to_wire).collect(),
            breaches: self.breaches.iter().map(Wire::to_wire).collect(),
        }
    }

    fn read(reader: &mut Reader, message: v1::ExplainResponse) -> Option<Self> {
        let gate = reader.required("gate", message.gate);
        let blockers = reader.list("blockers", message.blockers);
        let vouch = reader.optional("vouch", message.vouch);
        let certificate = reader.optional("certificate", message.certificate);
        let refused = reader.list("refused", message.refused);
        let breaches = reader.list("breaches", message.breaches);
        Some(Self {
            gate: gate?,
            reason: message.reason,
            blockers: blockers?,
            would_stop_writes: message.would_stop_writes,
            vouch: vouch?,
            certificate: certificate?,
            refused: refused?,
            breaches: breaches?,
        })
    }
}
